"""What a run is made of before its first step: the model with its start, the optimizer, the schedule, the precision."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import torch
from timm.scheduler import CosineLRScheduler, StepLRScheduler

import ichseq
from ichseq.config import Config, TrainConfig, differing_from_start, plain_value
from ichseq.data.index import Index
from ichseq.devices import out_of_memory, release_memory
from ichseq.errors import ConfigError, RunError
from ichseq.model import Model
from ichseq.model.backbone import with_channels_of_neighbours
from ichseq.seeds import derive_seed


def build_model(config: Config, stage: str, index: Index, fold: int, *, init: Path | None, fetch: bool) -> Model:
    """The model of a run, on the CPU, with the weights that it starts from.

    Args:
        config: settings.
        stage: that is trained.
        index: the set that it is trained on.
        fold: that is held out.
        init: leaf of another run whose weights are the start.
        fetch: False where a checkpoint's weights will be put over these, so that none need be fetched.

    Raises:
        ConfigError: a backbone, window or weights file that does not work.
        RunError: `init` has another backbone, other windows or more neighbours.
    """
    torch.manual_seed(derive_seed(config.train.seed, "weights"))
    settings = config.model
    if settings.freeze_bn == "auto":
        settings = dataclasses.replace(settings, freeze_bn=init is not None or bool(settings.pretrained))
    if init is not None or not fetch:
        settings = dataclasses.replace(settings, pretrained=False)
    model = Model.from_config(settings)
    phantom = index.phantom or (fetch and _of_phantoms(config.model.pretrained))
    model.trained_on = {"phantom": phantom, "data_key": index.key, "fold": fold}
    model.trained_on |= {"stage": stage, "ichseq": ichseq.__version__}
    model.trained_on["precision"] = choose_precision(config.train.precision)
    return model


def _of_phantoms(pretrained: bool | str) -> bool:
    """Whether the weights are a file of ichseq's own that was trained on phantoms."""
    description = Path(pretrained).parent / "model.json" if isinstance(pretrained, str) else None
    if description is None or not description.is_file():
        return False
    return bool(json.loads(description.read_text(encoding="utf-8"))["trained_on"].get("phantom"))


def start_from(model: Model, init: Path) -> str:
    """Take another run's weights: the backbone's have to fit, the slice head's and the sequence part's are taken if so.

    The first layer of a backbone that reads fewer neighbours is widened, so that it begins as the same function.

    Returns:
        A line that says what was taken.
    """
    other = Model.load(init, device="cpu")
    if key := differing_from_start(model.config, other.config):
        was, asked = (plain_value(getattr(one.config, key)) for one in (other, model))
        raise RunError(f"{init}: its model.{key} is {was}, this run's {asked}; set model.{key} to the same, or choose "
                       "another --init")  # fmt: skip
    mine, theirs = model.state_dict(), other.state_dict()
    widened = _widened(model, other, init)
    theirs |= widened
    fitting = {k: t for k, t in theirs.items() if k in mine and mine[k].shape == t.shape}
    mine_read, theirs_read = ({k: t.shape for k, t in s.items() if k.startswith("sequence.")} for s in (mine, theirs))
    if mine_read != theirs_read:  # taken whole or not at all: a head is of no use to other layers than its own
        fitting = {k: t for k, t in fitting.items() if not k.startswith("sequence.")}
    model.load_state_dict(fitting, strict=False)
    fresh = sorted({"cross_slice" if ".cross_slice." in key else key.split(".")[0] for key in mine
                    if key not in fitting})  # fmt: skip
    model.trained_on["phantom"] = bool(model.trained_on["phantom"] or other.trained_on.get("phantom"))
    took = f"; first convolution widened to {model.input_channels} channels" if widened else ""
    return f"weights from {init}{took}" + (f"; fresh: {', '.join(fresh)}" if fresh else "")


def _widened(model: Model, other: Model, init: Path) -> dict[str, torch.Tensor]:
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


def make_optimizer(groups: list[dict[str, Any]], train: TrainConfig, device: torch.device) -> torch.optim.AdamW:
    """AdamW; on a GPU in one kernel for all parameters."""
    return torch.optim.AdamW(groups, weight_decay=train.weight_decay, fused=device.type == "cuda")


def make_scheduler(
    optimizer: torch.optim.Optimizer, train: TrainConfig, steps_per_epoch: int
) -> CosineLRScheduler | StepLRScheduler:
    """Learning rates by step: a linear rise, then a cosine to zero, or constant with a factor after each epoch."""
    total = steps_per_epoch * (train.epochs or 1)
    warmup: dict[str, Any] = {"warmup_t": min(train.warmup_steps, total), "warmup_lr_init": 0.0, "t_in_epochs": False}
    if train.schedule == "cosine":
        return CosineLRScheduler(optimizer, t_initial=total, **warmup)
    return StepLRScheduler(optimizer, decay_t=steps_per_epoch, decay_rate=train.decay, **warmup)


def choose_precision(asked: str) -> str:
    """The precision by accelerate's name; "auto" is bf16, or fp16 where a GPU lacks it, and no mixing on a CPU."""
    if asked == "fp16" and not torch.cuda.is_available():
        raise ConfigError("train.precision is fp16, which needs a GPU; leave it at auto, or set bf16 or no")
    if asked != "auto":
        return asked
    if not torch.cuda.is_available():
        return "no"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def faster_channels_last(model: Model, slices: int = 16, rounds: int = 3) -> bool:
    """Whether the backbone's training step is faster with channels last on this device; measured, in its precision.

    It doubles the speed of some backbones and hurts some grouped convolutions. With little memory it is measured on
    fewer slices; if not even one fits without recomputation, the answer is no.
    """
    try:
        seconds = [_step_seconds(model, slices, rounds, on) for on in (False, True)]
        return seconds[1] < seconds[0]
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
    finally:
        model.backbone.zero_grad(set_to_none=True)
        model.train(model.training)
        release_memory(model.device)
    return slices > 1 and faster_channels_last(model, slices // 2, rounds)


def _step_seconds(model: Model, slices: int, rounds: int, channels_last: bool) -> float:
    """Seconds of some forward and backward passes, after as many that warm up."""
    side, channels = model.config.image_size, model.input_channels
    model.use_channels_last(channels_last)
    kind = torch.channels_last if channels_last else torch.contiguous_format
    images = torch.zeros(slices, channels, side, side, device=model.device).contiguous(memory_format=kind)
    model.backbone.eval()  # leaves the running statistics alone
    started = 0.0
    for _ in range(2):
        _wait(model.device)
        started = time.perf_counter()
        for _ in range(rounds):
            model.backbone(images).sum().backward()
        _wait(model.device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
