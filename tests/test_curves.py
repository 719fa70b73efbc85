"""Curves hold the AUC and the average precision that they are drawn for, and begin and end where they have to."""

import numpy as np
import pytest
from sklearn.metrics import auc, average_precision_score, roc_auc_score

from ichseq.evaluation.curves import CURVE_COLUMNS, MOST_ROWS, curve_of, curves_of
from ichseq.labels import LABELS


def draw(n: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    truth = (random.random(n) < 0.2).astype(float)
    return np.round(truth + random.normal(size=n), 1 if n < 1000 else 6), truth


@pytest.mark.parametrize("n", [40, 300, 20_000])
def test_the_areas_are_the_figures(n: int) -> None:
    score, truth = draw(n)
    curve = curve_of(score, truth)
    assert len(curve) <= MOST_ROWS + 2
    sensitivity = np.append(0, curve["sensitivity"])
    area = auc(np.append(0, 1 - curve["specificity"]), sensitivity)
    assert area == pytest.approx(roc_auc_score(truth, score), abs=1e-9 if n < 1000 else 2e-3)
    precision = (np.diff(sensitivity) * curve["precision"]).sum()
    assert precision == pytest.approx(average_precision_score(truth, score), abs=1e-9 if n < 1000 else 1e-2)
    for row in curve.iloc[:: max(1, len(curve) // 20)].itertuples():
        flagged = score >= row.threshold
        assert row.sensitivity == pytest.approx(flagged[truth == 1].mean())
        assert row.specificity == pytest.approx(1 - flagged[truth == 0].mean())
        assert row.precision == pytest.approx(truth[flagged].mean())
    assert (curve["sensitivity"].iloc[-1], curve["specificity"].iloc[-1]) == (1, 0)


def test_a_label_of_one_class_has_no_curve() -> None:
    random = np.random.default_rng(0)
    score, truth = random.random((50, 6)), (random.random((50, 6)) < 0.5).astype(float)
    truth[:, 0], truth[:, 1], truth[:25, 2] = 0, np.nan, np.nan
    curves = curves_of("exam", score, truth)
    assert list(curves.columns) == list(CURVE_COLUMNS)
    assert set(curves["label"]) == set(LABELS[2:])
    assert len(curves[curves["label"] == LABELS[2]]) == 25
