"""The model of a run before its first step, with the weights that it starts from."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch

import ichseq
from ichseq.config import Config, differing_from_start, plain_value, weights_file
from ichseq.data.index import Index
from ichseq.errors import RunError
from ichseq.model import Model
from ichseq.model.backbone import with_channels_of_neighbours
from ichseq.networks.named import descent_of
from ichseq.runs.names import MODEL, WEIGHTS
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
    asked = config.model
    freeze_bn = init is not None or bool(asked.pretrained) if asked.freeze_bn == "auto" else asked.freeze_bn
    if saved is not None:
        freeze_bn = saved.state["freeze_bn"]
    # With a start or a checkpoint, no weights need be fetched.
    pretrained = asked.pretrained if init is None and saved is None else False
    made = dataclasses.replace(asked, freeze_bn=freeze_bn, pretrained=pretrained)
    model = Model.from_config(made)
    known = _origin(config, stage, index, fold, weights_file(made)) if saved is None else saved.state["trained_on"]
    model.trained_on = dict(known)
    return model


def _origin(config: Config, stage: str, index: Index, fold: int, weights: Path | None) -> dict[str, Any]:
    """What travels with a model: what it is trained on, the file of weights that it starts from included."""
    distance = index.slice_distance_mm(index.training_series(fold))
    return {
        "phantom": index.phantom or _of_phantoms(weights),
        "data_key": index.key,
        "fold": fold,
        "stage": stage,
        "answers_with": STAGE_CLASSES[stage].answers_with,
        "ichseq": ichseq.__version__,
        "precision": choose_precision(config.train.precision),
        **({"slice_distance_mm": list(distance)} if distance else {}),
    }


def _of_phantoms(weights: Path | None) -> bool:
    """Whether a file of weights is ichseq's own and was trained on phantoms."""
    if weights is None or weights.name != WEIGHTS:
        return False
    description = weights.with_name(MODEL)
    if not description.is_file():
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
    other = Model.load(init, device="cpu")
    if key := differing_from_start(model.config, other.config):
        was, asked = (plain_value(getattr(one.config, key)) for one in (other, model))
        raise RunError(f"{init}: its model.{key} is {was}, this run's {asked}; set model.{key} to the same, or choose "
                       "another --init")  # fmt: skip
    mine, theirs = model.state_dict(), other.state_dict()
    extended = _extended_input(model, other, init)
    theirs |= extended
    fitting = {k: t for k, t in theirs.items() if k in mine and mine[k].shape == t.shape}
    mine_read, theirs_read = ({k: t.shape for k, t in s.items() if k.startswith("sequence.")} for s in (mine, theirs))
    if mine_read != theirs_read:  # taken whole or not at all: a head is of no use to other layers than its own
        fitting = {k: t for k, t in fitting.items() if not k.startswith(("sequence.", "exam."))}
    model.load_state_dict(fitting, strict=False)
    whole = bool(mine_read) and mine_read == theirs_read and other.trained_on.get("answers_with") == "sequence"
    model.trained_on["start_answers_with"] = "sequence" if whole else "slice_head"
    fresh = sorted({"cross_slice" if ".cross_slice." in key else key.split(".")[0] for key in mine
                    if key not in fitting})  # fmt: skip
    model.trained_on["phantom"] = bool(model.trained_on["phantom"] or other.trained_on.get("phantom"))
    if descent := descent_of(other.trained_on):
        model.trained_on["began_from"] = descent
    took = f"; first convolution extended to {model.input_channels} channels" if extended else ""
    source = descent[-1] if "network" in other.trained_on else init
    return f"weights from {source}{took}" + (f"; fresh: {', '.join(fresh)}" if fresh else "")


def _extended_input(model: Model, other: Model, init: Path) -> dict[str, torch.Tensor]:
    """The weights of the start that read a slice, for as many neighbours as the model reads; none if it does already.

    Raises:
        RunError: the start reads more neighbours, or its backbone has no such layer.
    """
    mine, theirs = model.config.neighbours, other.config.neighbours
    if mine == theirs:
        return {}
    wanted = model.backbone.state_dict()
    weights = with_channels_of_neighbours(other.backbone.state_dict(), wanted) if theirs < mine else {}
    if not weights:
        raise RunError(f"{init}: its model.neighbours is {theirs}, this run's {mine}, and its first layer can't be "
                       "taken; set model.neighbours to the same, or choose another --init")  # fmt: skip
    return {f"backbone.{name}": tensor for name, tensor in weights.items()}
