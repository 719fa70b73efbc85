"""ROC and precision-recall curves as one table: what each threshold gives."""

from typing import Final

import numpy as np
import pandas as pd

from ichseq.evaluation.bootstrap import Floats
from ichseq.labels import LABELS

CURVE_COLUMNS: Final = ("unit", "label", "threshold", "sensitivity", "specificity", "precision")
"""Columns of the table of curves. The ROC is sensitivity against 1 - specificity, the other precision against it."""

MOST_ROWS: Final = 400
"""Thresholds of a curve that are kept, evenly spread over the curve's length; a picture shows no more."""


def curves_of(unit: str, score: Floats, truth: Floats) -> pd.DataFrame:
    """The curves of the six labels; a label of one class alone has none.

    Args:
        unit: slice or exam.
        score: (n, 6).
        truth: (n, 6) 0, 1, or NaN where unknown.
    """
    tables = []
    for k, label in enumerate(LABELS):
        known = ~np.isnan(truth[:, k])
        curve = curve_of(score[known, k], truth[known, k])
        curve.insert(0, "label", label)
        curve.insert(0, "unit", unit)
        tables.append(curve)
    return pd.concat(tables, ignore_index=True)


def curve_of(score: Floats, truth: Floats) -> pd.DataFrame:
    """threshold, sensitivity, specificity and precision where scores of at least the threshold are flagged.

    From every score as a threshold, the highest first; thinned to `MOST_ROWS`, both ends kept.

    Args:
        score: (n,).
        truth: (n,) 0 or 1.
    """
    positives, negatives = int((truth == 1).sum()), int((truth == 0).sum())
    names = list(CURVE_COLUMNS[2:])
    if not positives or not negatives:
        return pd.DataFrame({name: pd.Series(dtype=np.float64) for name in names})
    order = np.argsort(-score, kind="stable")
    score, truth = score[order], truth[order]
    last = np.flatnonzero(np.append(np.diff(score) != 0, True))  # of the cases at each score
    right, wrong = np.cumsum(truth == 1)[last], np.cumsum(truth == 0)[last]
    sensitivity, false = right / positives, wrong / negatives
    kept = _spread(np.append(0, np.cumsum(np.abs(np.diff(sensitivity)) + np.abs(np.diff(false)))))
    columns = (score[last], sensitivity, 1 - false, right / (right + wrong))
    return pd.DataFrame({name: column[kept] for name, column in zip(names, columns, strict=True)})


def _spread(length: Floats) -> np.ndarray:
    """Numbers of the rows that are kept: of a curve by its length up to each row."""
    if len(length) <= MOST_ROWS:
        return np.arange(len(length))
    wanted = np.linspace(0, length[-1], MOST_ROWS)
    return np.unique(np.append(np.searchsorted(length, wanted), [0, len(length) - 1]).clip(0, len(length) - 1))
