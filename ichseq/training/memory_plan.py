"""Fitting a step into the memory: whether the backbone is recomputed, and how many slices it reads at once."""

from dataclasses import dataclass
from typing import Final

import torch

from ichseq.config import TrainConfig
from ichseq.devices import USABLE, free_bytes
from ichseq.model import Model

LIVE_CHUNK: Final = 32
"""Slices at once where batch norm is live: the chunk is part of the computation then, so the memory has no say."""

_LARGEST_CHUNK: Final = {"cuda": 64, "cpu": 32}  # a CPU's cache likes small chunks


@dataclass(frozen=True)
class Fit:
    """What was chosen, and a line that says why."""

    recompute: bool
    chunk_size: int
    reason: str


def fit_step(model: Model, train: TrainConfig, *, slices: int, pixels: int, device: torch.device) -> Fit:
    """Choose recomputation and chunk for the largest batch of a run; what the settings state is kept to.

    Counts what a step adds to the memory that is taken now: gradients and the optimizer's two moments, the batches on
    the device, and what the backbone keeps for the backward pass, measured on one slice. To be called in the precision
    in which the backbone will run.

    Args:
        model: on the device.
        train: settings; `checkpointing` and `chunk_size` are decided here if they are "auto".
        slices: most slices of a batch.
        pixels: most pixels that come with a slice, as the store has them.
        device: where it trains.
    """
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    ahead = train.workers + 2 if device.type == "cuda" else 0
    free = free_bytes(device) * USABLE - 3 * trained - ahead * slices * pixels * 2
    if not any(p.requires_grad for p in model.backbone.parameters()):
        return Fit(False, LIVE_CHUNK if train.chunk_size == "auto" else train.chunk_size, "the backbone is not trained")
    side, channels = model.config.image_size, model.input_channels
    one = model.activation_bytes() + 2 * 4 * channels * side**2  # what it keeps of a slice, and the slice itself
    recompute = train.checkpointing == "on" or (train.checkpointing == "auto" and slices * one > free)
    chunk = train.chunk_size
    if chunk == "auto":
        chunk = LIVE_CHUNK if model.live_batch_norms() else _LARGEST_CHUNK.get(device.type, LIVE_CHUNK)
        while recompute and not model.live_batch_norms() and chunk > 1 and chunk * one > free:
            chunk //= 2
    how = "recomputed in the backward pass" if recompute else "kept"
    reason = (
        f"memory: {max(free, 0) / 1e9:.1f} GB for activations, the largest batch has {slices * one / 1e9:.1f} GB: they "
        f"are {how}, {chunk} slices at a time"
    )
    return Fit(recompute, chunk, reason)
