"""Shares of slice head and sequence part: the best blend by label, fitted after training and kept with the weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss

from ichseq import Model
from ichseq.data.index import Index
from ichseq.evaluation.evaluate import evaluate_fold
from ichseq.labels import LABELS
from ichseq.training.share import best_shares
from ichseq.training.train import train_stage


def blend_loss(share: float, truth: np.ndarray, one: np.ndarray, other: np.ndarray) -> float:
    return float(log_loss(truth, 1 / (1 + np.exp(-(share * one + (1 - share) * other)))))


def test_the_share_with_the_lowest_log_loss_is_found() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(400, 6, generator=generator) < 0.3).float()
    one, other = (2 * labels - 1 + s * torch.randn(400, 6, generator=generator) for s in (1.0, 1.5))
    one[:, 0], other[:, 1] = labels[:, 0] * 4 - 2, labels[:, 1] * 4 - 2
    labels[:, 4], labels[:, 5] = 0, torch.nan
    labels[::3, 2] = torch.nan
    found = best_shares(one, other, labels)
    assert (found[0], found[4], found[5]) == (1, 1, 1)
    for k in (1, 2, 3):
        known = ~labels[:, k].isnan()
        truth, a, b = (x[known, k].double().numpy() for x in (labels, one, other))
        best = minimize_scalar(blend_loss, bounds=(0, 1), args=(truth, a, b), method="bounded").x
        assert found[k] == pytest.approx(best, abs=0.011)
    assert 0 < found[2] < 1


def test_it_is_fitted_after_training_and_prediction_applies_it(prepared: Path, tmp_path: Path) -> None:
    index, losses = Index.load(prepared), []
    for name in ("plain", "fitted"):
        config = tiny("joint", "train.keep_epochs=1", f"train.fit_share={name == 'fitted'}".lower())
        leaf = train_stage(config, "joint", data=prepared, fold=0, out=tmp_path / name, progress=False)
        losses.append(evaluate_fold(leaf, index).metrics["weighted_log_loss"])
    assert "share" not in json.loads((tmp_path / "plain" / "joint" / "fold0" / "model.json").read_text())
    share = Model.load(leaf).sequence_share
    assert share is not None
    assert share == Model.load(leaf / "epochs" / "epoch-002").sequence_share
    assert all(0 <= one <= 1 for one in share)
    assert min(share) < 1
    assert losses[1] < losses[0]
    assert f"share of the sequence part, fitted on fold 0: {LABELS[0]} {share[0]:g}" in (leaf / "log.txt").read_text()
    start = train_stage(tiny("joint"), "joint", data=prepared, fold=0, out=tmp_path / "next", init=leaf, progress=False)
    assert Model.load(start).sequence_share is None  # other weights, another share


def test_with_an_exam_head_its_share_is_fitted_too(prepared: Path, tmp_path: Path) -> None:
    config = tiny("joint", "model.exam=attention", "train.fit_share=true", "train.epochs=1")
    leaf = train_stage(config, "joint", data=prepared, fold=0, out=tmp_path, progress=False)
    share = Model.load(leaf).exam_share
    assert share is not None
    assert all(0 <= one <= 1 for one in share)
    assert f"share of the exam head, fitted on fold 0: {LABELS[0]} {share[0]:g}" in (leaf / "log.txt").read_text()
