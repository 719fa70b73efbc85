"""What figures of discrimination leave open: operating points, reliability, kinds taken for another, subgroups."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from sklearn.metrics import log_loss

from ichseq.evaluation.bootstrap import Floats, clipped_probability
from ichseq.evaluation.curves import curves_of
from ichseq.evaluation.metrics import draws_for, patients_of
from ichseq.evaluation.rates import points_of_exams, points_of_slices
from ichseq.evaluation.reliability import reliability
from ichseq.evaluation.subgroups import subgroups, volume_groups
from ichseq.labels import LABELS
from ichseq.predictions.calibration import Calibration, LabelCalibration
from ichseq.predictions.check import check_scorable

_ANY: Final = LABELS.index("any")
NOT_CALIBRATED: Final = "the run has no calibration; fit one with `ichseq calibrate`"


@dataclass(frozen=True)
class Scans:
    """What is known of the exams beside their scores.

    Attributes:
        known: characteristic -> (n,) a value an exam, as `subgroups.characteristics` gives them.
        volume_ml: (n,) of all bleeding together, of phantoms; None: not known.
    """

    known: Mapping[str, np.ndarray]
    volume_ml: Floats | None = None


def judge(
    slices: pd.DataFrame, exams: pd.DataFrame, scans: Scans, calibration: Calibration | None, *, draws: int = 1000
) -> dict[str, Any]:
    """Judge a prediction table and the table of exams that belongs to it.

    Args:
        slices: a row a slice.
        exams: a row an exam.
        scans: of the exams, in their order.
        calibration: of the run; None: it has none, and operating points are undefined.
        draws: of the bootstrap over patients for the slices' points; fewer above 200,000 slices.

    Returns:
        A dict that is strict JSON: by_slice.<label> and by_exam.<label>, each with reliability, calibrated (log_loss
        and reliability of the calibrated probabilities) and points; confusion.{slices, exams}; subgroups; calibration
        (what it was fitted on); and undefined (dotted name -> why).

    Raises:
        DataError: a table holds something that is no probability or no truth.
    """
    undefined: dict[str, str] = {}
    score, truth = check_scorable(slices, labels_needed=False)
    exam_score, exam_truth = check_scorable(exams, "table of exams", unit="exam", labels_needed=False)
    of_slices, of_exams = (None, None) if calibration is None else (calibration.slices, calibration.exams)
    result: dict[str, Any] = {
        "by_slice": _reliabilities("by_slice", score, truth, of_slices, undefined),
        "by_exam": _reliabilities("by_exam", exam_score, exam_truth, of_exams, undefined),
    }
    if of_slices is not None and of_exams is not None:
        patient, _ = pd.factorize(patients_of(slices), use_na_sentinel=False)
        points = points_of_slices(score, truth, patient, of_slices, draws=draws_for(len(slices), draws))
        for k, label in enumerate(LABELS):
            result["by_slice"][label]["points"] = points[label]
            result["by_exam"][label]["points"] = points_of_exams(
                exam_score[:, k], exam_truth[:, k], exam_truth[:, _ANY], of_exams[label]
            )
        _why_undefined(result, {"by_slice": of_slices, "by_exam": of_exams}, undefined)
    else:
        undefined["points"] = undefined["calibrated"] = NOT_CALIBRATED
    result["confusion"] = {"slices": confusion(score, truth), "exams": confusion(exam_score, exam_truth)}
    of_any = None if of_exams is None else of_exams["any"]
    result["subgroups"] = subgroups(exam_score[:, _ANY], exam_truth[:, _ANY], scans.known, of_any)
    if scans.volume_ml is not None:
        result["subgroups"]["bleed_volume"] = volume_groups(
            exam_score[:, _ANY], exam_truth[:, _ANY], scans.volume_ml, of_any
        )
    result["calibration"] = None if calibration is None else calibration.fitted_on.model_dump()
    return result | {"undefined": undefined}


def curves(slices: pd.DataFrame, exams: pd.DataFrame) -> pd.DataFrame:
    """The curves of slices and of exams, with the columns of `CURVE_COLUMNS`."""
    tables = [
        curves_of(unit, *check_scorable(table, unit, labels_needed=False))
        for unit, table in (("slice", slices), ("exam", exams))
    ]
    return pd.concat(tables, ignore_index=True)


def confusion(score: Floats, truth: Floats) -> dict[str, Any]:
    """Which kind is taken for which, of the cases that have exactly one.

    Args:
        score: (n, 6).
        truth: (n, 6) 0, 1, or NaN where unknown.

    Returns:
        kinds; counts, (5, 5), a row a kind that is there and a column the kind with the highest score; several, how
        many cases have more than one kind and stand in no row.
    """
    kinds = truth[:, :_ANY]
    known = ~np.isnan(kinds).any(axis=1)
    number = np.nansum(kinds, axis=1)
    one = known & (number == 1)
    counts = np.zeros((_ANY, _ANY), np.int64)
    np.add.at(counts, (np.argmax(kinds[one], axis=1), np.argmax(score[one, :_ANY], axis=1)), 1)
    return {"kinds": list(LABELS[:_ANY]), "counts": counts.tolist(), "several": int((known & (number > 1)).sum())}


def _reliabilities(
    name: str, score: Floats, truth: Floats, labels: Mapping[str, LabelCalibration] | None, undefined: dict[str, str]
) -> dict[str, Any]:
    unit, found = name.removeprefix("by_"), {}
    for k, label in enumerate(LABELS):
        known = ~np.isnan(truth[:, k])
        raw = reliability(score[:, k], truth[:, k])
        found[label] = {"reliability": raw, "calibrated": None, "points": None}
        if not known.any():
            undefined[f"{name}.{label}.reliability"] = f"no {unit} with a known label"
        elif labels is not None:
            better = labels[label].probabilities(score[:, k])
            loss = log_loss(truth[known, k], clipped_probability(better[known]), labels=[0, 1])
            found[label]["calibrated"] = {"log_loss": float(loss), "reliability": reliability(better, truth[:, k])}
    return found


def _why_undefined(
    result: Mapping[str, Any], calibrations: Mapping[str, Mapping[str, LabelCalibration]], undefined: dict[str, str]
) -> None:
    """Note why points and rates are None, and of which label nothing was fitted."""
    for name, labels in calibrations.items():
        unit = name.removeprefix("by_")
        for label, fitted in labels.items():
            dotted = f"{name}.{label}"
            if fitted.unchanged is not None:
                undefined[f"{dotted}.calibrated"] = f"left as it is, {fitted.unchanged}"
            for point, of in result[name][label]["points"].items():
                if of["threshold"] is None:
                    undefined[f"{dotted}.points.{point}"] = str(fitted.points[point].undefined)
                    continue
                for rate, kind in (("sensitivity", "positive"), ("specificity", "negative")):
                    if of[rate]["value"] is None:
                        undefined[f"{dotted}.points.{point}.{rate}"] = f"no {kind} {unit}"
