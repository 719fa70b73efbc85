"""Slices through the backbone in chunks, so that memory follows the chunk and not the number of slices.

In training a chunk may be recomputed in the backward pass. Gradients and running statistics are the same with and
without recomputation.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, Literal, TypeVar

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

T = TypeVar("T")


class Chunks:
    """Sends the slices of a stack through a backbone.

    Attributes:
        backbone: images (n, C, size, size) to embeddings (n, D).
        cross_slice: the backbone's convolutions across slices, if it has any.
        size: slices that the backbone reads at once. With live batch norm, part of the computation.
        checkpointing: "on" recomputes the backbone in the backward pass, "auto" when a step would not fit the memory.
        slices_read: how many slices the backbone has read so far.
    """

    def __init__(self, backbone: nn.Module, cross_slice: CrossSlice | None, image_shape: tuple[int, int, int]) -> None:
        """Take a backbone; `image_shape` is (C, size, size), what it reads of a slice."""
        self.backbone, self.cross_slice = backbone, cross_slice
        self.size = 32
        self.checkpointing: Checkpointing = "auto"
        self.slices_read = 0
        self._image_shape = image_shape
        self._bytes_a_slice: int | None = None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.backbone.parameters()).device

    @property
    def reach(self) -> int:
        """How many slices to each side the backbone reads for an embedding, beside the slice's own channels."""
        return 0 if self.cross_slice is None else self.cross_slice.reach

    def embed(self, spans: list[Span], read: Read) -> Tensor:
        """Embeddings (S, D) of a whole stack, in its order."""
        recompute = self._recomputes(spans[-1].stop)
        parts = []
        for chunk in in_chunks(spans, self.size):
            seen = with_neighbours(chunk, spans, self.reach)
            self.slices_read += sum(span.slices for span in seen)
            if not torch.is_grad_enabled():
                parts += self._embed_halving(read, chunk, spans)
            elif recompute:
                context: Callable[[], Any] = lambda: (nullcontext(), still_statistics(self.backbone))  # noqa: E731
                parts.append(checkpoint(self._embed_chunk, read, chunk, spans, use_reentrant=False,
                                        context_fn=context))  # fmt: skip
            else:
                parts.append(self._embed_chunk(read, chunk, spans))
        return torch.cat(parts)

    def _embed_halving(self, read: Read, chunk: list[Span], spans: list[Span]) -> list[Tensor]:
        """Embeddings of a chunk, without gradient; in halves if the memory does not do, which changes no result."""
        try:
            return [self._embed_chunk(read, chunk, spans)]
        except (RuntimeError, MemoryError) as error:
            first, stop = chunk[0].first, chunk[-1].stop
            if not out_of_memory(error) or stop - first == 1:
                raise
        middle = (first + stop) // 2
        self.size = min(self.size, max(middle - first, stop - middle))
        release_memory(self.device)
        halves = (within(chunk, first, middle), within(chunk, middle, stop))
        return [part for half in halves for part in self._embed_halving(read, half, spans)]

    def _embed_chunk(self, read: Read, chunk: list[Span], spans: list[Span]) -> Tensor:
        """Embeddings of the slices of a chunk; with convolutions across slices, their neighbours are read too."""
        seen = with_neighbours(chunk, spans, self.reach)
        with torch.autocast(self.device.type, enabled=False), torch.no_grad():
            images = read(seen)
        with self._as_series(slices_of_series(seen)):
            embeddings = self.backbone(images).float()
        skipped = chunk[0].first - seen[0].first
        return embeddings[skipped : skipped + chunk[-1].stop - chunk[0].first]

    def _as_series(self, counts: Sequence[int]) -> AbstractContextManager[object]:
        """Within it, convolutions across slices take what the backbone reads for series with so many slices each."""
        return nullcontext() if self.cross_slice is None else self.cross_slice.series(counts)

    def _recomputes(self, slices: int) -> bool:
        trains = torch.is_grad_enabled() and any(p.requires_grad for p in self.backbone.parameters())
        if not trains or self.checkpointing == "off":
            return False
        if self.checkpointing == "on":
            return True
        return slices * self.activation_bytes() > USABLE * free_bytes(self.device)

    def activation_bytes(self) -> int:
        """Bytes that the backbone keeps for the backward pass of one slice, measured once.

        As the difference of two slices and one: what does not grow with them, such as weights in another precision,
        is no slice's.
        """
        if self._bytes_a_slice is None:
            self._bytes_a_slice = self._kept_bytes(2) - self._kept_bytes(1)
        return self._bytes_a_slice

    def _kept_bytes(self, slices: int) -> int:
        """Bytes, but for the weights themselves, that the backbone keeps for the backward pass of so many slices."""
        seen: dict[int, tuple[int, Tensor]] = {}

        def note(tensor: Tensor) -> Tensor:
            if not isinstance(tensor, nn.Parameter):  # kept alive, since a freed place would be another tensor's next
                seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes(), tensor
            return tensor

        modes = [(module, module.training) for module in self.backbone.modules()]
        self.backbone.eval()  # leaves the running statistics alone
        images = torch.zeros(slices, *self._image_shape, device=self.device)
        with (
            torch.random.fork_rng(devices=[]),
            torch.autograd.graph.saved_tensors_hooks(note, lambda t: t),
            self._as_series([slices]),
        ):
            kept = self.backbone(images)
        del kept
        for module, mode in modes:
            module.training = mode
        return sum(size for size, _ in seen.values())


class OfChunks(Generic[T]):
    """An attribute of a model that is one of its `chunks`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, model: Any, owner: Any = None) -> T:
        return getattr(model.chunks, self.name)

    def __set__(self, model: Any, value: T) -> None:
        setattr(model.chunks, self.name, value)
