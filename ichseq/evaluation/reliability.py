"""Whether a probability is one: how often the label is there where so much was answered."""

from typing import Any, Final

import numpy as np

from ichseq.evaluation.bootstrap import Floats

BINS: Final = 10


def reliability(probability: Floats, truth: Floats) -> dict[str, Any]:
    """Ten bins of equal width, and the expected calibration error.

    The error is the mean over cases of the distance between a bin's mean answer and its share of positives (M. P.
    Naeini and others, AAAI 2015). Few cases make it larger than it would be with many.

    Args:
        probability: (n,).
        truth: (n,) 0, 1, or NaN where unknown, and left out then.

    Returns:
        expected_error, and bins: low, high, cases, mean_answer and share_positive of each, the last two None where it
        is empty. Without a known case the error is None.
    """
    known = ~np.isnan(truth)
    probability, truth = probability[known], truth[known]
    number = np.minimum((probability * BINS).astype(np.int64), BINS - 1)
    cases = np.bincount(number, minlength=BINS)
    answered = np.bincount(number, probability, minlength=BINS)
    positive = np.bincount(number, truth, minlength=BINS)
    bins = [
        {
            "low": k / BINS,
            "high": (k + 1) / BINS,
            "cases": int(cases[k]),
            "mean_answer": float(answered[k] / cases[k]) if cases[k] else None,
            "share_positive": float(positive[k] / cases[k]) if cases[k] else None,
        }
        for k in range(BINS)
    ]
    error = float(np.abs(answered - positive).sum() / len(truth)) if len(truth) else None
    return {"expected_error": error, "bins": bins}
