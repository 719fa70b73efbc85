"""What several commands take as options."""

from pathlib import Path
from typing import Any

import click

PATH = click.Path(path_type=Path)

SCHEDULER = click.option(
    "--scheduler", metavar="ADDRESS", help="Work on a Dask cluster: its scheduler's address, such as tcp://node1:8786."
)


class Fold(click.ParamType):
    """A fold's number, `all` (an empty list) or `all-patients` (-1, as ichseq.data.index.ALL_PATIENTS)."""

    name = "fold"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        named: dict[str, list[int]] = {"all": [], "all-patients": [-1]}
        if isinstance(value, list):
            return value
        if value not in named and not value.isdigit():
            self.fail(f"{value!r} is no fold; give a number, all or all-patients", param, ctx)
        return named[value] if value in named else [int(value)]


def device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def machine() -> str:
    """The hardware, in words."""
    import os
    import platform

    import torch

    cores = f"{platform.machine()}, {os.cpu_count()} cores"
    return f"{cores}, {torch.cuda.get_device_name()}" if torch.cuda.is_available() else f"{cores}, no GPU"


class Views(click.ParamType):
    """Names with commas, such as flip,transpose; whether they exist, `ModelEnsemble` says."""

    name = "views"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        return value if isinstance(value, list) else [name for name in value.split(",") if name]


BAG = click.option("--bag", default=0, show_default=True, help="Mean over the weights of the last epochs; 0: the best.")
TTA = click.option("--tta", type=Views(), default="", help="Views averaged with the slices: flip,transpose.")
