"""A prediction table of five slices whose numbers are easy to check by hand."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ichseq.labels import LABELS
from ichseq.predictions.schema import PREDICTION_COLUMNS

ANY = [0.1, 0.4, 0.7, 0.2, 0.9]


def five_slices(
    series: str = "aaaaa",
    index: Sequence[int] = (0, 1, 2, 3, 4),
    *,
    patients: str = "ppppp",
    scores: Sequence[float] = ANY,
    truth: Sequence[float] = (np.nan,) * 5,
) -> pd.DataFrame:
    """`scores` as p(any), the same from the last slice to the first as p(epidural), 0.5 for the other labels.

    A letter a slice names its series and its patient; `truth` is that of any.
    """
    table = pd.DataFrame(dict.fromkeys(LABELS, [0.5] * 5) | {f"true_{label}": [np.nan] * 5 for label in LABELS})
    table["patient_id"] = list(patients)
    table["study_uid"] = table["series_uid"] = list(series)
    table["sop_uid"] = [f"ID_{k}" for k in range(5)]
    table["file"] = [f"{k}.dcm" for k in range(5)]
    table["slice_index"] = list(index)
    table["position_mm"] = [5.0 * k for k in index]
    table["any"] = list(scores)
    table["epidural"] = list(scores)[::-1]
    table["true_any"] = list(truth)
    return table[list(PREDICTION_COLUMNS)]


def close(table: pd.DataFrame, column: str, expected: Sequence[float]) -> bool:
    """Whether a column holds these numbers, to the last digits."""
    return np.allclose(table[column], expected, rtol=0, atol=1e-12, equal_nan=True)
