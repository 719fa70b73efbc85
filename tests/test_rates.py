"""Shares and their intervals: against published numbers, counted cases, and a bootstrap by hand."""

import numpy as np
import pytest
from scipy.special import expit

from ichseq.evaluation.calibration import fit_label
from ichseq.evaluation.rates import points_of_exams, points_of_slices, share_of, wilson_interval
from ichseq.labels import LABELS
from ichseq.predictions.calibration import POINTS


def draw(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    truth = (random.random((n, 6)) < 0.3).astype(float)
    truth[:, 5] = truth[:, :5].max(axis=1)
    return expit(2 * truth - 1 + random.normal(size=(n, 6))), truth


def test_wilsons_interval_is_the_published_one() -> None:
    """Newcombe, Statistics in Medicine 17 (1998), table I, method 3."""
    for hits, cases, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611),
                                   (1, 29, 0.0061, 0.1718)):  # fmt: skip
        assert wilson_interval(hits, cases) == pytest.approx([low, high], abs=5e-5)
    assert wilson_interval(20, 20) == pytest.approx([1 - 0.1611, 1], abs=5e-5)


def test_wilsons_interval_holds_the_share_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    intervals = [wilson_interval(int(hits), 40) for hits in random.binomial(40, 0.9, 4000)]
    assert 0.93 < np.mean([low <= 0.9 <= high for low, high in intervals]) < 0.975


def test_a_share_is_counted() -> None:
    assert share_of(np.array([True, False, True, True]))["value"] == 0.75
    in_a_hundred = share_of(np.array([True, False]), per=100)
    assert (in_a_hundred["value"], in_a_hundred["cases"]) == (50, 2)
    assert in_a_hundred["interval"] == pytest.approx([100 * end for end in wilson_interval(1, 2)])
    assert share_of(np.zeros(0, bool)) == {"value": None, "interval": None, "cases": 0}


def test_on_the_set_that_they_were_found_on_points_give_what_is_noted() -> None:
    score, truth = draw(400)
    truth[::7, 2] = np.nan
    fitted = fit_label(score[:, 2], truth[:, 2], "exam")
    found = points_of_exams(score[:, 2], truth[:, 2], truth[:, 5], fitted)
    for name in POINTS:
        assert found[name]["sensitivity"]["value"] == pytest.approx(fitted.points[name].sensitivity)
        assert found[name]["specificity"]["value"] == pytest.approx(fitted.points[name].specificity)
        assert found[name]["sensitivity"]["cases"] == fitted.positives
        alarms = score[truth[:, 5] == 0, 2] >= fitted.points[name].threshold
        assert found[name]["false_alarms_per_100"]["value"] == pytest.approx(100 * alarms.mean())
        assert found[name]["false_alarms_per_100"]["cases"] == len(alarms)


def test_on_another_set_the_interval_holds_what_was_wanted() -> None:
    """Drawn anew from the same scans, the sensitivity lies within chance of the fitted one."""
    inside = []
    for seed in range(40):
        score, truth = draw(1500, seed)
        fitted = fit_label(score[:1000, 5], truth[:1000, 5], "exam")
        point = points_of_exams(score[1000:, 5], truth[1000:, 5], truth[1000:, 5], fitted)["sensitivity-0.9"]
        low, high = point["sensitivity"]["interval"]
        inside.append(low <= 0.9 <= high)
    assert np.mean(inside) >= 0.8


def test_intervals_of_slices_are_a_bootstrap_over_patients() -> None:
    score, truth = draw(600)
    patient = np.arange(600) // 30
    score = np.clip(score + 0.2 * (patient % 3 - 1)[:, None], 0.001, 0.999)
    labels = {label: fit_label(score[:, k], truth[:, k], "slice") for k, label in enumerate(LABELS)}
    found = points_of_slices(score, truth, patient, labels, draws=400)
    threshold = labels["any"].points["youden"].threshold
    sensitivity = found["any"]["youden"]["sensitivity"]
    positive = truth[:, 5] == 1
    assert sensitivity["value"] == pytest.approx((score[positive, 5] >= threshold).mean())
    random = np.random.default_rng(5)
    drawn = []
    for _ in range(400):
        rows = np.concatenate([np.flatnonzero((patient == p) & positive) for p in random.integers(20, size=20)])
        drawn.append((score[rows, 5] >= threshold).mean())
    assert sensitivity["interval"] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.02)
    low, high = wilson_interval(round(sensitivity["value"] * positive.sum()), int(positive.sum()))
    assert high - low < sensitivity["interval"][1] - sensitivity["interval"][0]  # slices of a patient are alike
    alone = points_of_slices(score, truth, np.zeros(600, int), labels, draws=10)
    assert alone["any"]["youden"]["sensitivity"] == sensitivity | {"interval": None}
