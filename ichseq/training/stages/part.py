"""A gradient through a part of each series: a run of neighbouring slices, while the others' embeddings are remembered.

Features of most of a video kept from earlier steps: Cheng and Bertasius, "TALLFormer: temporal action localization with
a long-memory transformer" (2022). What it gains here: experiments/joint_parts.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ichseq.data.batches import Item, SliceBatch, item_rows
from ichseq.data.index import Index
from ichseq.geometry import NO_SLICE_HU, rows_around
from ichseq.model import Model


class Part(NamedTuple):
    """Slices of a batch of series.

    Attributes:
        rows: int64 (n,), which of the batch's slices, in order; on the CPU.
        lengths: int64 (P,), how many of each series.
    """

    rows: Tensor
    lengths: Tensor


def run_length(slices: int, share: float) -> int:
    """Slices in the run of a series."""
    return max(1, round(share * slices))


def draw_part(lengths: Tensor, share: float) -> Part:
    """A run of each series, its place drawn from torch's generator, all places alike.

    So slices near the ends of a series are in fewer runs than those between.

    Args:
        lengths: (P,) slices of each series.
        share: of them in the run.
    """
    rows, first = [], 0
    for slices in lengths.tolist():
        run = run_length(slices, share)
        start = first + int(torch.randint(slices - run + 1, ()))
        rows.append(torch.arange(start, start + run))
        first += slices
    return Part(torch.cat(rows), torch.tensor([len(one) for one in rows]))


def embed_part(model: Model, batch: SliceBatch, part: Part) -> Tensor:
    """Embeddings (n, D) of a part of a batch, cropped, augmented and between neighbours as in the whole."""
    rows, slices = part.rows.to(batch.hu.device), len(batch.hu)
    boxes = model.crop_boxes(batch.hu, batch.lengths, sizes=batch.sizes) if batch.boxes is None else batch.boxes
    per_series = {"boxes": boxes, "warp": batch.warp}
    own = {name: one[part.rows.to(one.device)] if one is not None and len(one) == slices else one
           for name, one in per_series.items()}  # fmt: skip
    appearance = (
        None if batch.appearance is None else batch.appearance.for_each_slice(batch.lengths.tolist())[part.rows]
    )
    if model.config.neighbours and batch.hu.ndim == 3:
        hu = _between_neighbours(batch, part, model.config.neighbours)
    else:
        hu = batch.hu[rows]
    return model.embed(hu, part.lengths, sizes=batch.sizes, appearance=appearance, **own)


def _between_neighbours(batch: SliceBatch, part: Part, reach: int) -> Tensor:
    """(n, 2 reach + 1, H, W): each slice between those around it in its series."""
    stops = batch.lengths.cumsum(0).tolist()
    runs = zip(part.rows.split(part.lengths.tolist()), [0, *stops], stops, strict=False)
    found = [rows_around(int(run[0]), int(run[-1]) + 1, low, high, reach, device=batch.hu.device)
             for run, low, high in runs]  # fmt: skip
    rows, there = (torch.cat(parts) for parts in zip(*found, strict=True))
    return batch.hu[rows].masked_fill_(~there[:, :, None, None], NO_SLICE_HU)


class Remembered:
    """Embeddings of a set's slices as they last were.

    Attributes:
        values: float16 (n_slices, D), where they were last asked for, so that no step waits for a copy; zeros of slices
            that are not trained on.
    """

    def __init__(self, index: Index, values: Tensor) -> None:
        self.index, self.values = index, values

    def of(self, items: Sequence[Item], device: torch.device) -> Tensor:
        """float32 (S, D) of the items' slices, on a device."""
        self.values = self.values.to(device)
        return self.values[self._places(items).to(device)].float()

    def put(self, items: Sequence[Item], rows: Tensor | slice, embeddings: Tensor) -> None:
        """Take the embeddings (n, D) of some rows of the items' slices."""
        self.values = self.values.to(embeddings.device)
        self.values[self._places(items)[rows].to(embeddings.device)] = embeddings.detach().to(self.values.dtype)

    def _places(self, items: Sequence[Item]) -> Tensor:
        return torch.from_numpy(item_rows(self.index, items))
