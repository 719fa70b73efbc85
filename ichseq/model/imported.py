"""A network that was published elsewhere as a `Model`: its files' settings and tensors, each by its place in ours.

One layout is known, that of ianpan/ct-head-hemorrhage-detection on the Hugging Face hub:

    config.json                      windows, geometry, labels, shares of the blends
    classifier/model.safetensors     a timm backbone, and a linear layer for each slice
    sequence/model.safetensors       a recurrent part over the embeddings, and attention for the whole series

Every tensor is used, or stands in `Imported.left_out`; a tensor more or fewer is an error.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor

from ichseq.documents import read_document
from ichseq.errors import ConfigError, RunError, counted
from ichseq.labels import LABELS
from ichseq.model.centre import LARGE
from ichseq.model.model import Model
from ichseq.windows import WINDOWS

SETTINGS: Final = "config.json"
CLASSIFIER: Final = "classifier/model.safetensors"
SEQUENCE: Final = "sequence/model.safetensors"
LAYOUT: Final = "ct_head_hemorrhage_detection"
"""What config.json calls it, under `model_type`."""

_MOST_BYTES: Final = 1 << 20
_NORMALISED: Final[dict[tuple[float, ...], bool | str]] = {(0, 1, 0, 1): False, (0, 1, -1, 1): "symmetric"}

_UNUSED: Final = {
    "mil_pool.attention.0.weight", "mil_pool.attention.0.bias", "mil_pool.attention.2.weight",
    "mil_pool.attention.2.bias", "mil_pool.classifier_weight", "mil_pool.classifier_bias",
    "sequence_pool.attention.2.bias",  # the same for every slice, so that the softmax takes no notice of it
}  # fmt: skip
"""Tensors of the sequence file that change no answer; the first six gave a loss beside the others in training."""

_NAMES: Final = {
    "input_norm": "sequence.norm",
    "projection": "sequence.enter",
    "projection_norm": "sequence.enter_norm",
    "sequence": "sequence.gru",
    "slice_head": "sequence.head",
    "sequence_pool.attention.0": "exam.enter",
    "sequence_pool.attention.2": "exam.score",
}
"""Modules of the sequence file, by their names there."""


@dataclass(frozen=True)
class Imported:
    """A network from elsewhere.

    Attributes:
        model: in evaluation mode, on the CPU.
        left_out: files and tensors that are not used, with reasons.
    """

    model: Model
    left_out: list[str]


def import_network(folder: Path) -> Imported:
    """Read the files of a published network.

    Raises:
        RunError: one is missing or damaged, or asks for what is not known here.
    """
    try:
        settings = _Settings.read(folder)
        tensors = {file: load_file(folder / file) for file in (CLASSIFIER, SEQUENCE)}
    except FileNotFoundError as error:
        raise RunError(f"{folder}: has no {_within(folder, error.filename)}, so it is no network of a known layout; "
                       f"a folder has {SETTINGS}, {CLASSIFIER} and {SEQUENCE}") from None  # fmt: skip
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise RunError(f"{folder}: its files can't be read ({error}); fetch them again") from None
    try:
        model = Model(**settings.of_model(tensors[SEQUENCE]))
    except (ConfigError, KeyError, IndexError, TypeError) as error:
        raise RunError(f"{folder}: no network can be made of its {SETTINGS} and {SEQUENCE} ({error})") from None
    found = _placed(tensors, settings.order)
    _refuse_others(folder, model.state_dict(), found)
    model.load_state_dict(found)
    model.sequence_share, model.exam_share = settings.shares()
    return Imported(model.eval(), _left_out(folder))


def _within(folder: Path, file: Any) -> str:
    path = Path(str(file))
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else path.name


@dataclass(frozen=True)
class _Settings:
    """The content of config.json, of which every value that decides an answer is looked at."""

    folder: Path
    content: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> "_Settings":
        """Read it; raises as `import_network`, and OSError, ValueError."""
        content = read_document(folder / SETTINGS, most=_MOST_BYTES)
        if not isinstance(content, dict) or content.get("model_type") != LAYOUT:
            named = content.get("model_type") if isinstance(content, dict) else None
            raise RunError(f"{folder / SETTINGS}: its model_type is {named!r}; {LAYOUT} is known")
        return cls(folder, content)

    def _value(self, *path: str, check: Callable[[Any], bool]) -> Any:
        """A value by the keys that lead to it.

        Raises:
            RunError: there is none, or the check says that it is not known.
        """
        value: Any = self.content
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if not check(value):
            raise RunError(f"{self.folder / SETTINGS}: its {'.'.join(path)} is {json.dumps(value)[:200]}, which is not "
                           "known here")  # fmt: skip
        return value

    @property
    def order(self) -> list[int]:
        """For each of our labels the number of it there."""
        theirs = self._value(
            "labels", check=lambda value: isinstance(value, list) and sorted(map(str, value)) == sorted(LABELS)
        )
        return [theirs.index(label) for label in LABELS]

    def shares(self) -> tuple[list[float], list[float]]:
        """Of the sequence part for slices, and of its answer for the series."""
        self._value("series_baseline_aggregation", check=lambda value: value == "max_probability")
        both = [self._value(name, check=_are_shares) for name in ("slice_blend_alphas", "series_blend_alphas")]
        slices, series = ([float(one[k]) for k in self.order] for one in both)
        return slices, series

    def of_model(self, sequence: Mapping[str, Tensor]) -> dict[str, Any]:
        """The settings of a `Model`.

        Raises:
            RunError: one has no counterpart.
            KeyError, IndexError: the recurrent part's tensors are not there, or no matrices.
        """
        side = self._value(
            "input", "height", check=lambda value: isinstance(value, int) and not isinstance(value, bool)
        )
        self._value("input", "width", check=lambda value: value == side)
        self._value("input", "large_image_resize_threshold", check=lambda value: value == LARGE * side)
        self._value("input", "channel_order", check=lambda value: value == "slice-major")
        seen = self._value("input", "adjacent_slices", check=lambda value: value in (1, 3, 5, 7, 9))
        scaled = self._value("input", "normalization", check=lambda value: _bounds(value) in _NORMALISED)
        windows = self._value(
            "input", "windows", check=lambda value: isinstance(value, list) and all(map(_window, value))
        )
        long = self._value("long_series_inference_default", check=lambda value: value in ("resample", "full"))
        most = self._value("training_max_sequence_length", check=lambda value: isinstance(value, int) and value > 1)
        backbone = self._value("architecture", "slice_classifier", check=lambda value: isinstance(value, str))
        return {
            "backbone": backbone, "pool": "head_avg", "image_size": side, "neighbours": seen // 2, "edge": "zero",
            "windows": [_window(one) for one in windows], "normalise": _NORMALISED[_bounds(scaled)], "crop": "centre",
            "sequence": "gru_projected", "hidden_size": int(sequence["sequence.weight_hh_l0"].shape[1]),
            "sequence_slices": most if long == "resample" else 0, "exam": "attention", "pretrained": False,
            "freeze_bn": True,
        }  # fmt: skip


def _are_shares(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != len(LABELS):
        return False
    return all(isinstance(one, int | float) and 0 <= one <= 1 for one in value)


def _bounds(value: Any) -> tuple[Any, ...]:
    keys = ("input_min", "input_max", "output_min", "output_max")
    return tuple(value.get(key) for key in keys) if isinstance(value, dict) and len(value) == len(keys) else ()


def _window(value: Any) -> str | None:
    """The name of a window that is given by centre and width."""
    found = (value.get("center"), value.get("width")) if isinstance(value, dict) else None
    return next((name for name, one in WINDOWS.items() if one == found), None)


def _placed(tensors: Mapping[str, Mapping[str, Tensor]], order: list[int]) -> dict[str, Tensor]:
    """The tensors under their names in `Model`, rows of labels in our order; unknown ones keep theirs."""
    found = {f"slice_head.{name.removeprefix('linear.')}" if name.startswith("linear.") else name: tensor
             for name, tensor in tensors[CLASSIFIER].items()}  # fmt: skip
    for name, tensor in tensors[SEQUENCE].items():
        if name in _UNUSED:
            continue
        if name.startswith("sequence_pool.classifier_"):
            found[f"exam.head.{name.removeprefix('sequence_pool.classifier_')}"] = tensor
            continue
        module, _, own = name.rpartition(".")
        found[f"{_NAMES.get(module, module)}.{own}"] = tensor
    by_label = [
        name for name in found if name.startswith(("slice_head.", "sequence.head.", "exam.head.", "exam.score."))
    ]
    for name in by_label:
        if len(found[name]) == len(order):
            found[name] = found[name][order]
    return found


def _refuse_others(folder: Path, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """See that the tensors are those of the network, no more, no fewer, none of another shape and all of them finite.

    Raises:
        RunError: they are not.
    """
    wrong = {
        "it lacks": wanted.keys() - found.keys(),
        "nothing is known of": found.keys() - wanted.keys(),
        "of another shape is": {k for k in wanted.keys() & found.keys() if wanted[k].shape != found[k].shape},
        "no finite numbers has": {k for k, v in found.items() if v.is_floating_point() and not torch.isfinite(v).all()},
    }
    for how, names in wrong.items():
        if names:
            raise RunError(f"{folder}: {how} {counted(len(names), 'tensor')}, the first {min(names)} (as ichseq calls "
                           "it); fetch its files again, or ask its authors for those of this layout")  # fmt: skip


def _left_out(folder: Path) -> list[str]:
    """What of a folder is not used."""
    auxiliary = sum(name.startswith("mil_pool.") for name in _UNUSED)
    remarks = [
        f"{SEQUENCE}: mil_pool ({counted(auxiliary, 'tensor')}), an answer that training alone looked at",
        f"{SEQUENCE}: sequence_pool.attention.2.bias, which changes no answer",
    ]
    decoders = len(list(folder.glob("segmentation/*.safetensors")))
    return remarks + [f"segmentation: {counted(decoders, 'file')} of decoders, which draw where bleeding is"] * (
        decoders > 0
    )
