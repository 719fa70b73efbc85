"""Slices through the backbone in chunks, so that memory follows the chunk and not the number of slices.

In training a chunk may be recomputed in the backward pass. Gradients and running statistics are the same with and
without recomputation.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, Generic, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ichseq.devices import USABLE, free_bytes, out_of_memory, release_memory
from ichseq.model.batch_norm import still_statistics
from ichseq.model.cross_slice import CrossSlice
from ichseq.model.stack import Span, in_chunks, slices_of_series, with_neighbours, within

Read = Callable[[list[Span]], Tensor]
"""What the backbone sees, (n, C, size, size), of the slices of some spans."""

Checkpointing = Literal["auto", "on", "off"]

DEFAULT_CHUNK: Final = 32
"""Slices at once, unless something else is chosen."""

T = TypeVar("T")


class Chunks:
    """How the slices of a stack are sent through a backbone, which each call is given.

    Attributes:
        size: slices that the backbone reads at once. With live batch norm, part of the computation.
        checkpointing: "on" recomputes the backbone in the backward pass, "auto" when a step would not fit the memory.
        slices_read: how many slices the backbone has read so far.
    """

    def __init__(self, image_shape: tuple[int, int, int]) -> None:
        """For a backbone that reads (C, size, size) of a slice."""
        self.size = DEFAULT_CHUNK
        self.checkpointing: Checkpointing = "auto"
        self.slices_read = 0
        self._image_shape = image_shape
        self._bytes_a_slice: int | None = None

    def embed(self, backbone: nn.Module, spans: list[Span], read: Read) -> Tensor:
        """Embeddings (S, D) of a whole stack, in its order.

        Args:
            backbone: images (n, C, size, size) to embeddings (n, D).
            spans: of the whole stack.
            read: gives the images.
        """
        recompute = self._recomputes(backbone, spans[-1].stop)
        parts = []
        for chunk in in_chunks(spans, self.size):
            seen = with_neighbours(chunk, spans, reach(backbone))
            self.slices_read += sum(span.slices for span in seen)
            if not torch.is_grad_enabled():
                parts += self._embed_halving(backbone, read, chunk, spans)
            elif recompute:
                context: Callable[[], Any] = lambda: (nullcontext(), still_statistics(backbone))  # noqa: E731
                parts.append(checkpoint(_embed_chunk, backbone, read, chunk, spans, use_reentrant=False,
                                        context_fn=context))  # fmt: skip
            else:
                parts.append(_embed_chunk(backbone, read, chunk, spans))
        return torch.cat(parts)

    def _embed_halving(self, backbone: nn.Module, read: Read, chunk: list[Span], spans: list[Span]) -> list[Tensor]:
        """Embeddings of a chunk, without gradient; in halves if the memory does not do, which changes no result."""
        try:
            return [_embed_chunk(backbone, read, chunk, spans)]
        except (RuntimeError, MemoryError) as error:
            first, stop = chunk[0].first, chunk[-1].stop
            if not out_of_memory(error) or stop - first == 1:
                raise
        middle = (first + stop) // 2
        self.size = min(self.size, max(middle - first, stop - middle))
        release_memory(device_of(backbone))
        halves = (within(chunk, first, middle), within(chunk, middle, stop))
        return [part for half in halves for part in self._embed_halving(backbone, read, half, spans)]

    def _recomputes(self, backbone: nn.Module, slices: int) -> bool:
        trains = torch.is_grad_enabled() and any(p.requires_grad for p in backbone.parameters())
        if not trains or self.checkpointing == "off":
            return False
        if self.checkpointing == "on":
            return True
        return slices * self.activation_bytes(backbone) > USABLE * free_bytes(device_of(backbone))

    def activation_bytes(self, backbone: nn.Module) -> int:
        """Bytes that a backbone keeps for the backward pass of one slice, measured once.

        As the difference of two slices and one: what does not grow with them, such as weights in another precision,
        is no slice's.
        """
        if self._bytes_a_slice is None:
            self._bytes_a_slice = self._kept_bytes(backbone, 2) - self._kept_bytes(backbone, 1)
        return self._bytes_a_slice

    def _kept_bytes(self, backbone: nn.Module, slices: int) -> int:
        """Bytes, but for the weights themselves, that the backbone keeps for the backward pass of so many slices."""
        seen: dict[int, tuple[int, Tensor]] = {}

        def note(tensor: Tensor) -> Tensor:
            if not isinstance(tensor, nn.Parameter):  # kept alive, since a freed place would be another tensor's next
                seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes(), tensor
            return tensor

        modes = [(module, module.training) for module in backbone.modules()]
        backbone.eval()  # leaves the running statistics alone
        images = torch.zeros(slices, *self._image_shape, device=device_of(backbone))
        with (
            torch.random.fork_rng(devices=[]),
            torch.autograd.graph.saved_tensors_hooks(note, lambda t: t),
            as_series(backbone, [slices]),
        ):
            kept = backbone(images)
        del kept
        for module, mode in modes:
            module.training = mode
        return sum(size for size, _ in seen.values())


def device_of(backbone: nn.Module) -> torch.device:
    """Where its weights are."""
    return next(backbone.parameters()).device


def reach(backbone: nn.Module) -> int:
    """How many slices to each side a backbone reads for an embedding, beside the slice's own channels."""
    cross_slice = getattr(backbone, "cross_slice", None)
    return cross_slice.reach if isinstance(cross_slice, CrossSlice) else 0


def _embed_chunk(backbone: nn.Module, read: Read, chunk: list[Span], spans: list[Span]) -> Tensor:
    """Embeddings of the slices of a chunk; with convolutions across slices, their neighbours are read too."""
    seen = with_neighbours(chunk, spans, reach(backbone))
    with torch.autocast(device_of(backbone).type, enabled=False), torch.no_grad():
        images = read(seen)
    with as_series(backbone, slices_of_series(seen)):
        embeddings = backbone(images).float()
    skipped = chunk[0].first - seen[0].first
    return embeddings[skipped : skipped + chunk[-1].stop - chunk[0].first]


def as_series(backbone: nn.Module, counts: Sequence[int]) -> AbstractContextManager[object]:
    """Within it, convolutions across slices take what the backbone reads for series with so many slices each."""
    cross_slice = getattr(backbone, "cross_slice", None)
    return cross_slice.series(counts) if isinstance(cross_slice, CrossSlice) else nullcontext()


class OfChunks(Generic[T]):
    """An attribute of a model that is one of its `chunks`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, model: Any, owner: Any = None) -> T:
        return getattr(model.chunks, self.name)

    def __set__(self, model: Any, value: T) -> None:
        setattr(model.chunks, self.name, value)
