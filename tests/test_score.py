"""Figures with whose they are; the prior is the mean of what the trainings saw."""

from pathlib import Path

import numpy as np
import pytest
from five_slices import five_slices

from ichseq.data.index import Index
from ichseq.evaluation.metrics import evaluate_table
from ichseq.evaluation.score import mean_prevalence, score

ROWS = [[0.1, 0.2, None, 0.2, 0.25, 0.4], [0.3, 0.2, 0.1, 0.0, 0.25, 0.6]]
TABLE = five_slices(patients="ppqqq", truth=[0, 0, 1, 0, 1])


def test_the_prior_is_the_mean_by_label() -> None:
    mean = mean_prevalence(ROWS)
    assert mean is not None
    assert mean == pytest.approx([0.2, 0.2, None, 0.1, 0.25, 0.5])
    assert mean_prevalence(ROWS[:1]) == ROWS[0]
    assert mean_prevalence([ROWS[1], None]) == [None] * 6
    assert mean_prevalence([]) is None


def test_figures_say_whose_they_are_and_of_which_set(prepared: Path) -> None:
    index = Index.load(prepared)
    metrics = score(TABLE, ROWS, index, run="runs/x", folds=[0, 1])
    figures = evaluate_table(TABLE, mean_prevalence(ROWS))
    assert metrics == figures | {"run": "runs/x", "folds": [0, 1], "data_key": index.key, "phantom": index.phantom}
    losses = -np.log([0.5, 0.5])
    assert metrics["prior_weighted_log_loss"] == pytest.approx(losses.mean())


def test_of_a_set_that_is_not_known_nothing_is_claimed() -> None:
    assert score(TABLE, []) == evaluate_table(TABLE, None)
