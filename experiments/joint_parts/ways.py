"""Ways of joint training that the library did not have: a temporal shift, and a gradient through a part of the slices.

They are put in from outside, so that what does not gain leaves no setting behind. `part_remembered` has since become
`train.gradient_share`, where the embeddings are float16.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from timm.models._efficientnet_blocks import DepthwiseSeparableConv, EdgeResidual, InvertedResidual
from timm.models.convnext import ConvNeXtBlock
from torch import Tensor, nn

from ichseq.config import Config
from ichseq.data.batches import Item, SliceBatch, item_rows
from ichseq.data.feed import feed
from ichseq.data.index import Index
from ichseq.model import Model
from ichseq.model.cross_slice import CrossSlice
from ichseq.training.losses import weighted_bce_sum
from ichseq.training.stages.joint import JointStage
from ichseq.training.stages.readers import Reader
from ichseq.training.stages.stage import Loss

BLOCKS = (InvertedResidual, DepthwiseSeparableConv, EdgeResidual, ConvNeXtBlock)
WHOLE_BATCH = 4096
"""Slices in a chunk: with a shift in every block the backbone has to see whole series."""


class _Shifted(torch.autograd.Function):
    """maps (n, C, H, W) with some channels of the slice before and as many of the next; keeps the memory's layout."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, moved: int, first: Tensor, last: Tensor) -> Tensor:
        ctx.places = moved, first, last
        before, after = slice(0, moved), slice(moved, 2 * moved)
        shifted = maps.clone()
        shifted[1:, before], shifted[:-1, after] = maps[:-1, before], maps[1:, after]
        shifted[first, before], shifted[last, after] = 0, 0
        return shifted

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor, None, None, None]:
        moved, first, last = ctx.places
        before, after = slice(0, moved), slice(moved, 2 * moved)
        (above,) = given
        kept = above.clone()
        kept[first, before], kept[last, after] = 0, 0
        below = above.clone()
        below[:-1, before], below[1:, after] = kept[1:, before], kept[:-1, after]
        below[-1, before], below[0, after] = 0, 0
        return below, None, None, None


class TemporalShift(CrossSlice):
    """Before a block's first convolution a share of the channels comes from the slice before, and one from the next.

    Lin et al., "Temporal shift module" (2019): no weights, and the shortcut keeps the slice's own channels. Beyond the
    ends of a series are zeros. It reads whole series only.
    """

    def __init__(self, share: float) -> None:
        super().__init__([])
        self.share = share
        self._inner: Any = None  # the first and the last slice of each series

    def before_convolution(self, module: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
        """A forward pre-hook: maps (n, C, H, W) of stacked series."""
        (maps,) = given
        moved = int(self.share * maps.shape[1])
        return given if self._inner is None or not moved else (_Shifted.apply(maps, moved, *self._inner),)

    @contextmanager
    def series(self, counts: Sequence[int]) -> Iterator[None]:
        """Within it the backbone reads stacked series with so many slices each."""
        stops = torch.tensor(counts).cumsum(0)
        self._inner = stops - torch.tensor(counts), stops - 1
        try:
            yield
        finally:
            self._inner = None


def add_shift(model: Model, share: float) -> None:
    """Shift before the first convolution of each block of a model's backbone."""
    shift = TemporalShift(share)
    model.backbone.cross_slice = shift
    model.chunk_size = WHOLE_BATCH
    for block in model.backbone.modules():
        if isinstance(block, BLOCKS):
            first = next(module for module in block.modules() if isinstance(module, nn.Conv2d))
            first.register_forward_pre_hook(shift.before_convolution)


class PartJoint(JointStage):
    """The joint stage with a gradient through a run of neighbouring slices of each series; the others' embeddings
    enter the sequence part without.

    Attributes:
        share: of a series' slices that have a gradient.
        others: where the embeddings of the rest come from.
        passed: slices that went through the backbone without a gradient.
    """

    def __init__(self, config: Config, share: float, others: Literal["fresh", "reset", "remembered"]) -> None:
        super().__init__(config)
        self.share, self.others, self.passed = share, others, 0
        self._index: Index | None = None
        self._kept = torch.zeros(0, 0)  # (n_slices, D)

    @torch.no_grad()
    def remember(self, model: Model, index: Index, series: np.ndarray, reader: Reader[SliceBatch]) -> None:
        """Embed all slices as they are, unless others are fresh."""
        if self.others == "fresh":
            return
        self._index = index
        self._kept = torch.zeros(index.n_slices, model.features)
        size = self.config.train.patients_per_batch
        items = [Item(int(i)) for i in series]
        model.eval()
        for batch in feed([items[k : k + size] for k in range(0, len(items), size)], reader.validation(), threads=0):
            self._kept[item_rows(index, batch.items)] = model.embed(batch.hu, batch.lengths, **batch.seen_as)
            self.passed += len(batch.labels)
        model.train()

    def loss(self, model: Model, batch: SliceBatch, *, backbone_frozen: bool = False) -> Loss:
        """As of the joint stage; the slice head's loss is over the slices with a gradient."""
        lengths = batch.lengths.tolist()
        runs = [max(1, round(self.share * n)) for n in lengths]
        starts = [int(torch.randint(n - run + 1, ())) for n, run in zip(lengths, runs, strict=True)]
        chosen = torch.cat([(torch.arange(n) >= first) & (torch.arange(n) < first + run)
                            for n, run, first in zip(lengths, runs, starts, strict=True)])  # fmt: skip
        boxes = model.crop_boxes(batch.hu, batch.lengths, sizes=batch.sizes)
        trained = self._embedded(model, batch, chosen, boxes)
        embeddings = self._of_others(model, batch, chosen, boxes)
        embeddings[chosen] = trained
        if self.others == "remembered" and self._index is not None:
            self._kept[item_rows(self._index, batch.items)[chosen.numpy()]] = trained.detach()
        output = model.answer(embeddings, batch.lengths, batch.positions_mm)
        own = weighted_bce_sum(output.logits, batch.labels)
        deep = weighted_bce_sum(output.slice_logits[chosen], batch.labels[chosen]) * (len(chosen) / chosen.sum())
        return Loss(own + self.config.train.aux_weight * deep, own.detach())

    def _embedded(self, model: Model, batch: SliceBatch, rows: Tensor, boxes: Tensor) -> Tensor:
        """Embeddings of some slices of each series, with the series' crop boxes and warps."""
        counts = torch.tensor([int(part.sum()) for part in rows.split(batch.lengths.tolist())])
        some = counts > 0
        part = replace(batch, boxes=boxes[some], warp=None if batch.warp is None else batch.warp[some],
                       sizes=[size for size, there in zip(batch.sizes, some, strict=True) if there])  # fmt: skip
        return model.embed(batch.hu[rows], counts[some], **part.seen_as)

    def _of_others(self, model: Model, batch: SliceBatch, chosen: Tensor, boxes: Tensor) -> Tensor:
        """(S, D), without gradient: of the slices that are not chosen."""
        if self._index is not None:
            return self._kept[item_rows(self._index, batch.items)]
        embeddings = torch.zeros(len(chosen), model.features)
        if not chosen.all():
            with torch.no_grad():
                embeddings[~chosen] = self._embedded(model, batch, ~chosen, boxes)
            self.passed += int((~chosen).sum())
        return embeddings
