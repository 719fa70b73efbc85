"""Shares with their intervals: sensitivity, specificity and false alarms at operating points, of exams and slices."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from scipy.stats import norm

from ichseq.evaluation.bootstrap import BLOCK_NUMBERS, Floats, Integers, drawn_counts, interval_of
from ichseq.labels import LABELS
from ichseq.predictions.calibration import POINTS, LabelCalibration

_Z: Final = float(norm.ppf(0.975))
Rate = dict[str, Any]


def wilson_interval(hits: int, cases: int) -> list[float]:
    """The 95 % interval of a share (E. B. Wilson, 1927), which keeps a width where all cases or none are hits."""
    share, z2 = hits / cases, _Z**2 / cases
    middle = (share + z2 / 2) / (1 + z2)
    reach = _Z * np.sqrt(share * (1 - share) / cases + z2 / cases / 4) / (1 + z2)
    return [float(max(middle - reach, 0.0)), float(min(middle + reach, 1.0))]


def share_of(hits: np.ndarray, *, per: int = 1) -> Rate:
    """A share of independent cases: value, interval (Wilson's) and cases; None without a case.

    Args:
        hits: bool, a case each.
        per: 1, or 100 for so many in a hundred.
    """
    if not len(hits):
        return {"value": None, "interval": None, "cases": 0}
    count = int(hits.sum())
    interval = [per * end for end in wilson_interval(count, len(hits))]
    return {"value": per * count / len(hits), "interval": interval, "cases": len(hits)}


def points_of_exams(score: Floats, truth: Floats, bleeds: Floats, label: LabelCalibration) -> dict[str, Any]:
    """What each operating point of a label gives on exams.

    Args:
        score: (n,) raw scores.
        truth: (n,) 0, 1, or NaN where unknown.
        bleeds: (n,) the same of bleeding of any kind; exams without it are those of false_alarms_per_100.
        label: its thresholds.
    """
    found: dict[str, Any] = {}
    for name in POINTS:
        threshold = label.points[name].threshold
        if threshold is None:
            found[name] = {"threshold": None}
            continue
        flagged = score >= threshold
        found[name] = {
            "threshold": threshold,
            "sensitivity": share_of(flagged[truth == 1]),
            "specificity": share_of(~flagged[truth == 0]),
            "false_alarms_per_100": share_of(flagged[bleeds == 0], per=100),
        }
    return found


def points_of_slices(
    score: Floats,
    truth: Floats,
    patient: Integers,
    labels: Mapping[str, LabelCalibration],
    *,
    draws: int,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """What each operating point of each label gives on slices.

    Slices of a patient are alike, so the intervals are those of a bootstrap over patients; None of a single one.

    Args:
        score: (n, 6) raw scores.
        truth: (n, 6) 0, 1, or NaN where unknown.
        patient: (n,) numbers from 0.
        labels: their thresholds.
        draws: of the bootstrap.
        seed: of the bootstrap.
    """
    found: dict[str, dict[str, Any]] = {label: {} for label in LABELS}
    places: list[Rate] = []
    columns: list[tuple[np.ndarray, np.ndarray]] = []  # hits and cases of each, a column a rate
    for k, label in enumerate(LABELS):
        for name in POINTS:
            threshold = labels[label].points[name].threshold
            found[label][name] = {"threshold": threshold}
            if threshold is None:
                continue
            flagged = score[:, k] >= threshold
            for rate, of, hits in (("sensitivity", 1, flagged), ("specificity", 0, ~flagged)):
                cases = truth[:, k] == of
                found[label][name][rate] = share_of(hits[cases])
                places.append(found[label][name][rate])
                columns.append((hits & cases, cases))
    for place, interval in zip(places, _intervals(columns, patient, draws, seed), strict=True):
        place["interval"] = interval
    return found


def _intervals(
    columns: Sequence[tuple[np.ndarray, np.ndarray]], patient: Integers, draws: int, seed: int
) -> list[list[float] | None]:
    """Bootstrap intervals of shares, drawn together."""
    patients = int(patient.max()) + 1
    if patients < 2 or not columns:
        return [None] * len(columns)
    hits, cases = (
        np.stack([np.bincount(patient, column[side], minlength=patients) for column in columns], axis=1)
        for side in (0, 1)
    )
    drawn = []
    for counts in drawn_counts(patients, draws, seed, max(1, BLOCK_NUMBERS // patients)):
        often = counts.astype(np.float64)
        with np.errstate(invalid="ignore"):
            drawn.append((often @ hits) / (often @ cases))
    return [interval_of(values) for values in np.concatenate(drawn).T]
