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
from ichseq.files import replacing, write_text
from ichseq.labels import LABELS
from ichseq.networks.shipped import check, is_shipped, shipped_names

FORMAT = 1
WEIGHTS, DESCRIPTION = "weights.safetensors", "model.json"


class Description(NamedTuple):
    """What model.json holds: the fields of a `ModelConfig`, what the weights come from, and `Heads.sequence_share`."""

    config: dict[str, Any]
    trained_on: dict[str, Any]
    sequence_share: list[float] | None = None

    def text(self) -> str:
        """As JSON."""
        share = {} if self.sequence_share is None else {"sequence_share": self.sequence_share}
        content = {"format": FORMAT, "config": self.config, "trained_on": self.trained_on, **share}
        return json.dumps(content, indent=2)


def write_model(folder: Path, description: Description, weights: Mapping[str, Tensor]) -> None:
    """Write both files, each beside and then renamed into place.

    Raises:
        RunError: the file system refuses; what was there before is as it was.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / DESCRIPTION) as beside, replacing(folder / WEIGHTS) as weights_beside:
            beside.write_text(description.text(), encoding="utf-8")
            save_file({k: t.detach().cpu().contiguous() for k, t in weights.items()}, weights_beside)
    except (OSError, safetensors.SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RunError(f"{folder}: the weights can't be written ({reason}); make room, or choose another") from None


def write_share(folder: Path, share: list[float]) -> None:
    """Put the share of the sequence part into the model.json of a folder.

    Raises:
        RunError: the file system refuses, or there is no model.
    """
    with damage_explained(folder):
        description = read_description(folder)._replace(sequence_share=share)
    try:
        write_text(folder / DESCRIPTION, description.text())
    except OSError as error:
        raise RunError(f"{folder / DESCRIPTION}: can't be written ({error.strerror}); make room") from None


def read_model(folder: Path) -> tuple[Description, dict[str, Tensor]]:
    """Read what `write_model` has written; the files of a network that ships are compared with their checksums.

    Raises:
        OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError: no model there, or a damaged one; see
            `damage_explained`.
        RunError: one of a newer version, or a damaged one that ships.
    """
    if is_shipped(folder):
        check(folder)
    return read_description(folder), load_file(folder / WEIGHTS)


def read_description(folder: Path) -> Description:
    """The content of model.json; raises as `read_model`."""
    content = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    if content["format"] > FORMAT:
        raise RunError(f"{folder}: written by a newer ichseq; update this one (pip install -U ichseq)")
    share = content.get("sequence_share")
    if share is not None and not (len(share) == len(LABELS) and all(0 <= float(one) <= 1 for one in share)):
        raise ValueError("shares are a number from 0 to 1 for each label")
    return Description(dict(content["config"]), dict(content["trained_on"]), share)


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
