"""Batches: series, or neighbouring slices of them, with their slices stacked in order and the truth about them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from ichseq.appearance import Appearance
from ichseq.data.index import Index
from ichseq.data.store import read_slices
from ichseq.geometry import NO_SLICE_HU, rows_around
from ichseq.labels import LABELS
from ichseq.windows import AIR_HU


class Item(NamedTuple):
    """A series, by its number, or neighbouring slices of one; `alone`: as if these were the whole scan."""

    series: int
    first: int = 0
    slices: int = -1  # all
    alone: bool = False

    @property
    def whole(self) -> bool:
        """Whether it is a whole series."""
        return self.slices < 0


Allocate = Callable[[tuple[int, ...]], np.ndarray]
"""Gives an int16 array of a shape, its content undefined."""


@dataclass(frozen=True)
class Batch:
    """What every batch holds: which slices it stands for, stacked in order, and the truth about them.

    Attributes:
        items: the series (or slices of one) that each length stands for.
        lengths: int64 (P,), slices of each item; they add up to S.
        labels: float32 (S, 6), NaN where unknown.
        exam_labels: float32 (P, 6) of the items' exams, NaN where unknown.
        positions_mm: float32 (S,), places along the scan's axis, NaN where unknown; None: not whole series.
        start: float32 (S, 6), what the weights that training started from answer; None: not asked for.
    """

    items: list[Item]
    lengths: Tensor
    labels: Tensor
    exam_labels: Tensor
    positions_mm: Tensor | None
    start: Tensor | None = field(default=None, kw_only=True)

    def device_tensors(self) -> list[Tensor]:
        """What is read on the device: every tensor but the lengths."""
        return [one.values if isinstance(one, Appearance) else one for one in self._on_device().values()]

    def to(self, device: torch.device) -> Self:
        """The batch with `device_tensors` on a device; lengths stay on the CPU. Does not wait for the copy."""
        moved: dict[str, Any] = {n: one.to(device, non_blocking=True) for n, one in self._on_device().items()}
        return replace(self, **moved)

    def _on_device(self) -> dict[str, Tensor | Appearance]:
        """The fields that hold `device_tensors`."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "lengths"}
        return {name: value for name, value in values.items() if isinstance(value, Tensor | Appearance)}


@dataclass(frozen=True)
class SliceBatch(Batch):
    """Slices as the store holds them.

    Attributes:
        hu: int16 (S, H, W) in HU, smaller series padded with air at the bottom and right; (S, 2n + 1, H, W), each
            slice between its neighbours, where these were asked for and an item is not a whole series.
        sizes: true (rows, columns) of each item.
        boxes: float32 (P, 4), crop boxes where the items are not whole series; None: the model finds them.
        warp: float32 (P, 3, 3), augmentation; None: none.
        appearance: of each item, augmentation; None: as it is.
    """

    hu: Tensor
    sizes: list[tuple[int, int]]
    boxes: Tensor | None = None
    warp: Tensor | None = None
    appearance: Appearance | None = None

    @property
    def seen_as(self) -> dict[str, Any]:
        """What `Model.embed` and `Model.images` take beside slices and lengths, by the names of their arguments."""
        return {"warp": self.warp, "sizes": self.sizes, "boxes": self.boxes, "appearance": self.appearance}


@dataclass(frozen=True)
class EmbeddingBatch(Batch):
    """Slices as a backbone has embedded them.

    Attributes:
        embeddings: float32 (S, D).
    """

    embeddings: Tensor


def item_labels(index: Index, items: Sequence[Item]) -> np.ndarray:
    """float32 (S, 6): labels of the items' slices, stacked."""
    return index.labels[item_rows(index, items)]


def item_exam_labels(index: Index, items: Sequence[Item]) -> np.ndarray:
    """float32 (P, 6): labels of the items' exams; of a part of a series, those that are 0, since it may not show what
    the others stand for.
    """
    labels = index.exam_labels[[item.series for item in items]].reshape(-1, len(LABELS))
    whole = np.array(item_lengths(index, items)) == index.lengths[[item.series for item in items]]
    return np.where(whole[:, None] | (labels == 0), labels, np.nan).astype(np.float32)


def item_positions(index: Index, items: Sequence[Item]) -> Tensor | None:
    """float32 (S,): places of the items' slices in mm; None where an item is a single slice out of a scan."""
    if any(item.slices == 1 and not item.alone and index.lengths[item.series] > 1 for item in items):
        return None
    return torch.from_numpy(index.positions_mm[item_rows(index, items)].astype(np.float32))


def item_rows(index: Index, items: Sequence[Item]) -> np.ndarray:
    """Rows of the items' slices in the tables of the index."""
    rows = [np.arange(count) + index.offsets[item.series] + item.first for item, count in
            zip(items, item_lengths(index, items), strict=True)]  # fmt: skip
    return np.concatenate(rows) if rows else np.zeros(0, np.int64)


def item_lengths(index: Index, items: Sequence[Item]) -> list[int]:
    """Slices of each item."""
    return [int(index.lengths[item.series]) if item.whole else item.slices for item in items]


def new_array(shape: tuple[int, ...]) -> np.ndarray:
    """An int16 array of its own."""
    return np.empty(shape, np.int16)


def read_batch(
    index: Index, items: Sequence[Item], allocate: Allocate = new_array, *, neighbours: int = 0
) -> SliceBatch:
    """Decode the items' slices from the store into one stack.

    Args:
        index: the prepared set.
        items: which series, or slices of them.
        allocate: gives the array that is decoded into.
        neighbours: slices on each side that come with every slice, if some item is not a whole series; in whole ones
            they are there already.

    Raises:
        DataError: a store file is missing, damaged or not the one that the index means.
    """
    lengths = item_lengths(index, items)
    sizes = [(int(index.shapes[item.series, 0]), int(index.shapes[item.series, 1])) for item in items]
    image = (max((h for h, _ in sizes), default=0), max((w for _, w in sizes), default=0))
    same = all(size == image for size in sizes)
    between = neighbours > 0 and not all(item.whole for item in items)
    hu = allocate((sum(lengths), *([2 * neighbours + 1] if between else []), *image))
    if not same:
        hu.fill(AIR_HU)
    row = 0
    for (i, start, _, alone), n, (h, w) in zip(items, lengths, sizes, strict=True):
        path, whole = index.store_path(i), index.expected(i)
        if between:
            first, last = (start, start + n) if alone else (0, whole.shape[0])
            low, high = max(start - neighbours, first), min(start + n + neighbours, last)
            rows, there = (one.numpy() for one in rows_around(start, start + n, first, last, neighbours))
            seen = read_slices(path, low, high, expected=whole)[rows - low]
            seen[~there] = NO_SLICE_HU
            hu[row : row + n, :, :h, :w] = seen
        elif same:
            read_slices(path, start, start + n, out=hu[row : row + n], expected=whole)
        else:
            hu[row : row + n, :h, :w] = read_slices(path, start, start + n, expected=whole)
        row += n
    return SliceBatch(**_known(index, items), hu=torch.from_numpy(hu), sizes=sizes)


def read_embeddings(index: Index, items: Sequence[Item], embeddings: np.ndarray) -> EmbeddingBatch:
    """The items' rows of the embeddings (n_slices, D) of a whole set, stacked.

    Args:
        index: the prepared set.
        items: which series, or slices of them.
        embeddings: of every slice of the set, float32 or float16; may be a map of a file.
    """
    rows = np.asarray(embeddings[item_rows(index, items)], np.float32)
    return EmbeddingBatch(**_known(index, items), embeddings=torch.from_numpy(rows))


def _known(index: Index, items: Sequence[Item]) -> dict[str, Any]:
    """What the tables say of the items: the fields of `Batch`."""
    return {
        "items": list(items),
        "lengths": torch.tensor(item_lengths(index, items), dtype=torch.int64),
        "labels": torch.from_numpy(item_labels(index, items)),
        "exam_labels": torch.from_numpy(item_exam_labels(index, items)),
        "positions_mm": item_positions(index, items),
    }
