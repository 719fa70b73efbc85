"""Calibration: what was distorted comes back, few cases change nothing, and points reach what they are named for."""

import numpy as np
import pandas as pd
import pytest
from five_slices import five_slices
from pydantic import ValidationError
from scipy.special import expit, logit
from sklearn.metrics import log_loss

from ichseq.errors import ConfigError
from ichseq.evaluation.calibration import FEWEST, fit_calibration, fit_label, operating_point
from ichseq.labels import LABELS
from ichseq.predictions.calibration import (
    CALIBRATED,
    FLAGGED,
    POINTS,
    Calibration,
    FittedOn,
    LabelCalibration,
    with_calibration,
)

FITTED_ON = FittedOn(data_key="0123456789abcdef", phantom=True, folds=[0, 1], slices=5, exams=2, patients=2, bag=0,
                     tta=[])  # fmt: skip


def draw(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, and a truth that is drawn with exactly these."""
    random = np.random.default_rng(seed)
    probability = expit(random.normal(-1, 1.5, n))
    return probability, (random.random(n) < probability).astype(float)


@pytest.mark.parametrize("method", ["platt", "temperature"])
@pytest.mark.parametrize("temperature", [0.5, 1, 3])
def test_a_known_temperature_is_recovered(method: str, temperature: float) -> None:
    probability, truth = draw(20_000)
    fitted = fit_label(expit(logit(probability) / temperature), truth, "slice", method)
    assert fitted.slope == pytest.approx(temperature, rel=0.05)
    assert fitted.intercept == pytest.approx(0, abs=0.06 if method == "platt" else 0)
    again = fitted.probabilities(expit(logit(probability) / temperature))
    assert np.abs(again - probability).max() < 0.03
    assert fitted.unchanged is None


def test_a_known_shift_is_recovered_by_platt_alone() -> None:
    probability, truth = draw(20_000)
    shifted = expit(logit(probability) + 2)
    platt, temperature = (fit_label(shifted, truth, "exam", method) for method in ("platt", "temperature"))
    assert (platt.slope, platt.intercept) == pytest.approx((1, -2), abs=0.07)
    losses = [log_loss(truth, fitted.probabilities(shifted)) for fitted in (platt, temperature)]
    assert losses[0] < losses[1] < log_loss(truth, shifted)


def test_unknown_truth_does_not_enter() -> None:
    probability, truth = draw(500)
    some = truth.copy()
    some[::3] = np.nan
    kept = ~np.isnan(some)
    assert fit_label(probability, some, "slice") == fit_label(probability[kept], truth[kept], "slice")


def test_scores_that_part_the_classes_keep_a_finite_slope() -> None:
    truth = np.repeat([0.0, 1.0], 40)
    fitted = fit_label(np.where(truth == 1, 0.7, 0.3), truth, "exam")
    assert 1 < fitted.slope < 20
    assert fitted.probabilities(np.array([0.3, 0.7])) == pytest.approx([1 / 42, 41 / 42], abs=1e-4)


@pytest.mark.parametrize(
    ("positives", "negatives", "words"),
    [
        (FEWEST - 1, 50, "9 positive exams; 10 are needed"),
        (1, 50, "1 positive exam; 10 are needed"),
        (50, 0, "0 negative exams; 10 are needed"),
        (0, 0, "0 positive exams; 10 are needed"),
    ],
)
def test_of_too_few_cases_nothing_is_learned(positives: int, negatives: int, words: str) -> None:
    truth = np.repeat([1.0, 0.0], [positives, negatives])
    score = np.linspace(0.1, 0.9, len(truth))
    fitted = fit_label(score, truth, "exam")
    assert fitted.unchanged == words
    assert np.array_equal(fitted.probabilities(score), score)
    assert all(np.isnan(fitted.flags(score, name)).all() for name in POINTS)
    assert {point.undefined for point in fitted.points.values()} == {words}


def test_a_score_that_falls_where_it_should_rise_is_left_alone() -> None:
    probability, truth = draw(2000)
    fitted = fit_label(1 - probability, truth, "slice")
    assert fitted.unchanged == "the score does not rise where the slice is positive"
    assert np.array_equal(fitted.probabilities(probability), probability)


@pytest.mark.parametrize("decimals", [1, 2, 12])
def test_points_reach_what_they_are_named_for_and_no_more_than_needed(decimals: int) -> None:
    probability, truth = draw(300, seed=decimals)
    score = np.round(probability, decimals)
    positive, negative = score[truth == 1], score[truth == 0]
    for name in POINTS:
        point = operating_point(score, truth, name)
        flagged = score >= point.threshold
        assert point.sensitivity == pytest.approx(flagged[truth == 1].mean())
        assert point.specificity == pytest.approx(1 - flagged[truth == 0].mean())
        assert np.min(np.abs(score - point.threshold)) > 1e-9 or decimals == 12
        if name.startswith("sensitivity"):
            wanted = float(name.partition("-")[2])
            above = positive[positive > np.min(positive[positive >= point.threshold])]
            assert (positive >= point.threshold).mean() >= wanted > len(above) / len(positive)
        elif name.startswith("specificity"):
            below = negative[negative < np.max(negative[negative < point.threshold])]
            assert (negative < point.threshold).mean() >= 0.9 > len(below) / len(negative)
        else:
            each = [(positive >= t).mean() + (negative < t).mean() for t in np.unique(score)]
            assert point.sensitivity + point.specificity == pytest.approx(max(each))


def test_nineteen_of_twenty_are_0_95() -> None:
    score = np.concatenate([np.linspace(0.5, 0.9, 20), np.linspace(0.1, 0.4, 20)])
    point = operating_point(score, np.repeat([1.0, 0.0], 20), "sensitivity-0.95")
    assert (point.sensitivity, point.specificity) == (0.95, 1)


def exam_table(n: int = 200) -> pd.DataFrame:
    random = np.random.default_rng(0)
    truth = (random.random((n, 6)) < 0.3).astype(float)
    score = expit(2 * truth - 1 + random.normal(size=(n, 6)))
    table = pd.DataFrame(np.hstack([score, truth]), columns=[*LABELS, *(f"true_{label}" for label in LABELS)])
    return table.assign(true_epidural=0.0)


def test_a_table_keeps_what_it_has_and_gets_two_columns_a_label() -> None:
    table = exam_table()
    calibration = fit_calibration(table, table, FITTED_ON)
    result = with_calibration(table, calibration.exams, "sensitivity-0.9")
    pd.testing.assert_frame_equal(result[table.columns], table)
    assert list(result.columns[len(table.columns) :]) == [
        column for pair in zip(CALIBRATED, FLAGGED, strict=True) for column in pair
    ]
    assert result["flagged_any"][table["true_any"] == 1].mean() >= 0.9
    assert result["calibrated_any"].mean() == pytest.approx(table["true_any"].mean(), abs=0.01)
    assert np.array_equal(result["any"].rank(), result["calibrated_any"].rank())
    assert result["flagged_epidural"].isna().all()
    assert np.array_equal(result["calibrated_epidural"], table["epidural"])
    with pytest.raises(ConfigError, match="no operating point 'youdon'; there are sensitivity-0"):
        with_calibration(table, calibration.exams, "youdon")


def test_slices_and_exams_are_fitted_apart() -> None:
    slices, exams = exam_table(300), exam_table(100)
    exams[list(LABELS)] = exams[list(LABELS)] ** 2
    calibration = fit_calibration(slices, exams, FITTED_ON, "temperature")
    assert calibration.slices["any"].positives == (slices["true_any"] == 1).sum()
    assert calibration.exams["any"].positives == (exams["true_any"] == 1).sum()
    assert calibration.slices["any"].slope != calibration.exams["any"].slope
    few = fit_calibration(five_slices(truth=[0, 1, 0, 1, 1]), exams, FITTED_ON)
    assert few.slices["any"].unchanged == "3 positive slices; 10 are needed"


def test_its_content_is_strict() -> None:
    calibration = fit_calibration(exam_table(), exam_table(), FITTED_ON)
    content = calibration.model_dump()
    assert Calibration.model_validate(content) == calibration
    for key, value in (("version", 2), ("method", "isotonic"), ("shape", 1), ("exams", {})):
        with pytest.raises(ValidationError, match=key):
            Calibration.model_validate(content | {key: value})
    label = content["slices"]["any"]
    for wrong in ({"slope": 0.0}, {"slope": "1"}, {"intercept": float("nan")}, {"points": {}}, {"shift": 1.0}):
        with pytest.raises(ValidationError):
            LabelCalibration.model_validate(label | wrong)


def test_what_it_was_fitted_on_in_words() -> None:
    assert FITTED_ON.words() == "2 exams of 2 patients, folds 0, 1 of set 0123456789ab, made-up scans (phantoms)"
    other = FITTED_ON.model_copy(update={"folds": [], "phantom": False, "exams": 1234})
    assert other.words() == "1,234 exams of 2 patients, set 0123456789ab"
