"""A prediction table's figures, with whose they are and what they were measured on."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ichseq.data.index import Index
from ichseq.evaluation.metrics import evaluate_table
from ichseq.labels import LABELS

Prevalence = Sequence[float | None] | None


def score(
    table: pd.DataFrame,
    prevalences: Sequence[Prevalence],
    index: Index | None = None,
    *,
    exams: pd.DataFrame | None = None,
    **identity: Any,
) -> dict[str, Any]:
    """Score a prediction table against the truth that stands in it.

    Args:
        table: a row a slice, with the columns of `PREDICTION_COLUMNS`.
        prevalences: of the six labels in the training of each fold or run that answered; the prior is their mean.
        index: the prepared set that was predicted, if it is known.
        exams: the table of exams that belongs to it, if there is one.
        identity: what else identifies the predictions, such as the run and the fold.

    Returns:
        What `metrics.json` holds: `identity`, data_key and phantom of the set, and the figures of `evaluate_table`.

    Raises:
        DataError: as `evaluate_table`.
    """
    measured_on = {} if index is None else {"data_key": index.key, "phantom": index.phantom}
    return {**identity, **measured_on, **evaluate_table(table, mean_prevalence(prevalences), exams=exams)}


def mean_prevalence(prevalences: Sequence[Prevalence]) -> list[float | None] | None:
    """Mean prevalence of each label, None for a label of which one is not known; None where there are none at all."""
    if not prevalences:
        return None
    rows = np.array([row or [None] * len(LABELS) for row in prevalences], dtype=np.float64)
    return [None if np.isnan(mean) else float(mean) for mean in rows.mean(axis=0)]
