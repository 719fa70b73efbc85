"""Prediction tables read back, averaged over models, smoothed along the series, and clipped."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ichseq.errors import ConfigError, DataError, counted
from ichseq.labels import CLIP_PROBABILITY, LABELS, PREDICTION_COLUMNS

By = Literal["series", "patient"]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

KEY: Final = ("patient_id", "study_uid", "series_uid", "sop_uid")
"""What tells one slice from another; two tables cover the same slices if these agree."""

MEAN: Final = (1.0, 1.0, 1.0)
WEIGHTED: Final = (0.6, 1.8, 0.6)
"""Weights of the slice before, the slice and the slice after (RSNA 2019, 2nd place), divided by 3."""

_PROBABILITIES = list(LABELS)
_TRUTH = [f"true_{label}" for label in LABELS]
_TEXT = [*KEY, "file"]
_NUMBERS = ["slice_index", "position_mm", *_PROBABILITIES, *_TRUTH]


def read_table(path: Path) -> pd.DataFrame:
    """Read a prediction table, Parquet (.parquet) or CSV (anything else), and check it.

    Returns:
        The columns of `labels.PREDICTION_COLUMNS` and no others; identifiers are text, as they stand in the file.

    Raises:
        DataError: the file is missing, empty or no such table, a probability is empty or outside 0..1, a truth is not
            0, 1 or empty, or a slice stands twice.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; name a table that `ichseq predict` or `ichseq evaluate` wrote")
    try:
        table = pd.read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: can't be read as a prediction table ({first}); write it again") from None
    missing = [column for column in PREDICTION_COLUMNS if column not in table.columns]
    if missing:
        raise DataError(f"{path}: columns missing: {', '.join(missing)}; use a table written by ichseq")
    if table.empty:
        raise DataError(f"{path}: no rows; predict at least one scan")
    table = table[list(PREDICTION_COLUMNS)].copy()
    for column in _TEXT:
        table[column] = table[column].astype(object).where(table[column].notna(), "").astype("str")
    for column in _NUMBERS:
        table[column] = _numbers(path, table[column])
    _check_values(path, table)
    table["slice_index"] = table["slice_index"].astype(np.int64)
    refuse_twice(str(path), table)
    return table


def _read_csv(path: Path) -> pd.DataFrame:
    # Only an empty cell is unknown, and only where a number belongs: "NA" and "007" are fine names of patients.
    empty = {column: [""] for column in _NUMBERS}
    text = dict.fromkeys(_TEXT, "str")
    return pd.read_csv(path, dtype=text, keep_default_na=False, na_values=empty)


def _numbers(path: Path, column: pd.Series) -> Floats:
    try:
        return pd.to_numeric(column).to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        raise DataError(f"{path}: column {column.name} holds something that is not a number") from None


def _check_values(path: Path, table: pd.DataFrame) -> None:
    for column in ("slice_index", *_PROBABILITIES):
        empty = int(table[column].isna().sum())
        if empty:
            raise DataError(
                f"{path}: column {column} is empty in {empty:,} of {counted(len(table), 'row')}; fill it in"
            )
    for label in LABELS:
        outside = table.loc[~table[label].between(0, 1), label]
        if len(outside):
            raise DataError(
                f"{path}: column {label} holds {outside.iloc[0]:g}, outside 0 to 1; give probabilities, not logits"
            )
    for column in _TRUTH:
        odd = table.loc[~(table[column].isin((0, 1)) | table[column].isna()), column]
        if len(odd):
            raise DataError(f"{path}: column {column} holds {odd.iloc[0]:g}; the truth is 0, 1 or empty")
    odd = table.loc[table["slice_index"] % 1 != 0, "slice_index"]
    if len(odd):
        raise DataError(f"{path}: column slice_index holds {odd.iloc[0]:g}; slices are numbered 0, 1, 2, ...")


def refuse_twice(name: str, table: pd.DataFrame) -> None:
    """Refuse a table in which a slice stands twice.

    Raises:
        DataError: one does.
    """
    twice = table.duplicated(list(KEY))
    if twice.any():
        sop_uid = table.loc[twice, "sop_uid"].iloc[0]
        raise DataError(f"{name}: {counted(int(twice.sum()), 'slice')} twice, such as {sop_uid}; keep one row a slice")


def blend(
    tables: Sequence[pd.DataFrame], weights: Sequence[float] | None = None, names: Sequence[str] | None = None
) -> pd.DataFrame:
    """Average the probabilities of several tables over the same slices.

    Args:
        tables: prediction tables; their rows may be in different orders.
        weights: one for each table, divided by their sum; None: all alike.
        names: of the tables, for messages.

    Returns:
        The first table, in its order, with the averages; a truth that it doesn't know is taken from the others.

    Raises:
        ConfigError: no table, weights that are not one for each, or one that is negative, or all of them zero.
        DataError: a slice stands in one table and not in another, twice in one, or the truth differs.
    """
    share = _shares(weights, len(tables))
    names = [f"table {k + 1}" for k in range(len(tables))] if names is None else names
    first = tables[0]
    refuse_twice(names[0], first)
    total = share[0] * first[_PROBABILITIES].to_numpy(dtype=np.float64)
    truth = first[_TRUTH].to_numpy(dtype=np.float64)
    for name, table, part in zip(names[1:], tables[1:], share[1:], strict=True):
        refuse_twice(name, table)
        rows = same_slices(first, table, names[0], name)
        total += part * table[_PROBABILITIES].to_numpy(dtype=np.float64)[rows]
        truth = same_truth(truth, table[_TRUTH].to_numpy(dtype=np.float64)[rows], first, name)
    result = first.copy()
    result[_PROBABILITIES] = np.clip(total, 0, 1)  # weights that sum to 1 do so only to the last bit
    result[_TRUTH] = truth
    return result


def _shares(weights: Sequence[float] | None, number: int) -> Floats:
    if not number:
        raise ConfigError("nothing to blend; give at least one table")
    values = np.ones(number) if weights is None else np.array(weights, dtype=np.float64)
    shown = ",".join(f"{value:g}" for value in values)
    if len(values) != number:
        raise ConfigError(f"weights {shown}: {len(values)} for {counted(number, 'table')}; give one for each")
    if not np.isfinite(values).all() or (values < 0).any() or values.max() == 0:
        raise ConfigError(f"weights {shown}: none may be negative, and not all zero")
    values = values / values.max()  # so that their sum can't overflow
    return values / values.sum()


def same_slices(first: pd.DataFrame, other: pd.DataFrame, name: str, other_name: str) -> Integers:
    """The row in `other` of each row of `first`.

    Raises:
        DataError: a slice stands in one of them alone.
    """
    keys = [pd.MultiIndex.from_frame(table[list(KEY)]) for table in (first, other)]
    rows = keys[1].get_indexer(keys[0])
    alone = np.flatnonzero(rows < 0)
    alone_there = np.setdiff1d(np.arange(len(other)), rows)
    if not len(alone) and not len(alone_there):
        return rows
    sides = [_alone(first, alone, other, name), _alone(other, alone_there, first, other_name)]
    raise DataError(f"{name} and {other_name} differ in their slices: {', '.join(filter(None, sides))}; take "
                    "predictions of the same scans")  # fmt: skip


def _alone(table: pd.DataFrame, rows: Integers, other: pd.DataFrame, name: str) -> str:
    """How many slices stand in this table alone, with an example, and in what it differs if it is there after all."""
    if not len(rows):
        return ""
    example = table.iloc[rows[0]]
    text = f"{len(rows):,} of {len(table):,} stand in {name} alone, such as {example['sop_uid']}"
    near = other[other["sop_uid"] == example["sop_uid"]]
    odd = [column for column in KEY if len(near) and near[column].iloc[0] != example[column]]
    return f"{text} (there with another {' and '.join(odd)})" if odd else text


def same_truth(truth: Floats, other: Floats, table: pd.DataFrame, name: str) -> Floats:
    """The truth that either knows, (n, 6), for the slices of `table` in its order.

    Raises:
        DataError: they contradict each other.
    """
    odd = np.argwhere(~np.isnan(truth) & ~np.isnan(other) & (truth != other))
    if len(odd):
        row, k = odd[0]
        raise DataError(
            f"{name}: {counted(len(odd), 'label')} other than in the tables before it, such as true_{LABELS[k]} of "
            f"{table['sop_uid'].iloc[row]}: {other[row, k]:g}, not {truth[row, k]:g}; evaluate all with the same labels"
        )
    return np.where(np.isnan(truth), other, truth)


def smooth(table: pd.DataFrame, weights: Sequence[float] = MEAN, *, by: By = "series") -> pd.DataFrame:
    """Average each slice's probabilities with those of its two neighbours (RSNA 2019, 2nd place).

    A slice at an end has one neighbour: it gets the plain mean of the two, and a slice without any stays as it is.
    Neighbours are the ones before and after in order, whether or not a number is missing between them.

    The published version goes by patient. A patient with two scans has two series, though, and the last slice of one
    lies nowhere near the first of the next, so that the series is the default here. With one series a patient both
    are the same.

    Args:
        table: a prediction table; its rows may be in any order.
        weights: of the slice before, the slice and the slice after; they sum to 3, and are divided by it.
        by: "series": a series' slices by their slice_index; "patient": a patient's slices as they stand in the table.

    Returns:
        The same rows in the same order, with the smoothed probabilities.

    Raises:
        ConfigError: weights that are not three, negative, or don't sum to 3, or another `by`.
    """
    before, own, after = _three(weights)
    if by not in ("series", "patient"):
        raise ConfigError(f"smoothing by {by!r}; give series or patient")
    group = table.groupby(list(KEY[:3] if by == "series" else KEY[:1]), sort=False, dropna=False).ngroup().to_numpy()
    place = table["slice_index"].to_numpy() if by == "series" else np.arange(len(table))
    order = np.lexsort((place, group))
    values = table[_PROBABILITIES].to_numpy(dtype=np.float64)[order]
    same = group[order][1:] == group[order][:-1]
    has_before, has_after = np.append(False, same)[: len(table)], np.append(same, False)[: len(table)]
    earlier = np.where(has_before[:, None], np.roll(values, 1, axis=0), 0)
    later = np.where(has_after[:, None], np.roll(values, -1, axis=0), 0)
    inner = (before * earlier + own * values + after * later) / 3
    ends = (earlier + values + later) / (1.0 + has_before + has_after)[:, None]
    smoothed = np.empty_like(values)
    smoothed[order] = np.where((has_before & has_after)[:, None], inner, ends)
    result = table.copy()
    result[_PROBABILITIES] = np.clip(smoothed, 0, 1)  # rounding must not lead beyond a probability
    return result


def _three(weights: Sequence[float]) -> tuple[float, float, float]:
    values = np.array(weights, dtype=np.float64)
    if len(values) != 3 or (values < 0).any() or not np.isclose(values.sum(), 3):
        shown = ", ".join(f"{value:g}" for value in values)
        raise ConfigError(f"smoothing weights {shown}: give three that sum to 3, none negative")
    return float(values[0]), float(values[1]), float(values[2])


def clip(table: pd.DataFrame, least: float = CLIP_PROBABILITY) -> pd.DataFrame:
    """Keep the probabilities within [least, 1 - least]; 0 leaves them as they are.

    Raises:
        ConfigError: `least` is not from 0 up to below 0.5.
    """
    if not 0 <= least < 0.5:
        raise ConfigError(f"clipping at {least:g}: give a number from 0 up to below 0.5, such as {CLIP_PROBABILITY:g}")
    result = table.copy()
    result[_PROBABILITIES] = np.clip(table[_PROBABILITIES].to_numpy(dtype=np.float64), least, 1 - least)
    return result
