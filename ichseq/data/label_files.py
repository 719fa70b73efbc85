"""The label tables of a set taken together: those of slices, and those of exams with the series that they are for."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, NamedTuple

import numpy as np

from ichseq.data.exam_table import ExamTable, is_exam_table, read_exam_table
from ichseq.data.label_columns import EXAM_IDS, columns_of, is_slice_table
from ichseq.data.label_table import LabelTable, merge_tables, read_labels
from ichseq.errors import DataError, counted
from ichseq.labels import LABELS
from ichseq.predictions.schema import ExamId

ExamSeries = Literal["all", "thin", "thick"]
"""Which series of an exam have its labels: all; that with the most slices; or, of those that reach over the head as far
as the others do, that with the fewest."""

_WHOLE: Final = 0.75  # of the longest series of an exam: so far has a thick one to reach
_AT_MOST_SHOWN: Final = 3


class Extent(NamedTuple):
    """How much of a head a series shows: its slices, and mm from the first to the last (NaN: not known)."""

    slices: int
    mm: float


@dataclass(frozen=True)
class ExamLabels:
    """Labels of exams, by series.

    Attributes:
        values: float32 (n_series, 6), NaN where unknown.
        agreement: float32 (n_series, 6), share of the readers who agree; NaN without readers.
        row: words for where each series' labels come from, for messages; empty: it has none.
        without_series: exams of the tables that are no series' here.
        in_several: exams that several series belong to.
    """

    values: np.ndarray
    agreement: np.ndarray
    row: list[str]
    without_series: int = 0
    in_several: int = 0


@dataclass(frozen=True)
class LabelFiles:
    """Label tables.

    Attributes:
        slices: of slices, all as one; None: there are none.
        exams: of exams.
    """

    slices: LabelTable | None = None
    exams: list[ExamTable] = field(default_factory=list)

    @property
    def name(self) -> str | None:
        """The files' names alone, None without any."""
        slices = [] if self.slices is None else self.slices.name.split(", ")
        names = [Path(one).name for one in (*slices, *(table.name for table in self.exams))]
        return ", ".join(names) or None


def read_label_files(paths: Sequence[Path]) -> LabelFiles:
    """Read label tables; whether each is one of slices or of exams shows in its columns.

    Raises:
        DataError: one is missing or neither, or they contradict themselves or each other.
    """
    slices, exams = list[LabelTable](), list[ExamTable]()
    for path in paths:
        columns = columns_of(path)
        if is_exam_table(columns) and not is_slice_table(columns):
            exams.append(read_exam_table(path, columns))
        else:
            slices.append(read_labels(path))
    return LabelFiles(merge_tables(slices) if slices else None, exams)


def exam_labels_of(
    tables: Sequence[ExamTable],
    series: Sequence[ExamId],
    extents: Sequence[Extent] | None = None,
    which: ExamSeries = "all",
) -> ExamLabels:
    """Labels of the exams that some series belong to.

    Args:
        tables: of exams; what one does not know, another may.
        series: of the set.
        extents: of each series; needed unless all are taken.
        which: of several series of an exam have its labels.

    Raises:
        DataError: no exam of a table is among these, or two tables contradict each other.
    """
    values, agreement = np.full((2, len(series), len(LABELS)), np.nan, np.float32)
    where, without, several = [""] * len(series), 0, 0
    for table in tables:
        rows = table.rows([str(getattr(one, table.key)) for one in series])
        used = np.bincount(rows[rows >= 0], minlength=len(table.ids))
        if not used.any():
            raise DataError(
                f"{table.name}: none of its {counted(len(table.ids), 'exam')}, named by {table.key}, is among the "
                f"{len(series)} series of the source; check that they belong together (other columns that are looked "
                f"for: {', '.join(key for key in EXAM_IDS if key != table.key)})"
            )
        without, several = without + int((used == 0).sum()), several + int((used > 1).sum())
        if which != "all" and extents is not None:
            rows = _one_an_exam(rows, extents, which)
        _add(table, rows, values, agreement, where)
    return ExamLabels(values, agreement, where, without, several)


def _one_an_exam(rows: np.ndarray, extents: Sequence[Extent], which: ExamSeries) -> np.ndarray:
    """The rows, with -1 for all but one series of each."""
    kept = np.full_like(rows, -1)
    for row in np.unique(rows[rows >= 0]):
        own = np.flatnonzero(rows == row)
        kept[thinnest(own, extents) if which == "thin" else thickest(own, extents)] = row
    return kept


def thinnest(own: np.ndarray, extents: Sequence[Extent]) -> int:
    """Of some series, the number of that with the most slices."""
    return max(own.tolist(), key=lambda i: extents[i].slices)


def thickest(own: np.ndarray, extents: Sequence[Extent]) -> int:
    """Of some series, the number of that with the fewest slices which reaches over the head as far as the others do.

    A stray slice, or a second scan of a part, is none; a series without positions is taken for a whole one.
    """
    longest = max((extents[i].mm for i in own if not np.isnan(extents[i].mm)), default=0.0)
    whole = [i for i in own.tolist() if not extents[i].mm < _WHOLE * longest]
    return min(whole, key=lambda i: extents[i].slices)


def _add(table: ExamTable, rows: np.ndarray, values: np.ndarray, agreement: np.ndarray, where: list[str]) -> None:
    """Put a table's labels among those of the tables before it."""
    for i in np.flatnonzero(rows >= 0):
        own = table.values[rows[i]]
        other = ~np.isnan(own) & ~np.isnan(values[i]) & (own != values[i])
        if other.any():
            raise DataError(
                f"{table.name}: {LABELS[int(np.argmax(other))]} of {table.key} {table.ids[rows[i]]} is other than "
                f"{where[i]} says; correct one of the two"
            )
        fresh = np.isnan(values[i])
        values[i, fresh], agreement[i, fresh] = own[fresh], table.agreement[rows[i], fresh]
        where[i] = f"{table.name} ({table.key} {table.ids[rows[i]]})"


def refuse_contradictions(given: ExamLabels, by_slices: np.ndarray) -> int:
    """See that no exam is labelled as not bleeding of which a slice is labelled as bleeding.

    Args:
        given: by the tables of exams.
        by_slices: (n_series, 6), what the labels of slices say (`ichseq.data.exam_labels.by_slices`).

    Returns:
        How many series have a label of 1 by their exam, and 0 in every slice; the exam's is kept.

    Raises:
        DataError: an exam is.
    """
    against = (given.values == 0) & (by_slices == 1)
    if against.any():
        found = [f"{LABELS[k]} by {given.row[i]}" for i, k in np.argwhere(against)[:_AT_MOST_SHOWN]]
        number = int(against.any(axis=1).sum())
        raise DataError(
            f"{counted(number, 'exam')} labelled 0 with a slice that is labelled 1, such as {'; '.join(found)}; "
            "correct the exam's label or the slice's"
        )
    return int(((given.values == 1) & (by_slices == 0)).any(axis=1).sum())
