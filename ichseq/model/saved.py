"""A model's folder: weights.safetensors, and model.json with the configuration and what the weights come from."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
from safetensors.torch import load_file, save_file
from torch import Tensor

from ichseq.errors import ConfigError, RunError
from ichseq.files import replacing
from ichseq.networks.shipped import check, is_shipped, shipped_names

FORMAT = 1
WEIGHTS, DESCRIPTION = "weights.safetensors", "model.json"


class Saved(NamedTuple):
    """What a model's folder holds: the fields of its `ModelConfig`, what the weights come from, and these."""

    config: dict[str, Any]
    trained_on: dict[str, Any]
    weights: dict[str, Tensor]


def write_model(folder: Path, config: Mapping[str, Any], trained_on: Mapping[str, Any], weights: Mapping[str, Tensor]
                ) -> None:  # fmt: skip
    """Write both files, each beside and then renamed into place.

    Raises:
        RunError: the file system refuses; what was there before is as it was.
    """
    description = {"format": FORMAT, "config": config, "trained_on": trained_on}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / DESCRIPTION) as beside, replacing(folder / WEIGHTS) as weights_beside:
            beside.write_text(json.dumps(description, indent=2), encoding="utf-8")
            save_file({k: t.detach().cpu().contiguous() for k, t in weights.items()}, weights_beside)
    except (OSError, safetensors.SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RunError(f"{folder}: the weights can't be written ({reason}); make room, or choose another") from None


def read_model(folder: Path) -> Saved:
    """Read what `write_model` has written; the files of a network that ships are compared with their checksums.

    Raises:
        OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError: no model there, or a damaged one; see
            `damage_explained`.
        RunError: one of a newer version, or a damaged one that ships.
    """
    if is_shipped(folder):
        check(folder)
    description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    if description["format"] > FORMAT:
        raise RunError(f"{folder}: written by a newer ichseq; update this one (pip install -U ichseq)")
    return Saved(dict(description["config"]), dict(description["trained_on"]), load_file(folder / WEIGHTS))


@contextmanager
def damage_explained(folder: Path) -> Iterator[None]:
    """Within it, what fails while the model of a folder is read and made is a RunError that says so."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        inside = sorted(path.parent for path in folder.glob(f"*/*/{DESCRIPTION}"))
        hint = f"; inside it are {', '.join(map(str, inside))}" if inside else "; train one with `ichseq train`"
        if not folder.exists() and shipped_names():
            hint += f", or name one that ships: {', '.join(shipped_names())}"
        raise RunError(f"{folder}: no model there ({DESCRIPTION} and {WEIGHTS}){hint}") from None
    except ConfigError as error:
        raise RunError(f"{folder}: its {DESCRIPTION} does not describe a model of this version: {error}") from None
    except (KeyError, TypeError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        raise RunError(f"{folder}: its model is damaged ({type(error).__name__}); train it again") from None
