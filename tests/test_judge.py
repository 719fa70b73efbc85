"""Judging tables: figures where they are defined, reasons where not, and kinds counted by hand."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from sklearn.metrics import log_loss
from test_calibration import FITTED_ON
from test_metrics import PRIOR, make_table

from ichseq.evaluation.calibration import fit_calibration
from ichseq.evaluation.judge import NOT_CALIBRATED, Scans, confusion, curves, judge
from ichseq.evaluation.metrics import evaluate_table
from ichseq.labels import LABELS
from ichseq.predictions.calibration import POINTS
from ichseq.predictions.schema import TRUTH, exam_rows

NAMES, TRUE = list(LABELS), list(TRUTH)


def exams_of(table: pd.DataFrame) -> pd.DataFrame:
    """The table of exams, scored by the highest slice, their truth that of the slices."""
    series = [of for _, of in table.groupby("series_uid", sort=False)]
    truth = np.array([of[TRUE].max() for of in series])
    return exam_rows(series, [[] for _ in series], truth=truth)


def tables(patients: int = 120, slices: int = 6) -> tuple[pd.DataFrame, pd.DataFrame, Scans]:
    table = make_table(patients, slices)
    exams = exams_of(table)
    return table, exams, Scans({"slices": exams["n_slices"].to_numpy(dtype=np.float64)})


def test_figures_of_exams_are_those_of_their_table() -> None:
    slices, exams, _ = tables()
    plain = evaluate_table(slices, PRIOR, draws=20)
    result = evaluate_table(slices, PRIOR, exams=exams, draws=20)
    for name, value in plain.items():
        if name not in ("intervals", "undefined"):
            assert result[name] == value, name
    assert plain["intervals"].items() <= result["intervals"].items()
    assert result["by_exam"]["any"]["auc"] == result["exam"]["auc_any"]
    exams[NAMES] = 1 - exams[NAMES]
    turned = evaluate_table(slices, PRIOR, exams=exams, draws=20)
    assert turned["labels"] == plain["labels"]
    assert turned["exam"]["auc_any"] == pytest.approx(1 - plain["exam"]["auc_any"])
    low, high = turned["intervals"]["by_exam.any.auc"]
    assert low <= turned["by_exam"]["any"]["auc"] <= high
    assert turned["by_exam"]["any"]["log_loss"] == pytest.approx(log_loss(exams["true_any"], exams["any"]))


def test_exams_alone_can_be_known() -> None:
    slices, exams, scans = tables()
    slices[TRUE] = np.nan
    result = evaluate_table(slices, PRIOR, exams=exams, draws=20)
    assert result["weighted_log_loss"] is result["labels"]["any"]["auc"] is None
    assert result["undefined"]["weighted_log_loss"] == "no slice with a known label"
    assert result["intervals"]["ratio_to_prior"] is None
    assert result["exam"]["auc_any"] > 0.5
    judged = judge(slices, exams, scans, fit_calibration(slices, exams, FITTED_ON))
    assert judged["undefined"]["by_slice.any.reliability"] == "no slice with a known label"
    assert judged["undefined"]["by_slice.any.calibrated"] == "left as it is, 0 positive slices; 10 are needed"
    assert judged["by_exam"]["any"]["points"]["youden"]["sensitivity"]["value"] > 0.5
    assert json.loads(json.dumps(judged | result, allow_nan=False)) == judged | result


def test_calibrated_figures_are_better_where_the_scores_were_distorted() -> None:
    slices, exams, scans = tables(400)
    for table in (slices, exams):
        table[NAMES] = expit(4 * logit(table[NAMES].clip(0.001, 0.999)) + 3)
    judged = judge(slices, exams, scans, fit_calibration(slices, exams, FITTED_ON))
    for name in ("by_slice", "by_exam"):
        of = judged[name]["subdural"]
        assert of["calibrated"]["reliability"]["expected_error"] < 0.5 * of["reliability"]["expected_error"]
        known = {"by_slice": slices, "by_exam": exams}[name]
        assert of["calibrated"]["log_loss"] < log_loss(known["true_subdural"], known["subdural"].clip(1e-5, 1 - 1e-5))
    for point in POINTS[:2]:
        wanted = float(point.partition("-")[2])
        for name in ("by_slice", "by_exam"):
            assert judged[name]["any"]["points"][point]["sensitivity"]["value"] >= wanted
    assert judged["calibration"] == FITTED_ON.model_dump()
    assert json.loads(json.dumps(judged, allow_nan=False)) == judged


def test_without_a_calibration_points_are_undefined_and_say_why() -> None:
    judged = judge(*tables(), None)
    assert judged["undefined"] == {"points": NOT_CALIBRATED, "calibrated": NOT_CALIBRATED}
    assert judged["by_exam"]["any"]["points"] is judged["calibration"] is None
    assert judged["subgroups"]["slices"][0]["points"] == {}
    assert judged["by_exam"]["any"]["reliability"]["expected_error"] > 0


def test_of_exams_of_one_class_each_figure_says_why() -> None:
    slices, exams, scans = tables()
    calibration = fit_calibration(slices, exams, FITTED_ON)
    rows = (exams["true_any"] == 1).to_numpy()
    some = slices[slices["series_uid"].isin(exams["series_uid"][rows])]
    bleeding = exams[rows]
    judged = judge(some, bleeding, Scans({name: of[rows] for name, of in scans.known.items()}), calibration)
    point = judged["by_exam"]["any"]["points"]["youden"]
    assert point["sensitivity"]["cases"] == rows.sum()
    assert point["specificity"] == point["false_alarms_per_100"] == {"value": None, "interval": None, "cases": 0}
    assert judged["undefined"]["by_exam.any.points.youden.specificity"] == "no negative exam"


def test_kinds_by_hand() -> None:
    score = np.array([[0.9, 0.2, 0, 0, 0, 1], [0.1, 0.2, 0, 0, 0.3, 1], [0.9, 0, 0, 0, 0, 1], [0.9, 0, 0, 0, 0, 1],
                      [0.9, 0, 0, 0, 0, 1]])  # fmt: skip
    truth = np.array([[1, 0, 0, 0, 0, 1], [0, 1, 0, 0, 0, 1], [1, 1, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0],
                      [1, np.nan, 0, 0, 0, 1]])  # fmt: skip
    found = confusion(score, truth)
    expected = np.zeros((5, 5))
    expected[0, 0] = expected[1, 4] = 1
    assert np.array_equal(found["counts"], expected)
    assert (found["several"], found["kinds"]) == (1, NAMES[:5])


def test_curves_are_of_both_units() -> None:
    slices, exams, _ = tables()
    found = curves(slices, exams)
    assert set(found["unit"]) == {"slice", "exam"}
    assert set(found["label"]) == set(LABELS)
