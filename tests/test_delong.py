"""DeLong's variance against every pair counted, against the bootstrap, and where it is not defined."""

import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ichseq.errors import DataError
from ichseq.evaluation.bootstrap import PatientRanks, drawn_counts
from ichseq.evaluation.delong import auc_covariance, delong_test


def draw(n: int = 60, *, per_patient: int = 1, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two scores (2, n) that know something of the truth and tie at times, the truth and the patients."""
    random = np.random.default_rng(seed)
    patient = np.arange(n) // per_patient
    hard = random.normal(size=patient.max() + 1)[patient]
    share = np.where(patient % 2, 0.1, 0.6) if per_patient > 1 else 0.4
    truth = (random.random(n) < share).astype(float)
    scores = np.round(truth + 2 * hard * (per_patient > 1) + random.normal(size=(2, n)), 1)
    return scores, truth, patient


def every_pair(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """DeLong's AUCs and covariance as his paper states them, with a comparison for each pair."""
    up, down = scores[:, truth == 1], scores[:, truth == 0]
    won = (up[:, :, None] > down[:, None, :]) + 0.5 * (up[:, :, None] == down[:, None, :])
    v10, v01 = won.mean(axis=2), won.mean(axis=1)
    return won.mean(axis=(1, 2)), np.cov(v10) / up.shape[1] + np.cov(v01) / down.shape[1]


@pytest.mark.parametrize("seed", range(3))
def test_the_variance_is_that_of_every_pair(seed: int) -> None:
    scores, truth, patient = draw(seed=seed)
    aucs, covariance = auc_covariance(scores, truth, patient)
    expected_aucs, expected = every_pair(scores, truth)
    assert aucs == pytest.approx(expected_aucs)
    assert aucs == pytest.approx([roc_auc_score(truth, row) for row in scores])
    assert covariance == pytest.approx(expected)


def test_of_patients_with_several_slices_it_is_that_of_the_bootstrap() -> None:
    scores, truth, patient = draw(1600, per_patient=8, seed=1)
    _, covariance = auc_covariance(scores, truth, patient)
    _, taken_as_independent = auc_covariance(scores, truth, np.arange(len(truth)))
    ranks = [PatientRanks(row, truth, patient) for row in scores]
    drawn = np.concatenate([np.stack([one.values(counts) for one in ranks])
                            for counts in drawn_counts(patient.max() + 1, 2000, 0, 500)], axis=1)  # fmt: skip
    assert covariance == pytest.approx(np.cov(drawn), rel=0.2)
    assert (np.diag(covariance) > 1.5 * np.diag(taken_as_independent)).all()


def test_the_order_of_the_cases_changes_nothing() -> None:
    scores, truth, patient = draw(per_patient=3)
    mixed = np.random.default_rng(0).permutation(len(truth))
    found = auc_covariance(scores[:, mixed], truth[mixed], 100 - patient[mixed])
    for value, expected in zip(found, auc_covariance(scores, truth, patient), strict=True):
        assert value == pytest.approx(expected)


def test_p_is_uniform_where_two_scores_are_equally_good() -> None:
    found = []
    for seed in range(200):
        random = np.random.default_rng(seed)
        truth = (random.random(120) < 0.4).astype(float)
        scores = truth + random.normal(size=(2, 120))
        found.append(delong_test(*scores, truth, np.arange(120))["p"])
    assert 0.01 <= np.mean(np.array(found) < 0.05) <= 0.10
    assert 0.4 <= np.mean(np.array(found) < 0.5) <= 0.6


def test_a_better_score_is_found_to_be_one() -> None:
    random = np.random.default_rng(0)
    truth = (random.random(400) < 0.3).astype(float)
    good, poor = 3 * truth + random.normal(size=400), 0.5 * truth + random.normal(size=400)
    result = delong_test(good, poor, truth, np.arange(400))
    assert result["p"] < 1e-6
    assert 0 < result["interval"][0] < result["difference"] < result["interval"][1]
    swapped = delong_test(poor, good, truth, np.arange(400))
    assert (swapped["z"], swapped["p"]) == pytest.approx((-result["z"], result["p"]))
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_a_score_does_not_differ_from_itself_or_from_another_scale_of_it() -> None:
    scores, truth, patient = draw()
    result = delong_test(scores[0], np.exp(scores[0]), truth, patient)
    assert (result["difference"], result["z"], result["p"]) == (0, 0, 1)
    assert result["interval"] == pytest.approx([0, 0], abs=1e-7)


def test_unknown_truth_is_left_out() -> None:
    scores, truth, patient = draw()
    some = truth.copy()
    some[::3] = np.nan
    known = ~np.isnan(some)
    expected = delong_test(*scores[:, known], truth[known], patient[known])
    assert delong_test(*scores, some, patient) == expected
    assert expected["cases"] == 40


@pytest.mark.parametrize(
    ("truth", "patients", "words"),
    [
        ([0, 0, 0, 0], [0, 1, 2, 3], "no positive case"),
        ([1, 1, np.nan, 1], [0, 1, 2, 3], "no negative case"),
        ([1, 1, 0, 0], [0, 0, 1, 2], "all positive cases are one patient's"),
        ([1, 1, 0, 0], [0, 1, 2, 2], "all negative cases are one patient's"),
    ],
)
def test_what_is_undefined_says_why(truth: list[float], patients: list[int], words: str) -> None:
    scores = np.arange(8.0).reshape(2, 4)
    result = delong_test(*scores, np.array(truth, float), np.array(patients))
    assert result["undefined"] == words
    assert result["difference"] is result["p"] is result["interval"] is None
    known = ~np.isnan(truth)
    with pytest.raises(DataError, match=words):
        auc_covariance(scores[:, known], np.array(truth, float)[known], np.array(patients)[known])
