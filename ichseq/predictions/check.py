"""What a prediction table has to be, and what several tables have to agree in."""

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
import pandas as pd

from ichseq.errors import DataError, counted
from ichseq.labels import LABELS
from ichseq.predictions.calibration import CALIBRATED, FLAGGED
from ichseq.predictions.schema import EXAM_KEY, SLICE_KEY, TRUTH, Floats, Integers

Unit = Literal["slice", "exam"]
KEYS: Final[dict[Unit, tuple[str, ...]]] = {"slice": SLICE_KEY, "exam": EXAM_KEY}
"""What a row of a table is, and the columns that tell one from another; the last one names it in messages."""


def check_columns(table: pd.DataFrame, columns: Sequence[str], name: str) -> None:
    """See that columns are there.

    Raises:
        DataError: some are not.
    """
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise DataError(f"{name}: columns missing: {', '.join(missing)}; use a table written by ichseq")


def numbers_of(table: pd.DataFrame, column: str, name: str) -> Floats:
    """A column as float64, NaN where it is empty.

    Raises:
        DataError: something in it is not a number.
    """
    try:
        return pd.to_numeric(table[column]).to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        raise DataError(f"{name}: column {column} holds something that is not a number") from None


def checked_probabilities(table: pd.DataFrame, name: str) -> Floats:
    """The six labels' probabilities, float64 (n, 6).

    Raises:
        DataError: one is empty, no number, or outside 0 to 1.
    """
    columns = [numbers_of(table, label, name) for label in LABELS]
    for label, values in zip(LABELS, columns, strict=True):
        _refuse_empty(values, label, name, "every row needs a probability")
        _refuse(values, ~((values >= 0) & (values <= 1)), label, name, ", outside 0 to 1; give probabilities, "
                "not logits")  # fmt: skip
    return np.stack(columns, axis=1)


def checked_truth(table: pd.DataFrame, name: str) -> Floats:
    """The six labels as they are known, float64 (n, 6), NaN where unknown.

    Raises:
        DataError: one is not 0, 1 or empty.
    """
    columns = [numbers_of(table, column, name) for column in TRUTH]
    for column, values in zip(TRUTH, columns, strict=True):
        wrong = ~np.isnan(values) & (values != 0) & (values != 1)
        _refuse(values, wrong, column, name, "; the truth is 0, 1 or empty")
    return np.stack(columns, axis=1)


def check_calibrated(table: pd.DataFrame, name: str) -> None:
    """See that calibrated probabilities lie between 0 and 1, and that flags are 0, 1 or empty.

    Raises:
        DataError: one is not.
    """
    for column in CALIBRATED:
        values = numbers_of(table, column, name)
        _refuse_empty(values, column, name, "every row needs one")
        _refuse(values, ~((values >= 0) & (values <= 1)), column, name, ", outside 0 to 1")
    for column in FLAGGED:
        values = numbers_of(table, column, name)
        _refuse(values, ~np.isnan(values) & (values != 0) & (values != 1), column, name, "; a flag is 0, 1 or empty")


def check_slice_index(table: pd.DataFrame, name: str) -> None:
    """See that slices are numbered by whole numbers.

    Raises:
        DataError: one is not.
    """
    _check_whole_numbers(table, "slice_index", name, "slices are numbered 0, 1, 2, ...")


def check_n_slices(table: pd.DataFrame, name: str) -> None:
    """See that the slices of exams are counted in whole numbers.

    Raises:
        DataError: one is not.
    """
    _check_whole_numbers(table, "n_slices", name, "slices are counted 1, 2, 3, ...")


def _check_whole_numbers(table: pd.DataFrame, column: str, name: str, advice: str) -> None:
    values = numbers_of(table, column, name)
    _refuse_empty(values, column, name, advice)
    _refuse(values, values % 1 != 0, column, name, f"; {advice}")


def _refuse_empty(values: Floats, column: str, name: str, advice: str) -> None:
    empty = int(np.isnan(values).sum())
    if empty:
        raise DataError(f"{name}: column {column} is empty in {empty:,} of {counted(len(values), 'row')}; {advice}")


def _refuse(values: Floats, wrong: np.ndarray, column: str, name: str, why: str) -> None:
    if wrong.any():
        raise DataError(f"{name}: column {column} holds {values[wrong][0]:g}{why}")


def check_scorable(
    table: pd.DataFrame, name: str = "prediction table", *, unit: Unit = "slice", labels_needed: bool = True
) -> tuple[Floats, Floats]:
    """Probabilities and truth of a table that can be scored, each float64 (n, 6); truth is NaN where unknown.

    Args:
        table: a row a slice or an exam; the columns of the exam, the probabilities and the truth are needed.
        name: of the table, for messages.
        unit: what a row is.
        labels_needed: whether a table without any known label is refused.

    Raises:
        DataError: a column is missing, a value is wrong, no label is known, or a labelled UID stands at several images.
    """
    check_columns(table, (*EXAM_KEY, *LABELS, *TRUTH), name)
    probability, truth = checked_probabilities(table, name), checked_truth(table, name)
    if unit == "slice" and SLICE_KEY[-1] in table:
        _refuse_shared_uids(table, truth, name)
    if labels_needed and np.isnan(truth).all():
        raise DataError(f"{name}: no {unit} has a known label (all true_ columns are empty); evaluate with labels")
    return probability, truth


def _refuse_shared_uids(table: pd.DataFrame, truth: Floats, name: str) -> None:
    """Refuse labels of slices whose SOPInstanceUID stands in several rows: they were found by it, and it is not known
    which of them is meant.

    Raises:
        DataError: there are such rows.
    """
    uids = table.loc[np.asarray(~np.isnan(truth).all(axis=1)), SLICE_KEY[-1]]
    shared = uids[uids.duplicated(keep=False) & (uids != "")]
    if len(shared):
        raise DataError(
            f"{name}: {counted(shared.nunique(), 'SOPInstanceUID')} of labelled slices stand at {len(shared):,} "
            f"images, such as {shared.iloc[0]}; keep one row for each, or leave their labels empty"
        )


def refuse_duplicates(table: pd.DataFrame, name: str, unit: Unit = "slice") -> None:
    """Refuse a table that holds a slice, or an exam, in two rows.

    Raises:
        DataError: it does.
    """
    key = KEYS[unit]
    twice = table.duplicated(list(key))
    if twice.any():
        uid = table.loc[twice, key[-1]].iloc[0]
        raise DataError(f"{name}: {counted(int(twice.sum()), unit)} twice, such as {uid}; keep one row for each")


def count_shared_exams(tables: Sequence[pd.DataFrame]) -> int:
    """How many exams have slices in more than one table."""
    exams = pd.concat([table[list(EXAM_KEY)].drop_duplicates() for table in tables])
    return len(exams[exams.duplicated()].drop_duplicates())


def match_rows(first: pd.DataFrame, other: pd.DataFrame, name: str, other_name: str, unit: Unit = "slice") -> Integers:
    """The row in `other` of each row of `first`.

    Raises:
        DataError: a slice, or an exam, stands in one of them alone.
    """
    keys = [pd.MultiIndex.from_frame(table[list(KEYS[unit])]) for table in (first, other)]
    rows = keys[1].get_indexer(keys[0])
    only_first, only_other = np.flatnonzero(rows < 0), np.setdiff1d(np.arange(len(other)), rows)
    if not len(only_first) and not len(only_other):
        return rows
    sides = [_unmatched(first, only_first, other, name, unit), _unmatched(other, only_other, first, other_name, unit)]
    raise DataError(f"{name} and {other_name} differ in their {unit}s: {', '.join(filter(None, sides))}; take "
                    "predictions of the same scans")  # fmt: skip


def _unmatched(table: pd.DataFrame, rows: Integers, other: pd.DataFrame, name: str, unit: Unit) -> str:
    """How many rows stand in this table alone, with an example, and in what it differs if it is there after all."""
    if not len(rows):
        return ""
    key = KEYS[unit]
    example = table.iloc[rows[0]]
    text = f"{len(rows):,} of {len(table):,} stand in {name} alone, such as {example[key[-1]]}"
    near = other[other[key[-1]] == example[key[-1]]]
    differing = [column for column in key if len(near) and near[column].iloc[0] != example[column]]
    return f"{text} (there with another {' and '.join(differing)})" if differing else text


def merge_truth(truth: Floats, other: Floats, table: pd.DataFrame, name: str, unit: Unit = "slice") -> Floats:
    """The truth that either knows, (n, 6), for the rows of `table` in its order.

    Args:
        truth: (n, 6), as it is known so far, NaN where unknown.
        other: the same of one table more.
        table: has the names of slices or exams, for messages.
        name: of the table that `other` is of, for messages.
        unit: what a row is.

    Raises:
        DataError: they contradict each other.
    """
    contradictions = np.argwhere(~np.isnan(truth) & ~np.isnan(other) & (truth != other))
    if len(contradictions):
        row, k = contradictions[0]
        raise DataError(
            f"{name}: {counted(len(contradictions), 'label')} other than in the tables before it, such as {TRUTH[k]} "
            f"of {table[KEYS[unit][-1]].iloc[row]}: {other[row, k]:g}, not {truth[row, k]:g}; evaluate all with the "
            "same labels"
        )
    return np.where(np.isnan(truth), other, truth)
