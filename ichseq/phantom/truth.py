"""What is known of made-up exams: labels of slices, every bleed's place and extent, and its pixels in each slice."""

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ichseq.labels import LABELS
from ichseq.phantom.places import PLACE_COLUMNS, to_runs
from ichseq.phantom.scanner import Picture, Stack

SEEN_SHARE, SEEN_AREA = 1 / 3, 50.0
"""A slice is positive for a kind where at least 50 mm2 of its pixels hold a third of blood of that kind or more,
counted across the slice's thickness: a spot 8 mm across or a film of 2 by 25 mm, 10 HU above the brain, which a careful
reader marks when the neighbours confirm it. Less is left unlabelled: the faint end of a bleed."""

SURE_SHARE, SURE_AREA = 2 / 3, 20.0
"""In volumes, where small bleeds are drawn on purpose, a slice is also positive where 20 mm2 hold two thirds of blood
or more: a spot 5 mm across that stands out."""

BLEED_COLUMNS = (
    "patient_id", "series_uid", "part", "bleed", "kind", "volume_ml", "mean_hu", "x_mm", "y_mm", "z_mm",
    "slice_index", "row", "column", "min_slice", "max_slice", "min_row", "max_row", "min_column", "max_column",
)  # fmt: skip


PARTS = ("train", "test")


class AnyBleed(Protocol):
    """What the table must know of a bleed, beside what it fills."""

    @property
    def kind(self) -> str: ...
    @property
    def hu(self) -> float: ...


@dataclass(frozen=True)
class Truth:
    """What one patient adds to the tables.

    Attributes:
        slices: SOPInstanceUID and six labels of each slice.
        bleeds: a row a bleed.
        places: a row for each bleed and slice.
    """

    slices: list[tuple[str, tuple[int, ...]]]
    bleeds: list[tuple[Any, ...]]
    places: list[tuple[Any, ...]]


def exam_names(seed: int, part: int, number: int) -> list[str]:
    """PatientID, StudyInstanceUID and SeriesInstanceUID of a patient, in the form of the RSNA 2019 set's."""
    lengths = (("patient", 8), ("study", 10), ("series", 10))
    return ["ID_" + _digest(seed, part, number, what)[:length] for what, length in lengths]


def slice_name(seed: int, part: int, number: int, index: int) -> str:
    """SOPInstanceUID of a slice; it says nothing about the slice's place."""
    return "ID_" + _digest(seed, part, number, index)[:9]


def _digest(*what: object) -> str:
    return hashlib.sha256(repr(what).encode()).hexdigest()


class BleedTable:
    """Gathers, slice by slice, what each bleed fills: labels of the slice at once, a table row a bleed at the end."""

    def __init__(self, bleeds: Sequence[AnyBleed], stack: Stack, *, small: bool = False) -> None:
        """Start with nothing seen; `stack` says where the slices lie, `small` whether `SURE_AREA` counts as well."""
        self.bleeds, self.stack, self.small = bleeds, stack, small
        self.mass = np.zeros((len(bleeds), 4))
        self.extents: list[list[tuple[int, ...]]] = [[] for _ in bleeds]
        self.places: list[tuple[int, int, float, str]] = []  # slice, bleed, mm2, runs

    def add(self, index: int, picture: Picture) -> tuple[int, ...]:
        """Count the slice in; returns its labels in the order of `labels.LABELS`."""
        area = self.stack.pixel**2
        top, left = picture.box[0].start, picture.box[1].start
        kinds: dict[str, NDArray[np.floating[Any]]] = {}
        for number, (bleed, share) in enumerate(zip(self.bleeds, picture.blood, strict=True)):
            kinds[bleed.kind] = kinds[bleed.kind] + share if bleed.kind in kinds else share
            ml = share.sum(dtype=np.float64) * area * self.stack.thickness[index] / 1000
            if not ml:
                continue
            rows, columns = share.sum(axis=1, dtype=np.float64), share.sum(axis=0, dtype=np.float64)
            row = (rows * np.arange(len(rows))).sum() / rows.sum() + top
            column = (columns * np.arange(len(columns))).sum() / columns.sum() + left
            self.mass[number] += ml * np.array([1, index, row, column])
            seen = share >= SEEN_SHARE
            if seen.any():
                whole = np.zeros((self.stack.size, self.stack.size), bool)
                whole[picture.box] = seen
                self.places.append((index, number, float(seen.sum() * area), to_runs(whole)))
            if self._seen(share):
                down, across = np.flatnonzero(seen.any(axis=1)) + top, np.flatnonzero(seen.any(axis=0)) + left
                self.extents[number].append((index, int(down[0]), int(down[-1]), int(across[0]), int(across[-1])))
        found = [int(self._seen(kinds[k])) if k in kinds else 0 for k in LABELS[:5]]
        return (*found, max(found))

    def _seen(self, share: NDArray[np.floating[Any]]) -> bool:
        """Whether a slice with these shares of blood is positive."""
        area = self.stack.pixel**2
        if (share >= SEEN_SHARE).sum() * area >= SEEN_AREA:
            return True
        return self.small and bool((share >= SURE_SHARE).sum() * area >= SURE_AREA)

    def truth(self, names: Sequence[str], part: str, slices: list[tuple[str, tuple[int, ...]]]) -> Truth:
        """All that is known once every slice was counted in; `names` as `exam_names` gives them."""
        places = [
            (slices[index][0], self.bleeds[number].kind, number, f"{area:.1f}", runs)
            for index, number, area, runs in self.places
        ]
        return Truth(slices, self.rows(names[0], names[2], part), places)

    def rows(self, patient: str, series: str, part: str) -> list[tuple[Any, ...]]:
        """A row a bleed in the order of `BLEED_COLUMNS`; the extent is empty where no slice shows enough of it."""
        rows = []
        for number, bleed in enumerate(self.bleeds):
            volume = self.mass[number, 0]
            if not volume:
                continue
            index, row, column = self.mass[number, 1:] / volume
            slices = np.arange(len(self.stack.origins))
            place = np.array([np.interp(index, slices, self.stack.origins[:, axis]) for axis in range(3)])
            place += self.stack.pixel * (row * self.stack.down_column + column * np.array([1.0, 0.0, 0.0]))
            extent: tuple[Any, ...] = ("",) * 6
            if self.extents[number]:
                s, r0, r1, c0, c1 = np.array(self.extents[number]).T
                extent = (s.min(), s.max(), r0.min(), r1.max(), c0.min(), c1.max())
            numbers = [f"{v:.2f}" for v in (volume, bleed.hu, *place, index, row, column)]
            rows.append((patient, series, part, number, bleed.kind, *numbers, *extent))
        return rows


def write_tables(folder: Path, train: list[Truth], test: list[Truth]) -> None:
    """Write the label tables of both parts, the table of bleeds and that of their places into the folder of a set."""
    _write_labels(folder / "stage_2_train.csv", train)
    _write_labels(folder / "truth" / "stage_2_test.csv", test)
    _write_labels(folder / "stage_2_sample_submission.csv", test, answer="0.5")
    _write_rows(folder / "truth" / "bleeds.csv", BLEED_COLUMNS, [row for one in train + test for row in one.bleeds])
    _write_rows(folder / "truth" / "places.csv", PLACE_COLUMNS, [row for one in train + test for row in one.places])


def _write_rows(path: Path, columns: Sequence[str], rows: list[tuple[Any, ...]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(columns)
        table.writerows(rows)


def _write_labels(path: Path, truths: list[Truth], answer: str | None = None) -> None:
    """Six rows a slice, slices in the order of their names, which says nothing about their order in the head."""
    slices = sorted(row for truth in truths for row in truth.slices)
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("ID", "Label"))
        for sop, labels in slices:
            for label, value in zip(LABELS, labels, strict=True):
                table.writerow((f"{sop}_{label}", value if answer is None else answer))
