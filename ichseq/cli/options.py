"""What several commands take as options."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from ichseq.api import Fold, as_fold
from ichseq.errors import ConfigError

PATH = click.Path(path_type=Path)


def default_of(function: Callable[..., Any], name: str) -> Any:
    """The default of an argument: an option of the same name has the same."""
    return inspect.signature(function).parameters[name].default


SCHEDULER = click.option(
    "--scheduler", metavar="ADDRESS", help="Work on a Dask cluster: its scheduler's address, such as tcp://node1:8786."
)


PSEUDONYMISE = click.option(
    "--pseudonymise", is_flag=True, help="Pseudonyms in the place of ids and names of files, by a salt kept beside."
)
SALT_FILE = click.option(
    "--salt-file", type=PATH, help="Pseudonyms by the salt in this file, made if missing: keep it apart."
)


SHOW_ID = click.option("--show-id", is_flag=True, help="In the report: PatientID, UIDs and files, and no pseudonyms.")


class FoldType(click.ParamType):
    """A fold's number, `all` or `all-patients`."""

    name = "fold"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Fold:
        try:
            return as_fold(value)
        except ConfigError as error:
            self.fail(str(error), param, ctx)


def machine() -> str:
    """The hardware, in words."""
    import os
    import platform

    import torch

    cores = f"{platform.machine()}, {os.cpu_count()} cores"
    return f"{cores}, {torch.cuda.get_device_name()}" if torch.cuda.is_available() else f"{cores}, no GPU"


class HuRange(click.ParamType):
    """Two whole numbers with a comma, such as -1024,3071; whether a set may keep it, `prepare` says."""

    name = "low,high"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        try:
            low, high = map(int, value.split(","))
        except ValueError:
            self.fail(f"{value!r} is no range; give two whole numbers, such as -1024,3071", param, ctx)
        return low, high


class Views(click.ParamType):
    """Names with commas, such as flip,transpose; whether they exist, `ModelEnsemble` says."""

    name = "views"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Sequence[str]:
        return [name for name in value.split(",") if name] if isinstance(value, str) else value
