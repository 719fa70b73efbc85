"""Batch norm's running statistics: which move in training, kept and put back, still while a chunk is recomputed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """All batch norms within a module."""
    return [part for part in module.modules() if isinstance(part, _BatchNorm)]


def copied_statistics(norms: Sequence[_BatchNorm]) -> list[Tensor]:
    """A copy of what training moves in them."""
    return [buffer.clone() for norm in norms for buffer in norm.buffers()]


def put_back(norms: Sequence[_BatchNorm], kept: Sequence[Tensor]) -> None:
    """Take back what they have seen since `copied_statistics`."""
    buffers = [buffer for norm in norms for buffer in norm.buffers()]
    for buffer, before in zip(buffers, kept, strict=True):
        buffer.copy_(before)


@contextmanager
def still_statistics(module: nn.Module) -> Iterator[None]:
    """Within it, batch norms in training mode normalise as ever but move no running statistic."""
    norms: list[Any] = [norm for norm in batch_norms(module) if norm.training and norm.track_running_stats]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        norm.num_batches_tracked = norm.num_batches_tracked.clone()
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
