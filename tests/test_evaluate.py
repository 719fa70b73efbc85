"""Evaluation of a fold and of all folds."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import tiny
from resealed import edit

from ichseq.data.index import Index
from ichseq.errors import DataError, RunError
from ichseq.evaluation.evaluate import evaluate_all, evaluate_fold
from ichseq.predictions.read import read_exams
from ichseq.predictions.schema import PREDICTION_COLUMNS
from ichseq.runs.folders import find_leaves, leaf_of
from ichseq.training.train import train_stage


def test_a_fold_is_scored_as_in_training(run_copy: Path, prepared: Path) -> None:
    leaf, index = leaf_of(run_copy, "joint", 0), Index.load(prepared)
    scored = evaluate_fold(leaf, index)
    table, metrics = scored.slices, scored.metrics
    assert set(table["series_uid"]) == {index.series_row(int(i))["series_uid"] for i in index.validation_series(0)}
    best = pd.read_csv(leaf / "history.csv")["valid_weighted_log_loss"].min()
    assert metrics["weighted_log_loss"] == pytest.approx(best, abs=1e-6)
    written = json.loads((leaf / "metrics.json").read_text())
    assert written["weighted_log_loss"] == metrics["weighted_log_loss"]
    assert list(pd.read_parquet(leaf / "predictions.parquet").columns) == list(PREDICTION_COLUMNS)
    exams = read_exams(leaf / "exams.parquet")
    assert list(exams["series_uid"]) == list(table["series_uid"].unique())
    assert np.array_equal(exams["true_any"], table.groupby("series_uid", sort=False)["true_any"].max())
    prior = np.array(json.loads((leaf / "run.json").read_text())["prevalence"])
    assert np.allclose(prior, index.prevalence(index.training_series(0)))


def test_all_folds_cover_each_exam_once(prepared: Path, tmp_path: Path) -> None:
    index = Index.load(prepared)
    config = tiny("joint", "train.epochs=1")
    for fold in range(index.folds):
        train_stage(config, "joint", data=prepared, fold=fold, out=tmp_path / "r", progress=False)
    leaves = find_leaves(tmp_path / "r")
    scored = evaluate_all(leaves, index)
    table, metrics = scored.slices, scored.metrics
    assert len(table) == index.n_slices
    assert metrics["n_exams"] == index.n_series
    assert not table.duplicated("sop_uid").any()
    exams = read_exams(leaves[0].parent / "exams.parquet")
    assert sorted(exams["series_uid"]) == sorted(table["series_uid"].unique())
    with pytest.raises(RunError, match="no run for fold 3"):
        evaluate_all([leaf for leaf in leaves if leaf.name != "fold3"], index)
    with pytest.raises(DataError, match="2 exams in more than one fold's table"):
        evaluate_all([*leaves, leaves[0]], index)
    # A leaf that claims another fold would score patients it has trained on.
    stray = Path(shutil.copytree(leaves[0], tmp_path / "stray" / "joint" / "fold1"))
    edit(stray / "run.json", fold=1)
    with pytest.raises(RunError, match="trained on 2 of the 2 patients"):
        evaluate_fold(stray, index)
