"""What reads a stage's batches from a prepared set: slices with boxes and what augmentation draws, or embeddings."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from ichseq.config import AugmentConfig
from ichseq.data.augment import Drawn, appearances, warps
from ichseq.data.batches import (
    Allocate,
    Batch,
    EmbeddingBatch,
    Item,
    SliceBatch,
    item_lengths,
    read_batch,
    read_embeddings,
)
from ichseq.data.feed import feed
from ichseq.data.index import Index
from ichseq.model import Model
from ichseq.model.centre import centre_box
from ichseq.training.stopping import StopRequest

B = TypeVar("B", bound=Batch)

Read = Callable[[list[Item], Allocate], B]
"""Gives the batch of some items, on the CPU; may be called from any thread."""


class Reader(ABC, Generic[B]):
    """Reads the batches of training and of validation, as `ichseq.data.feed.feed` takes them."""

    @abstractmethod
    def training(self, epoch: int) -> Read[B]:
        """For the batches of an epoch of training."""

    @abstractmethod
    def validation(self) -> Read[B]:
        """For batches of whole series, without augmentation."""


@dataclass(frozen=True)
class SliceReader(Reader[SliceBatch]):
    """Reads slices from the store.

    Attributes:
        index: the prepared set.
        boxes: (n_series, 4), where batches hold parts of series; None: the model finds them.
        crop: the model's `crop_boxes`, for parts that are read as scans of their own.
        neighbours: slices on each side that the model's backbone reads with a slice.
        augment: None: no augmentation.
        seed: of what augmentation draws.
    """

    index: Index
    boxes: Tensor | None = None
    crop: Callable[[Tensor, Tensor], Tensor] | None = None
    neighbours: int = 0
    augment: AugmentConfig | None = None
    seed: int = 0

    def training(self, epoch: int) -> Read[SliceBatch]:
        """Slices with crop boxes, and the warps and appearances of this epoch."""
        return partial(self._read, epoch)

    def validation(self) -> Read[SliceBatch]:
        """Whole series, in which the model finds its crop boxes."""
        return partial(read_batch, self.index)

    def _read(self, epoch: int, items: list[Item], allocate: Allocate) -> SliceBatch:
        batch = read_batch(self.index, items, allocate, neighbours=self.neighbours)
        boxes = self._boxes(items, batch)
        if self.augment is None:
            return replace(batch, boxes=boxes)
        drawn = self._drawn(epoch, items, each_slice=self.augment.per == "slice")
        warp = warps(self.augment, [one.key for one in drawn])
        return replace(batch, boxes=boxes, warp=warp, appearance=appearances(self.augment, drawn))

    def _boxes(self, items: list[Item], batch: SliceBatch) -> Tensor | None:
        if self.boxes is None:
            return None
        boxes = self.boxes[[item.series for item in items]]
        for k, (item, own) in enumerate(zip(items, batch.hu.split(batch.lengths.tolist()), strict=True)):
            if item.alone and self.crop is not None:
                rows, columns = batch.sizes[k]
                boxes[k] = self.crop(own[..., :rows, :columns], batch.lengths[k : k + 1])[0]
        return boxes

    def _drawn(self, epoch: int, items: list[Item], *, each_slice: bool) -> list[Drawn]:
        """What is drawn for the items: once for each, or once for each slice."""
        drawn: list[Drawn] = []
        for item, count in zip(items, item_lengths(self.index, items), strict=True):
            whole = int(self.index.lengths[item.series])
            first = Drawn((self.seed, epoch, item.series), item.first, whole, alone=each_slice or item.slices == 1)
            drawn += [first._replace(place=item.first + k) for k in range(count if each_slice else 1)]
        return drawn


@dataclass(frozen=True)
class EmbeddingReader(Reader[EmbeddingBatch]):
    """Reads embeddings that were computed once, which see no augmentation.

    Attributes:
        index: the prepared set.
        embeddings: (n_slices, D).
    """

    index: Index
    embeddings: np.ndarray

    def training(self, epoch: int) -> Read[EmbeddingBatch]:
        """The same in every epoch."""
        return self._read

    def validation(self) -> Read[EmbeddingBatch]:
        """The same as in training."""
        return self._read

    def _read(self, items: list[Item], _allocate: Allocate) -> EmbeddingBatch:
        return read_embeddings(self.index, items, self.embeddings)


@torch.no_grad()
def series_boxes(model: Model, index: Index, series: np.ndarray, threads: int, request: StopRequest) -> Tensor | None:
    """(n_series, 4): crop boxes of whole series, for batches that hold parts of them; NaN for series not asked for.

    None where the model crops each slice by itself.

    Raises:
        InterruptedError: stopped, as asked for.
    """
    if model.config.crop == "slice":
        return None
    boxes = torch.full((index.n_series, 4), float("nan"))
    if model.config.crop == "centre":
        side = model.config.image_size
        return torch.stack([centre_box(int(rows), int(columns), side) for rows, columns in index.shapes])
    if model.config.crop == "none":
        sides = torch.from_numpy(index.shapes[:, [1, 0]].astype(np.float32)) / 2
        return torch.cat([sides, sides], dim=1)
    tasks = [[Item(int(i))] for i in series]
    for batch in feed(tasks, partial(read_batch, index), threads=threads):
        boxes[batch.items[0].series] = model.crop_boxes(batch.hu, batch.lengths)[0]
        if request.code:
            raise InterruptedError
    return boxes
