"""How the backbone's part of a step is laid out in memory: what fits, and what is fast on the device."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import torch

from ichseq.config import Config
from ichseq.devices import USABLE, free_bytes, out_of_memory, release_memory
from ichseq.model import Model
from ichseq.model.chunks import DEFAULT_CHUNK
from ichseq.training.stages.stage import BatchSize

LIVE_CHUNK: Final = DEFAULT_CHUNK
"""Slices at once where batch norm is live: the chunk is part of the computation then, so the memory has no say."""

_LARGEST_CHUNK: Final = {"cuda": 64, "cpu": DEFAULT_CHUNK}  # a CPU's cache likes small chunks


@dataclass(frozen=True)
class MemoryPlan:
    """What was chosen; results differ by rounding between plans, where batch norm is frozen.

    Attributes:
        channels_last: memory format of the backbone.
        recompute: compute the backbone again in the backward pass, instead of keeping what it computed.
        chunk_size: slices that the backbone reads at once.
    """

    channels_last: bool
    recompute: bool
    chunk_size: int

    @classmethod
    def of(cls, model: Model) -> "MemoryPlan":
        """The plan that a model follows now."""
        return cls(bool(model.config.channels_last), model.checkpointing == "on", model.chunk_size)

    def apply(self, models: Iterable[Model]) -> None:
        """Make models follow the plan."""
        for model in models:
            model.use_channels_last(self.channels_last)
            model.checkpointing, model.chunk_size = "on" if self.recompute else "off", self.chunk_size


def plan_memory(model: Model, config: Config, largest: BatchSize, *, ahead: int = 0) -> tuple[MemoryPlan, str]:
    """Choose the plan for the largest batch of a run; what the settings state is kept to.

    Counts what a step adds to the memory that is taken now: gradients and the optimizer's two moments, the batches on
    the device, and what the backbone keeps for the backward pass, measured on one slice. To be called in the precision
    in which the backbone will run.

    Args:
        model: on the device where it trains, its parameters chosen.
        config: settings; `channels_last`, `checkpointing` and `chunk_size` are decided here if they are "auto".
        largest: what the largest batch holds.
        ahead: batches that lie on a GPU at one time.

    Returns:
        The plan, and a line that says why.
    """
    train, device = config.train, model.device
    trains_backbone = any(p.requires_grad for p in model.backbone.parameters())
    channels_last = config.model.channels_last is True
    if config.model.channels_last == "auto":
        channels_last = device.type == "cuda" and trains_backbone and faster_channels_last(model)
    if not trains_backbone:
        size = LIVE_CHUNK if train.chunk_size == "auto" else train.chunk_size
        return MemoryPlan(channels_last, False, size), "the backbone is not trained"
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    waiting = ahead * largest.slices * largest.slice_bytes if device.type == "cuda" else 0
    free = free_bytes(device) * USABLE - 3 * trained - waiting
    side, channels = model.config.image_size, model.input_channels
    one = model.activation_bytes() + 2 * 4 * channels * side**2  # what it keeps of a slice, and the slice itself
    recompute = train.checkpointing == "on" or (train.checkpointing == "auto" and largest.slices * one > free)
    chunk = train.chunk_size
    if chunk == "auto":
        chunk = LIVE_CHUNK if model.live_batch_norms() else _LARGEST_CHUNK.get(device.type, LIVE_CHUNK)
        while recompute and not model.live_batch_norms() and chunk > 1 and chunk * one > free:
            chunk //= 2
    how = "recomputed in the backward pass" if recompute else "kept"
    reason = (
        f"memory: {max(free, 0) / 1e9:.1f} GB for activations, the largest batch has {largest.slices * one / 1e9:.1f} "
        f"GB: they are {how}, {chunk} slices at a time"
    )
    return MemoryPlan(channels_last, recompute, chunk), reason


def plan_with_less(model: Model) -> tuple[MemoryPlan, str] | None:
    """A plan that takes less memory than the model's own and leads to the same result, and a line about it.

    None where there is none: with live batch norm, smaller chunks are another computation.
    """
    now = MemoryPlan.of(model)
    if not now.recompute and any(p.requires_grad for p in model.backbone.parameters()):
        words = "the backbone is recomputed in the backward pass from here on"
        return MemoryPlan(now.channels_last, True, now.chunk_size), words
    if now.chunk_size > 1 and not model.live_batch_norms():
        half = now.chunk_size // 2
        words = f"chunks of {half} slices instead of {now.chunk_size} from here on"
        return MemoryPlan(now.channels_last, now.recompute, half), words
    return None


def faster_channels_last(model: Model, slices: int = 16, rounds: int = 3) -> bool:
    """Whether the backbone's training step is faster with channels last on this device; measured, in its precision.

    It doubles the speed of some backbones and hurts some grouped convolutions. With little memory it is measured on
    fewer slices; if not even one fits without recomputation, the answer is no. Weights, running statistics and modes
    stay as they were, and no gradient is left; the memory format is the one that was tried last.
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
