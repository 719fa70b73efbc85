"""The model of a run before its first step, with the weights that it starts from."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch

import ichseq
from ichseq.config import Config
from ichseq.data.index import Index
from ichseq.errors import RunError
from ichseq.model import Model
from ichseq.model.backbone import widened_input
from ichseq.runs.names import MODEL
from ichseq.seeds import derive_seed
from ichseq.training.checkpoint import Checkpoint
from ichseq.training.processes import choose_precision
from ichseq.training.stages import STAGE_CLASSES


def build_model(
    config: Config, stage: str, index: Index, fold: int, *, init: Path | None = None, saved: Checkpoint | None = None
) -> Model:
    """The model of a run, on the CPU: with random or pretrained weights, in which those of a start are put later.

    Args:
        config: settings.
        stage: that is trained.
        index: the set that it is trained on.
        fold: that is left out for validation.
        init: leaf of another run whose weights `start_from` will take.
        saved: the checkpoint whose weights will be put over these.

    Raises:
        ConfigError: a backbone, window or weights file that does not work.
    """
    torch.manual_seed(derive_seed(config.train.seed, "weights"))
    settings = dataclasses.asdict(config.model)
    if init is not None or saved is not None:
        settings["pretrained"] = False  # they need not be fetched
    if saved is not None:
        settings["freeze_bn"] = saved.state["freeze_bn"]
    elif settings["freeze_bn"] == "auto":
        settings["freeze_bn"] = init is not None or bool(config.model.pretrained)
    model = Model(**settings)
    model.trained_on = _origin(config, stage, index, fold) if saved is None else dict(saved.state["trained_on"])
    return model


def _origin(config: Config, stage: str, index: Index, fold: int) -> dict[str, Any]:
    """What travels with the weights: what they are trained on, and how they answer."""
    return {
        "phantom": index.phantom or _of_phantoms(config.model.pretrained),
        "data_key": index.key,
        "fold": fold,
        "stage": stage,
        "answers_with": STAGE_CLASSES[stage].answers_with,
        "ichseq": ichseq.__version__,
        "precision": choose_precision(config.train.precision),
    }


def _of_phantoms(pretrained: bool | str) -> bool:
    """Whether the weights are a file of ichseq's own that was trained on phantoms."""
    description = Path(pretrained).parent / MODEL if isinstance(pretrained, str) else None
    if description is None or not description.is_file():
        return False
    return bool(json.loads(description.read_text(encoding="utf-8"))["trained_on"].get("phantom"))


def start_from(model: Model, init: Path) -> str:
    """Take another run's weights: the backbone's have to fit, the slice head's and the sequence part's are taken if so.

    The first layer of a backbone that reads fewer neighbours gets channels for them, so that it begins as the same
    function.

    Returns:
        A line that says what was taken.

    Raises:
        RunError: `init` has another backbone, other windows or more neighbours.
    """
    other = Model.load(init)
    for key in ("backbone", "windows", *(["cross_slice"] if other.settings["cross_slice"] else [])):
        if other.settings[key] != model.settings[key]:
            raise RunError(f"{init}: its model.{key} is {other.settings[key]}, this run's {model.settings[key]}; "
                           f"set model.{key} to the same, or choose another --init")  # fmt: skip
    mine, theirs = model.state_dict(), other.state_dict()
    extended = _extended_input(model, other, init)
    theirs |= extended
    fitting = {k: t for k, t in theirs.items() if k in mine and mine[k].shape == t.shape}
    mine_read, theirs_read = ({k: t.shape for k, t in s.items() if k.startswith("sequence.")} for s in (mine, theirs))
    if mine_read != theirs_read:  # taken whole or not at all: a head is of no use to other layers than its own
        fitting = {k: t for k, t in fitting.items() if not k.startswith("sequence.")}
    model.load_state_dict(fitting, strict=False)
    fresh = sorted({"cross_slice" if ".cross_slice." in key else key.split(".")[0] for key in mine
                    if key not in fitting})  # fmt: skip
    model.trained_on["phantom"] = bool(model.trained_on["phantom"] or other.trained_on.get("phantom"))
    took = f"; first convolution extended to {model.input_channels} channels" if extended else ""
    return f"weights from {init}{took}" + (f"; fresh: {', '.join(fresh)}" if fresh else "")


def _extended_input(model: Model, other: Model, init: Path) -> dict[str, torch.Tensor]:
    """The weights of the start that read a slice, for as many neighbours as the model reads; none if it does already.

    Raises:
        RunError: the start reads more neighbours, or its backbone has no such layer.
    """
    mine, theirs = model.settings["neighbours"], other.settings["neighbours"]
    if mine == theirs:
        return {}
    weights = widened_input(other.backbone.state_dict(), model.backbone.state_dict()) if theirs < mine else {}
    if not weights:
        raise RunError(f"{init}: its model.neighbours is {theirs}, this run's {mine}, and its first layer can't be "
                       "taken; set model.neighbours to the same, or choose another --init")  # fmt: skip
    return {f"backbone.{name}": tensor for name, tensor in weights.items()}
