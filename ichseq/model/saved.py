"""A model's folder: weights.safetensors, and model.json with the configuration and what the weights come from.

model.json is sealed (`ichseq.documents`) and holds the hash of the weights, so that a file that was changed is an
error. It is data: what it may ask for is what `Model.save` writes, within bounds, and nothing beyond the folder.
"""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import safetensors
from safetensors.torch import load_file, save_file
from torch import Tensor

from ichseq.config import ModelConfig
from ichseq.config.fields import read_section
from ichseq.documents import file_digest, read_document, sealed, unsealed
from ichseq.errors import ConfigError, RunError, counted
from ichseq.files import flush, replacing, write_text
from ichseq.labels import LABELS
from ichseq.networks.named import is_network, name_of, origin_of
from ichseq.networks.shipped import check, is_shipped, shipped_names

FORMAT = 1
WEIGHTS, DESCRIPTION = "weights.safetensors", "model.json"
_MOST_BYTES: Final = 1 << 20  # of model.json, which takes some 2 kB
_MOST_IN_A_LIST: Final = 16
_MOST_LETTERS: Final = 1000
_SHARES: Final = ("sequence_share", "exam_share")


class Description(NamedTuple):
    """What model.json holds.

    Attributes:
        config: the fields of a `ModelConfig`.
        trained_on: what the weights come from.
        sequence_share: `Heads.sequence_share`.
        exam_share: `Heads.exam_share`.
        weights: SHA-256 of the file of weights; "" before it is written.
    """

    config: dict[str, Any]
    trained_on: dict[str, Any]
    sequence_share: list[float] | None = None
    exam_share: list[float] | None = None
    weights: str = ""

    def text(self) -> str:
        """As JSON, sealed."""
        shares = {name: share for name in _SHARES if (share := getattr(self, name)) is not None}
        content = {"format": FORMAT, "labels": LABELS, "config": self.config, "trained_on": self.trained_on, **shares}
        return json.dumps(sealed(content | {"weights_sha256": self.weights}), indent=2)


def write_model(folder: Path, description: Description, weights: Mapping[str, Tensor]) -> None:
    """Write both files, each beside and then renamed into place, the weights first.

    Raises:
        RunError: the file system refuses; what was there before is as it was.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / DESCRIPTION) as beside, replacing(folder / WEIGHTS) as weights_beside:
            save_file({k: t.detach().cpu().contiguous() for k, t in weights.items()}, weights_beside)
            described = description._replace(weights=file_digest(weights_beside))
            beside.write_text(described.text(), encoding="utf-8")
            flush(beside)  # so that no disk is found to be full once the weights are in place
    except (OSError, safetensors.SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RunError(f"{folder}: the weights can't be written ({reason}); make room, or choose another") from None


def write_shares(folder: Path, share: list[float], exam_share: list[float] | None) -> None:
    """Put the shares of sequence part and exam head into the model.json of a folder.

    Raises:
        RunError: the file system refuses, or there is no model.
    """
    with damage_explained(folder):
        description = read_description(folder)._replace(sequence_share=share, exam_share=exam_share)
    try:
        write_text(folder / DESCRIPTION, description.text())
    except OSError as error:
        raise RunError(f"{folder / DESCRIPTION}: can't be written ({error.strerror}); make room") from None


def read_model(folder: Path) -> tuple[Description, dict[str, Tensor]]:
    """Read what `write_model` has written, and compare it with its hashes; of a network that ships with those too.

    Raises:
        OSError, KeyError, TypeError, ValueError, ConfigError, safetensors.SafetensorError: no model there, or a damaged
            one; see `damage_explained`.
        RunError: one of a newer version, or a damaged one that ships.
    """
    if is_shipped(folder):
        check(folder)
    description = read_description(folder)
    if file_digest(folder / WEIGHTS) != description.weights:
        raise ValueError("the weights are not those that were written with it")
    return description, load_file(folder / WEIGHTS)


def read_description(folder: Path) -> Description:
    """The content of model.json; raises as `read_model`."""
    content = read_document(folder / DESCRIPTION, most=_MOST_BYTES)
    if content["format"] > FORMAT:
        raise RunError(f"{name_of(folder)}: written by a newer ichseq; update this one (pip install -U ichseq)")
    described = checked_description(unsealed(content))
    return described._replace(trained_on=described.trained_on | origin_of(folder))


def checked_description(content: Mapping[str, Any]) -> Description:
    """The description in the content of a document; raises as `read_model`."""
    if (labels := list(content.get("labels", LABELS))) != list(LABELS):
        raise ConfigError(f"its labels are {', '.join(map(str, labels))}; those of ichseq are {', '.join(LABELS)}")
    shares = [content.get(name) for name in _SHARES]
    for share in shares:
        if share is not None and not (len(share) == len(LABELS) and all(0 <= float(one) <= 1 for one in share)):
            raise ValueError("shares are a number from 0 to 1 for each label")
    trained_on = dict(content["trained_on"])
    if not all(_is_plain(name) and _is_plain(value) for name, value in trained_on.items()):
        raise ValueError("what the weights come from is short text and numbers")
    config = _checked(dict(content["config"]))
    return Description(config, trained_on, shares[0], shares[1], str(content["weights_sha256"]))


def _checked(config: dict[str, Any]) -> dict[str, Any]:
    """The fields, if they are what a saved model has: checked as any settings, bounded, and nothing left to fetch.

    Raises:
        ConfigError: they are not.
    """
    read_section(ModelConfig, config, "model")
    for name, value in config.items():
        if isinstance(value, list) and len(value) > _MOST_IN_A_LIST:
            raise ConfigError(f"model.{name} has {len(value)} values; at most {_MOST_IN_A_LIST} are taken")
    if config.get("pretrained") is not False:
        raise ConfigError(f"model.pretrained is {config.get('pretrained')!r}; a saved model brings its weights and has "
                          "false there")  # fmt: skip
    for name in ("freeze_bn", "channels_last"):
        if not isinstance(config.get(name), bool):
            raise ConfigError(f"model.{name} is {config.get(name)!r}; a saved model has true or false there")
    return config


def _is_plain(value: Any) -> bool:
    """Whether a value is of the kinds that a training notes: a number, a short text of one line, or some of these."""
    if isinstance(value, list):
        return len(value) <= _MOST_IN_A_LIST and all(not isinstance(one, list) and _is_plain(one) for one in value)
    if isinstance(value, str):
        return len(value) <= _MOST_LETTERS and value.isprintable()
    return value is None or isinstance(value, bool | int | float)


def refuse_other_tensors(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """See that a file holds the tensors of a network, no more and no fewer.

    Raises:
        ValueError: it does not.
    """
    wrong = {
        "lacks": sorted(wanted.keys() - found.keys()),
        "has, and the network has not,": sorted(found.keys() - wanted.keys()),
        "has in another shape": sorted(k for k in wanted.keys() & found.keys() if wanted[k].shape != found[k].shape),
    }
    differing = [f"{how} {counted(len(of), 'tensor')}, the first {of[0]}" for how, of in wrong.items() if of]
    if differing:
        raise ValueError(f"its file {'; it '.join(differing)}")


def numbers_in(folder: Path) -> int:
    """How many numbers the file of weights holds, by its header; raises as `read_model`."""
    with safetensors.safe_open(folder / WEIGHTS, framework="pt") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - no dict


@contextmanager
def damage_explained(folder: Path) -> Iterator[None]:
    """Within it, what fails while the model of a folder is read and made is a RunError that says so."""
    name = name_of(folder)
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        inside = sorted(path.parent for path in folder.glob(f"*/*/{DESCRIPTION}"))
        hint = f"; inside it are {', '.join(map(str, inside))}" if inside else "; train one with `ichseq train`"
        if not folder.exists() and shipped_names():
            hint += f", or name one that ships: {', '.join(shipped_names())}"
        raise RunError(f"{name}: no model there ({DESCRIPTION} and {WEIGHTS}){hint}") from None
    except ConfigError as error:
        raise RunError(f"{name}: its {DESCRIPTION} does not describe a model of this version: {error}") from None
    except (KeyError, TypeError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        why = str(error) if type(error) is ValueError and str(error) else type(error).__name__
        remedy = "name another, or ask its authors" if is_network(folder) else "train it again"
        raise RunError(f"{name}: its model is damaged ({why.splitlines()[0]}); {remedy}") from None
