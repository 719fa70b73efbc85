"""The prepared set as a plain torch Dataset of series, for training loops of one's own.

`ichseq train` reads the set with threads and page-locked memory instead (ichseq.data.batches, ichseq.data.feed); the
network sees the same.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ichseq.data.index import Index
from ichseq.data.store import read_slices
from ichseq.errors import ConfigError
from ichseq.windows import AIR_HU


class PreparedSeries(NamedTuple):
    """One series.

    Attributes:
        hu: int16 (S, H, W) in HU, slices from feet to head.
        labels: float32 (S, 6) in the order of `ichseq.labels.LABELS`, NaN where unknown.
        exam_labels: float32 (6,), of the exam, NaN where unknown.
        positions_mm: float32 (S,), along the scan's axis, NaN where unknown.
        patient_id: as in the header.
        study_uid: as in the header.
        series_uid: as in the header.
    """

    hu: Tensor
    labels: Tensor
    exam_labels: Tensor
    positions_mm: Tensor
    patient_id: str
    study_uid: str
    series_uid: str


class StackedSeries(NamedTuple):
    """Several series, as `ichseq.Model` takes them.

    Attributes:
        hu: int16 (S, H, W), the slices of all series stacked in order; smaller ones are padded with air at the bottom
            and right.
        lengths: int64 (P,), slices of each series; their sum is S.
        labels: float32 (S, 6), NaN where unknown.
        exam_labels: float32 (P, 6), NaN where unknown.
        positions_mm: float32 (S,), NaN where unknown.
        sizes: true (rows, columns) of each series.
        patient_ids: of each series.
        series_uids: of each series.
    """

    hu: Tensor
    lengths: Tensor
    labels: Tensor
    exam_labels: Tensor
    positions_mm: Tensor
    sizes: list[tuple[int, int]]
    patient_ids: list[str]
    series_uids: list[str]


class SeriesDataset(Dataset[PreparedSeries]):
    """Series of a prepared set.

    Attributes:
        index: the set's tables.
        series: numbers of the series in the index.

    Example:
        >>> from ichseq.data.dataset import SeriesDataset, collate
        >>> from torch.utils.data import DataLoader
        >>> training = SeriesDataset("data/prepared", fold=0)
        >>> len(training), len(SeriesDataset("data/prepared", fold=0, train=False))
        (8, 2)
        >>> batch = next(iter(DataLoader(training, batch_size=4, shuffle=True, collate_fn=collate)))
        >>> len(batch.hu) == batch.lengths.sum() == len(batch.labels)
        tensor(True)
    """

    def __init__(self, data: str | Path | Index, *, fold: int | None = None, train: bool = True) -> None:
        """Take the series of a set; no pixels are read yet.

        Args:
            data: the prepared set, or its index.
            fold: None: every series.
            train: those outside the fold, for training; False: those of the fold, for validation.

        Raises:
            DataError: no prepared set there, or a damaged one.
            ConfigError: a fold that does not exist.
        """
        self.index = data if isinstance(data, Index) else Index.load(data)
        if fold is None:
            self.series = list(range(self.index.n_series))
        else:
            if not 0 <= fold < self.index.folds:
                raise ConfigError(f"fold {fold} does not exist; this set has folds 0 to {self.index.folds - 1}")
            chosen = self.index.training_series(fold) if train else self.index.validation_series(fold)
            self.series = chosen.tolist()

    def __len__(self) -> int:
        return len(self.series)

    def __getitem__(self, number: int) -> PreparedSeries:
        """Decode one series.

        Raises:
            DataError: its file is missing or damaged.
            IndexError: there is no such series.
        """
        i, index = self.series[number], self.index
        rows = slice(index.offsets[i], index.offsets[i + 1])
        row = index.series_row(i)
        return PreparedSeries(
            torch.from_numpy(read_slices(index.store_path(i), expected=index.expected(i))),
            torch.from_numpy(index.labels[rows].copy()),
            torch.from_numpy(index.exam_labels[i].copy()),
            torch.from_numpy(index.positions_mm[rows].astype("float32")),
            row["patient_id"],
            row["study_uid"],
            row["series_uid"],
        )


def collate(items: Sequence[PreparedSeries]) -> StackedSeries:
    """Stack series for `Model.forward`, the `collate_fn` of a DataLoader:

    model(batch.hu, batch.lengths, sizes=batch.sizes, positions_mm=batch.positions_mm).
    """
    sizes = [(int(item.hu.shape[1]), int(item.hu.shape[2])) for item in items]
    lengths = [len(item.hu) for item in items]
    hu = torch.full((sum(lengths), max(h for h, _ in sizes), max(w for _, w in sizes)), AIR_HU, dtype=torch.int16)
    first = 0
    for item, length, (height, width) in zip(items, lengths, sizes, strict=True):
        hu[first : first + length, :height, :width] = item.hu
        first += length
    return StackedSeries(
        hu,
        torch.tensor(lengths, dtype=torch.int64),
        torch.cat([item.labels for item in items]),
        torch.stack([item.exam_labels for item in items]),
        torch.cat([item.positions_mm for item in items]),
        sizes,
        [item.patient_id for item in items],
        [item.series_uid for item in items],
    )
