"""The expected calibration error of answers that are right, that are too sure, and of none."""

import numpy as np
import pytest
from scipy.special import expit, logit

from ichseq.evaluation.reliability import BINS, reliability


def draw(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    probability = random.random(n)
    return probability, (random.random(n) < probability).astype(float)


def test_the_error_of_right_answers_goes_to_nothing() -> None:
    errors = [
        np.mean([reliability(*draw(n, seed))["expected_error"] for seed in range(20)]) for n in (100, 1600, 25600)
    ]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert errors[2] < 0.01


def test_answers_that_are_too_sure_keep_theirs() -> None:
    probability, truth = draw(50_000)
    sure = expit(3 * logit(probability))
    expected = np.abs(sure - probability).mean()
    assert reliability(sure, truth)["expected_error"] == pytest.approx(expected, abs=0.02)
    assert expected > 0.1


def test_by_hand() -> None:
    found = reliability(np.array([0.0, 0.05, 0.15, 1.0, 0.5]), np.array([0, 1, 0, 1, np.nan]))
    bins = found["bins"]
    assert len(bins) == BINS
    assert [of["cases"] for of in bins] == [2, 1, 0, 0, 0, 0, 0, 0, 0, 1]
    assert (bins[0]["mean_answer"], bins[0]["share_positive"]) == (0.025, 0.5)
    assert (bins[9]["mean_answer"], bins[9]["share_positive"]) == (1, 1)
    assert (bins[2]["mean_answer"], bins[2]["share_positive"]) == (None, None)
    assert found["expected_error"] == pytest.approx((2 * 0.475 + 0.15 + 0) / 4)


def test_without_a_known_case_there_is_no_error() -> None:
    found = reliability(np.array([0.2]), np.array([np.nan]))
    assert found["expected_error"] is None
    assert sum(of["cases"] for of in found["bins"]) == 0
