"""Fitting a calibration: from scores and truth to probabilities and operating points, by label."""

from typing import Final

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import expit

from ichseq.errors import counted
from ichseq.evaluation.bootstrap import Floats
from ichseq.labels import LABELS
from ichseq.predictions.calibration import (
    POINTS,
    Calibration,
    FittedOn,
    LabelCalibration,
    Method,
    OperatingPoint,
    PointName,
    log_odds,
)
from ichseq.predictions.check import checked_probabilities, checked_truth

FEWEST: Final = 10
"""With fewer positives or negatives nothing is fitted: two numbers from a handful of cases would be chance."""

_FLATTEST: Final = 1e-3  # of a slope; one that wants to go below falls where it should rise
_WANTED: Final[dict[PointName, tuple[int, float]]] = {
    "sensitivity-0.95": (1, 0.95),
    "sensitivity-0.9": (1, 0.9),
    "specificity-0.9": (0, 0.9),
}


def fit_calibration(
    slices: pd.DataFrame, exams: pd.DataFrame, fitted_on: FittedOn, method: Method = "platt"
) -> Calibration:
    """Fit every label, for slices and for exams.

    Args:
        slices: a prediction table of patients kept for validation, with the truth.
        exams: the table of exams that belongs to it.
        fitted_on: what is noted of them.
        method: platt: slope and intercept of the log odds; temperature: the slope alone.

    Raises:
        DataError: a table holds something that is no probability or no truth.
    """
    of_slices, of_exams = (
        {
            label: fit_label(scores[:, k], truth[:, k], unit, method)
            for scores, truth in [(checked_probabilities(table, name), checked_truth(table, name))]
            for k, label in enumerate(LABELS)
        }
        for table, name, unit in ((slices, "predictions", "slice"), (exams, "exams", "exam"))
    )
    return Calibration(method=method, fitted_on=fitted_on, slices=of_slices, exams=of_exams)


def fit_label(score: Floats, truth: Floats, unit: str, method: Method = "platt") -> LabelCalibration:
    """Fit one label.

    Args:
        score: (n,) raw probabilities.
        truth: (n,) 0 or 1, NaN where unknown.
        unit: what a case is called, for the reasons.
        method: as for `fit_calibration`.
    """
    known = ~np.isnan(truth)
    score, truth = score[known], truth[known]
    positives = int((truth == 1).sum())
    negatives = len(truth) - positives
    slope, intercept, unchanged = 1.0, 0.0, _too_few(positives, negatives, unit)
    if unchanged is None:
        slope, intercept = fit_scaling(score, truth, method)
        if slope <= _FLATTEST:
            slope, intercept, unchanged = 1.0, 0.0, f"the score does not rise where the {unit} is positive"
    return LabelCalibration(
        slope=slope,
        intercept=intercept,
        positives=positives,
        negatives=negatives,
        unchanged=unchanged,
        points={name: operating_point(score, truth, name, unit) for name in POINTS},
    )


def _too_few(positives: int, negatives: int, unit: str) -> str | None:
    for kind, number in (("positive", positives), ("negative", negatives)):
        if number < FEWEST:
            return f"{counted(number, f'{kind} {unit}')}; {FEWEST} are needed"
    return None


def fit_scaling(score: Floats, truth: Floats, method: Method) -> tuple[float, float]:
    """Slope and intercept of the log odds with the least log loss; both classes are there.

    The targets are not quite 0 and 1 (J. Platt, 1999): (n+ + 1) / (n+ + 2) and 1 / (n- + 2), so that scores which part
    the classes without error get a finite slope.
    """
    odds, positives = log_odds(score), int(truth.sum())
    target = np.where(truth == 1, (positives + 1) / (positives + 2), 1 / (len(truth) - positives + 2))

    def loss(parameters: Floats) -> tuple[float, Floats]:
        logits = parameters[0] * odds + (parameters[1] if len(parameters) > 1 else 0.0)
        off = expit(logits) - target
        gradient = np.array([(off * odds).mean(), off.mean()])[: len(parameters)]
        return float((np.logaddexp(0, logits) - target * logits).mean()), gradient

    # The loss is convex: wherever the search begins, it ends in the one minimum.
    bounds = [(_FLATTEST, None), (None, None)][: 2 if method == "platt" else 1]
    found = minimize(loss, [1.0, 0.0][: len(bounds)], jac=True, method="L-BFGS-B", bounds=bounds,
                     options={"ftol": 1e-14, "gtol": 1e-9, "maxiter": 1000}).x  # fmt: skip
    return float(found[0]), float(found[1]) if len(found) > 1 else 0.0


def operating_point(score: Floats, truth: Floats, name: PointName, unit: str = "case") -> OperatingPoint:
    """The threshold of an operating point, half-way between two scores, so that no rounding moves a case across it.

    Args:
        score: (n,) raw probabilities.
        truth: (n,) 0 or 1.
        name: of the point.
        unit: what a case is called, for the reasons.
    """
    positive = np.sort(score[truth == 1])
    negative = np.sort(score[truth == 0])
    if few := _too_few(len(positive), len(negative), unit):
        return OperatingPoint(threshold=None, undefined=few)
    levels = np.unique(score)
    between = np.concatenate([[levels[0] / 2], (levels[1:] + levels[:-1]) / 2, [(levels[-1] + 1) / 2]])
    sensitivity = 1 - np.searchsorted(positive, between, side="left") / len(positive)
    specificity = np.searchsorted(negative, between, side="left") / len(negative)
    if name == "youden":
        best = int(np.argmax(sensitivity + specificity))
    else:
        of_positives, wanted = _WANTED[name]
        # Shares of counts: 19 of 20 are 0.95 whatever the last bit says.
        reached = np.flatnonzero((sensitivity if of_positives else specificity) >= wanted - 1e-12)
        best = int(reached[-1] if of_positives else reached[0])
    return OperatingPoint(
        threshold=float(between[best]), sensitivity=float(sensitivity[best]), specificity=float(specificity[best])
    )
