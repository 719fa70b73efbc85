"""Training of several folds, and on every patient."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from conftest import TINY

from ichseq import Model
from ichseq.cli import main
from ichseq.config import ModelConfig, settings_of_start
from ichseq.data.index import ALL_PATIENTS, Index
from ichseq.errors import RunError
from ichseq.evaluation.evaluate import evaluate_all, evaluate_fold
from ichseq.runs.folders import find_leaves
from ichseq.training.folds import train_folds

SHORT = [*TINY, "train.epochs=1"]


def test_each_fold_in_turn_and_their_predictions_together(prepared: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = ["train", "--fold", "all", "--data", str(prepared), "-o", str(run)]
    result = CliRunner().invoke(main, arguments + [part for setting in SHORT for part in ("--set", setting)])
    assert result.exit_code == 0, result.output
    assert "weighted log loss" in result.output
    index = Index.load(prepared)
    leaves = find_leaves(run)
    assert [leaf.name for leaf in leaves] == [f"fold{k}" for k in range(index.folds)]
    table = pd.read_parquet(run / "joint" / "predictions.parquet")
    assert len(table) == index.n_slices
    assert not table.duplicated("sop_uid").any()


def test_what_was_not_begun_is_trained_when_all_are_resumed(prepared: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (first,) = train_folds("joint", [2], overrides=SHORT, data=prepared, out=run, progress=False)
    before = (first / "weights.safetensors").stat().st_mtime_ns
    folds = range(Index.load(prepared).folds)
    train_folds("joint", folds, overrides=SHORT, data=prepared, out=run, resume=True, progress=False)
    assert len(find_leaves(run)) == len(folds)
    assert (first / "weights.safetensors").stat().st_mtime_ns == before
    with pytest.raises(RunError, match="nothing to resume"):
        train_folds("slice", [0], data=prepared, out=run, resume=True, progress=False)


def test_all_patients_are_trained_on_and_none_is_left_to_score(prepared: Path, tmp_path: Path) -> None:
    index, run = Index.load(prepared), tmp_path / "run"
    assert len(index.training_series(ALL_PATIENTS)) == index.n_series
    assert len(index.validation_series(ALL_PATIENTS)) == 0
    (leaf,) = train_folds("joint", [ALL_PATIENTS], overrides=SHORT, data=prepared, out=run, progress=False)
    assert leaf == run / "joint" / "all-patients"
    assert find_leaves(run) == [leaf]
    assert len(json.loads((leaf / "run.json").read_text())["patients"]) == len(
        np.unique(index.series_column("patient_id"))
    )
    assert pd.read_csv(leaf / "history.csv")["valid_loss"].isna().all()
    assert Model.load(leaf).trained_on["fold"] == ALL_PATIENTS
    with pytest.raises(RunError, match="trained on every patient"):
        evaluate_fold(leaf, index)
    with pytest.raises(RunError, match="no run for fold 0, 1, 2, 3, 4"):
        evaluate_all([leaf], index)
    with pytest.raises(RunError, match="patients of this set's fold 0"):
        train_folds("joint", [0], overrides=SHORT, data=prepared, out=run, init=run, progress=False)


def test_a_run_takes_over_what_its_start_is_unless_it_is_set(prepared: Path, run: Path, tmp_path: Path) -> None:
    training = [setting for setting in SHORT if setting.startswith("train.")]
    asked = {"data": prepared, "init": run, "progress": False}
    (leaf,) = train_folds("frozen", [0], overrides=training, out=tmp_path / "taken", **asked)
    start, taken = (Model.load(folder, device="cpu").config for folder in (run / "joint" / "fold0", leaf))
    assert settings_of_start(taken) == settings_of_start(start)
    changed = [*training, "model.hidden_size=6", "model.exam=pooled"]
    (leaf,) = train_folds("frozen", [0], overrides=changed, out=tmp_path / "set", **asked)
    found = Model.load(leaf, device="cpu").config
    assert (found.backbone, found.hidden_size, found.exam) == (start.backbone, 6, "pooled")
    with pytest.raises(RunError, match=r"its model\.backbone is 'test_resnet', this run's 'resnet18'"):
        train_folds("frozen", [0], overrides=["model.backbone=resnet18"], out=tmp_path / "other", **asked)


def test_the_start_of_a_run_that_has_no_sequence_part_leaves_it_to_the_settings(prepared: Path, tmp_path: Path) -> None:
    asked = {"data": prepared, "out": tmp_path / "run", "progress": False}
    train_folds("slice", [0], overrides=[*SHORT, "model.sequence=none"], **asked)
    (leaf,) = train_folds("frozen", [0], overrides=["train.epochs=1"], init=tmp_path / "run", **asked)
    found = Model.load(leaf, device="cpu").config
    assert (found.backbone, found.sequence) == ("test_resnet", ModelConfig().sequence)
