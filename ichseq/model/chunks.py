"""A backbone that reads its slices in chunks, so that memory follows the chunk and not the number of slices.

In training a chunk may be recomputed in the backward pass; batch norm may be frozen. Gradients and running statistics
are the same with and without recomputation.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ichseq.devices import USABLE, free_bytes, out_of_memory, release_memory
from ichseq.model.cross_slice import CrossSlice
from ichseq.model.input import Span, chunks, widened, within

Read = Callable[[list[Span]], Tensor]
"""What the backbone sees, (n, C, size, size), of the slices of some spans."""

Whole = tuple[list[Span], list[tuple[int, int]]]
"""The spans of a batch, and the borders of its series."""


class ChunkedBackbone(nn.Module):
    """The part of `ichseq.Model` that sends slices through the backbone.

    Attributes:
        backbone: images (n, C, size, size) to embeddings (n, D).
        settings: of the model.
        checkpointing: "on" recomputes the backbone in the backward pass, "auto" when a step would not fit the memory.
        chunk_size: slices that the backbone reads at once. With live batch norm, part of the computation.
        backbone_slices: how many the backbone has read since the model was made.
    """

    backbone: nn.Module
    settings: dict[str, Any]

    def start_chunks(self, checkpointing: Literal["auto", "on", "off"], chunk_size: int) -> None:
        """To be called once, when the model is made."""
        self.checkpointing, self.chunk_size = checkpointing, chunk_size
        self.backbone_slices = 0  # slices that the backbone has read since the model was made
        self._frozen_backbone = False
        self._bytes_a_slice: int | None = None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.backbone.parameters()).device

    @property
    def input_channels(self) -> int:
        """Channels that the backbone reads: every window of a slice and of its neighbours."""
        return len(self.settings["windows"]) * (1 + 2 * self.settings["neighbours"])

    def embed_chunks(self, series: list[Span], read: Read, borders: Sequence[tuple[int, int]] = ()) -> Tensor:
        """Embeddings in chunks; `read` gives what the backbone sees of some spans.

        `borders`: first slice and last slice + 1 of the whole series of each span, where spans are single slices.
        """
        whole = (series, sorted(set(borders)) or [(first, stop) for _, first, stop, _, _ in series])
        slices = series[-1][2]
        recompute = self._recompute(slices)
        parts = []
        for spans in chunks(series, slices, self.chunk_size):
            self.backbone_slices += sum(stop - first for _, first, stop, _, _ in self._seen_for(spans, whole)[0])
            if not torch.is_grad_enabled():
                parts += self._embed_halving(read, spans, whole)
            elif recompute:
                context: Callable[[], Any] = lambda: (nullcontext(), self._still_statistics())  # noqa: E731
                parts.append(checkpoint(self._embed_chunk, read, spans, whole, use_reentrant=False,
                                        context_fn=context))  # fmt: skip
            else:
                parts.append(self._embed_chunk(read, spans, whole))
        return torch.cat(parts)

    def _embed_halving(self, read: Read, spans: list[Span], whole: Whole) -> list[Tensor]:
        """Embeddings of a chunk, without gradient; in halves if the memory does not do, which changes no result."""
        try:
            return [self._embed_chunk(read, spans, whole)]
        except (RuntimeError, MemoryError) as error:
            first, stop = spans[0][1], spans[-1][2]
            if not out_of_memory(error) or stop - first == 1:
                raise
        middle = (first + stop) // 2
        self.chunk_size = min(self.chunk_size, max(middle - first, stop - middle))
        release_memory(self.device)
        halves = (within(spans, first, middle), within(spans, middle, stop))
        return [part for half in halves for part in self._embed_halving(read, half, whole)]

    def _embed_chunk(self, read: Read, spans: list[Span], whole: Whole) -> Tensor:
        """Embeddings of the slices of some spans; with convolutions across slices, their neighbours are read too."""
        seen, counts = self._seen_for(spans, whole)
        with torch.autocast(self.device.type, enabled=False), torch.no_grad():
            images = read(seen)
        if self.settings["channels_last"]:
            images = images.contiguous(memory_format=torch.channels_last)
        with self._as_series(counts):
            embeddings = self.backbone(images).float()
        skipped = spans[0][1] - seen[0][1]
        return embeddings[skipped : skipped + spans[-1][2] - spans[0][1]]

    def _seen_for(self, spans: list[Span], whole: Whole) -> tuple[list[Span], list[int]]:
        """What the backbone reads for the embeddings of some spans; and how many slices of each series that is."""
        return widened(spans, *whole, self._across.reach) if self._across is not None else (spans, [])

    def _as_series(self, counts: Sequence[int]) -> AbstractContextManager[object]:
        """Within it, convolutions across slices take what the backbone reads for series with so many slices each."""
        return nullcontext() if self._across is None else self._across.series(counts)

    @property
    def _across(self) -> CrossSlice | None:
        return getattr(self.backbone, "cross_slice", None)

    @property
    def reach(self) -> int:
        """On how many slices to each side an embedding depends."""
        return self.settings["neighbours"] + (0 if self._across is None else self._across.reach)

    def use_channels_last(self, on: bool) -> None:
        """Choose the memory format of the backbone; the results differ by rounding alone."""
        self.settings["channels_last"] = on
        self.backbone.to(memory_format=torch.channels_last if on else torch.contiguous_format)

    def freeze_backbone(self, frozen: bool = True) -> None:
        """Fix the backbone: no gradient, and evaluation mode whatever the model's mode."""
        self._frozen_backbone = frozen
        self.backbone.requires_grad_(not frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """As nn.Module.train, but a frozen backbone and frozen batch norm stay in evaluation mode."""
        super().train(mode)
        if self._frozen_backbone:
            self.backbone.eval()
        elif self.settings["freeze_bn"]:
            for module in self._batch_norms():
                module.eval()
        return self

    def live_batch_norms(self) -> list[nn.modules.batchnorm._BatchNorm]:
        """Batch norms of the backbone whose running statistics move in training."""
        if self._frozen_backbone or self.settings["freeze_bn"]:
            return []
        return [module for module in self._batch_norms() if module.track_running_stats]

    def running_statistics(self) -> list[Tensor]:
        """A copy of what training moves in the live batch norms; `restore_statistics` puts it back."""
        return [buffer.clone() for norm in self.live_batch_norms() for buffer in norm.buffers()]

    def restore_statistics(self, kept: Sequence[Tensor]) -> None:
        """Take back what the live batch norms have seen since `running_statistics`."""
        buffers = [buffer for norm in self.live_batch_norms() for buffer in norm.buffers()]
        for buffer, before in zip(buffers, kept, strict=True):
            buffer.copy_(before)

    def _batch_norms(self) -> list[nn.modules.batchnorm._BatchNorm]:
        return [module for module in self.backbone.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]

    @contextmanager
    def _still_statistics(self) -> Iterator[None]:
        """While a chunk is recomputed: batch norm normalises as in the forward pass but moves no running statistic."""
        norms: list[Any] = [m for m in self.live_batch_norms() if m.training]
        kept = [(m.momentum, m.num_batches_tracked) for m in norms]
        for m in norms:
            m.momentum = 0.0
            m.num_batches_tracked = m.num_batches_tracked.clone()
        try:
            yield
        finally:
            for m, (momentum, count) in zip(norms, kept, strict=True):
                m.momentum, m.num_batches_tracked = momentum, count

    def _recompute(self, slices: int) -> bool:
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
            if not isinstance(tensor, nn.Parameter):  # held, since a freed place would be another tensor's next
                seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes(), tensor
            return tensor

        modes = [(module, module.training) for module in self.backbone.modules()]
        self.backbone.eval()  # leaves the running statistics alone
        side = self.settings["image_size"]
        images = torch.zeros(slices, self.input_channels, side, side, device=self.device)
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
