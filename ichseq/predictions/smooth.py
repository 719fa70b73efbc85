"""Probabilities averaged along the series, and kept away from 0 and 1."""

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
import pandas as pd

from ichseq.errors import ConfigError
from ichseq.labels import CLIP_PROBABILITY, LABELS
from ichseq.predictions.schema import exam_numbers

By = Literal["series", "patient"]
Smoothing = Literal["none", "mean", "weighted"]

MEAN: Final = (1.0, 1.0, 1.0)
WEIGHTED: Final = (0.6, 1.8, 0.6)
"""Weights of the slice before, the slice and the slice after (RSNA 2019, 2nd place), divided by 3."""

_PROBABILITIES = list(LABELS)


def smooth_by_name(table: pd.DataFrame, smoothing: Smoothing, *, by: By = "series") -> pd.DataFrame:
    """`smooth` with the weights `MEAN` or `WEIGHTED` ("mean", "weighted"), or the table as it is ("none")."""
    if smoothing == "none":
        return table
    return smooth(table, WEIGHTED if smoothing == "weighted" else MEAN, by=by)


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
    if by == "series":
        group, place = exam_numbers(table), table["slice_index"].to_numpy()
    elif by == "patient":
        group, place = pd.factorize(table["patient_id"], use_na_sentinel=False)[0], np.arange(len(table))
    else:
        raise ConfigError(f"smoothing by {by!r}; give series or patient")
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
