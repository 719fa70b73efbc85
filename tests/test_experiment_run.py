"""Running experiments: what they share is trained once, what is stopped goes on, and bags hold what they should."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from resealed import edit

from ichseq import Model
from ichseq.cli import main
from ichseq.data.index import ALL_PATIENTS, Index
from ichseq.data.prepare import prepare
from ichseq.errors import ConfigError, DataError
from ichseq.experiment import run as running
from ichseq.experiment.run import Runner
from ichseq.experiment.spec import load_spec
from ichseq.inference.model_ensemble import ModelEnsemble
from ichseq.inference.predict import predict_prepared
from ichseq.labels import LABELS
from ichseq.phantom import write_phantoms
from ichseq.predictions.smooth import WEIGHTED, clip, smooth
from ichseq.runs.folders import models_of

BASE = """
model: {backbone: test_resnet, pretrained: false, image_size: 32, hidden_size: 8}
train: {warmup_steps: 2, workers: 1, patients_per_batch: 4}
slice: {epochs: 2, backbone_lr: 1e-3, sequence_lr: 1e-3, slices_per_batch: 64}
frozen: {epochs: 2, sequence_lr: 1e-3}
experiment: {stages: [slice, frozen], folds: [1], slice_bag: 2, bag: 2}
"""


@contextmanager
def no_bar(_name: str, _unit: str) -> Iterator[Callable[[int, int], None]]:
    yield lambda _done, _total: None


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "experiments"
    folder.mkdir()
    (folder / "base.yaml").write_text(BASE)
    (folder / "gru.yaml").write_text("base: base.yaml\nmodel: {sequence: gru}\nexperiment: {slice_bag: 1, bag: 1}")
    (folder / "slices.yaml").write_text("base: base.yaml\nexperiment: {stages: [slice], smooth: weighted, bag: 1}")
    (folder / "both.yaml").write_text("experiment: {blend: [gru.yaml, slices.yaml], folds: [1]}")
    return folder


def runner(data: Path, runs: Path) -> Runner:
    return Runner(data, runs, bar=no_bar)


def test_an_experiment_leaves_its_table_its_figures_and_its_cost(prepared: Path, files: Path, tmp_path: Path) -> None:
    index = Index.load(prepared)
    out = runner(prepared, tmp_path / "runs").run(load_spec(files / "base.yaml"))
    assert out == tmp_path / "runs" / "results" / "base"
    table, metrics = pd.read_parquet(out / "predictions.parquet"), json.loads((out / "metrics.json").read_text())
    assert len(table) == index.lengths[index.validation_series(1)].sum()
    assert (metrics["name"], metrics["folds"], metrics["data_key"]) == ("base", [1], index.key)
    assert metrics["weighted_log_loss"] < 2
    rows = json.loads((out / "cost.json").read_text())["stages"]
    assert [row["stage"] for row in rows] == ["slice", "frozen", "frozen"]  # an LSTM for each epoch of the slice stage
    assert [row["passes"] for row in rows] == [2, 2, 2]
    assert rows[0]["slices"] == 2 * index.lengths[index.training_series(1)].sum()
    assert [row["embedded_slices"] for row in rows] == [0, index.n_slices, index.n_slices]
    assert rows[0]["embedded_slices"] == rows[1]["slices"] == 0
    # By hand: the mean over 2 epochs of the slice stage x 2 epochs of the LSTM.
    models = [Model.load(folder) for row in rows[1:] for folder in sorted(Path(row["leaf"], "epochs").iterdir())]
    assert len(models) == 4
    parts = [predict_prepared(ModelEnsemble(model), index, index.validation_series(1)).slices for model in models]
    mean = np.mean([part[list(LABELS)] for part in parts], axis=0)
    assert np.allclose(table[list(LABELS)], mean.clip(1e-5, 1 - 1e-5), atol=1e-6)


def test_what_experiments_have_in_common_is_trained_once(
    prepared: Path, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []

    def counting(config, stage, **options):  # type: ignore[no-untyped-def]
        trained.append(stage)
        return train(config, stage, **options, progress=False)

    train = running.train_stage
    monkeypatch.setattr(running, "train_stage", counting)
    here = runner(prepared, tmp_path / "runs")
    for name in ("gru", "slices", "both"):
        here.run(load_spec(files / f"{name}.yaml"))
    assert trained == ["slice", "frozen"]
    before = (tmp_path / "runs" / "results" / "both" / "predictions.parquet").read_bytes()
    runner(prepared, tmp_path / "runs").run(load_spec(files / "both.yaml"))
    assert trained == ["slice", "frozen"]
    assert (tmp_path / "runs" / "results" / "both" / "predictions.parquet").read_bytes() == before
    tables = {name: pd.read_parquet(tmp_path / "runs" / "results" / name / "predictions.parquet")[list(LABELS)]
              for name in ("gru", "slices", "both")}  # fmt: skip
    assert np.allclose(tables["both"], (tables["gru"] + tables["slices"]) / 2, atol=2e-5)


def test_one_experiment_starts_from_another(prepared: Path, files: Path, tmp_path: Path) -> None:
    (files / "start.yaml").write_text("base: base.yaml\nexperiment: {stages: [slice], slice_bag: 1, bag: 1}")
    more = "experiment: {start: start.yaml, slice_bag: 1, bag: 1, stages: "
    (files / "more.yaml").write_text(f"base: base.yaml\n{more}[slice]}}")
    (files / "joint.yaml").write_text(f"base: base.yaml\njoint: {{epochs: 1}}\n{more}[joint]}}")
    here, leaves = runner(prepared, tmp_path / "runs"), []
    for name in ("more", "joint"):
        out = here.run(load_spec(files / f"{name}.yaml"))
        rows = json.loads((out / "cost.json").read_text())["stages"]
        assert [row["stage"] for row in rows] == ["slice", "slice" if name == "more" else "joint"]
        assert models_of(out) == [Path(rows[1]["leaf"]) / "epochs" / ("epoch-002" if name == "more" else "epoch-001")]
        assert f"weights from {rows[0]['leaf']}/epochs/epoch-002" in Path(rows[1]["leaf"], "log.txt").read_text()
        leaves.append(rows[0]["leaf"])
    assert leaves[0] == leaves[1]


def test_a_training_that_was_stopped_goes_on(prepared: Path, files: Path, tmp_path: Path) -> None:
    spec, whole = load_spec(files / "gru.yaml"), tmp_path / "whole"
    runner(prepared, whole).run(spec)
    stopped = tmp_path / "stopped"
    here = runner(prepared, stopped)
    out = here.run(spec)
    assert out is not None
    frozen = Path(here.costs[-1]["leaf"])
    edit(frozen / "run.json", finished=False)
    last = sorted((frozen / "last").glob("step-*"))[-1]
    for path in last.iterdir():
        path.write_bytes(b"")  # damaged, so that it goes on from the one before
    (out / "metrics.json").unlink()
    runner(prepared, stopped).run(spec)
    one, two = (pd.read_parquet(folder / "results" / "gru" / "predictions.parquet") for folder in (whole, stopped))
    pd.testing.assert_frame_equal(one, two)


def test_all_patients_are_trained_on_and_their_models_answer(
    prepared: Path, phantoms: Path, files: Path, tmp_path: Path
) -> None:
    out = runner(prepared, tmp_path / "runs").run(load_spec(files / "both.yaml", folds=["all-patients"]))
    assert sorted(path.name for path in out.iterdir()) == ["cost.json", "experiment.yaml", "models.json"]
    assert len(models_of(out)) == 3  # two epochs of the slice stage, and one LSTM
    assert all(Model.load(folder).trained_on["fold"] == ALL_PATIENTS for folder in models_of(out))
    table = tmp_path / "table.csv"
    command = ["predict", str(phantoms / "stage_2_test"), "--run", str(out), "-o", str(table)]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert pd.read_csv(table)[list(LABELS)].notna().all(axis=None)


def test_another_set_is_scored_by_the_same_models(prepared: Path, files: Path, tmp_path: Path) -> None:
    """With two folds' models, their mean."""
    write_phantoms(tmp_path / "raw", patients=3, test_patients=0, size=64, seed=7, workers=1)
    prepare(tmp_path / "raw", tmp_path / "other", folds=2, workers=1)
    runs, other = tmp_path / "runs", Index.load(tmp_path / "other")
    here = runner(prepared, runs)
    here.run(load_spec(files / "slices.yaml", folds=[0, 1]))
    models = [Model.load(folder) for folder in here.models]
    before = sorted(runs.glob("slice-*"))
    there = Runner(prepared, runs, bar=no_bar, test=tmp_path / "other")
    out = there.run(load_spec(files / "slices.yaml", folds=[0, 1]))
    assert sorted(runs.glob("slice-*")) == before
    assert out == runs / "results-test" / "slices"
    metrics = json.loads((out / "metrics.json").read_text())
    assert (metrics["data_key"], metrics["trained_on"]) == (other.key, here.index.key)
    assert (metrics["n_slices"], metrics["recipe"]) == (other.n_slices, load_spec(files / "slices.yaml", seed=3).recipe)
    bags = (models[:2], models[2:])  # of each fold
    one, two = (predict_prepared(ModelEnsemble(bag), other, np.arange(other.n_series)).slices for bag in bags)
    mean = one.assign(**{label: (one[label] + two[label]) / 2 for label in LABELS})
    pd.testing.assert_frame_equal(pd.read_parquet(out / "predictions.parquet"), clip(smooth(mean, WEIGHTED), 1e-5),
                                  check_dtype=False)  # fmt: skip
    with pytest.raises(DataError, match=r"10 patients of it are in .* too"):
        Runner(prepared, runs, bar=no_bar, test=prepared)


def test_sets_that_cannot_be_compared_are_no_training_and_test_set(
    prepared: Path, phantoms: Path, tmp_path: Path
) -> None:
    sets = {name: tmp_path / name for name in ("one", "same", "other")}
    for name, salt in (("one", "salt"), ("same", "salt"), ("other", "another")):
        prepare(phantoms, sets[name], workers=1, salt_file=tmp_path / salt)
    for other in (prepared, sets["other"]):
        with pytest.raises(DataError, match=r"whether they share a patient can't be known.*one --salt-file"):
            Runner(sets["one"], tmp_path / "runs", bar=no_bar, test=other)
    with pytest.raises(DataError, match=r"10 patients of it are in .* too"):
        Runner(sets["one"], tmp_path / "runs", bar=no_bar, test=sets["same"])


def test_a_fold_without_patients_is_refused(prepared: Path, files: Path, tmp_path: Path) -> None:
    here = runner(prepared, tmp_path / "runs")
    here.index = replace(here.index, fold=np.where(here.index.fold == 1, 0, here.index.fold))
    with pytest.raises(DataError, match="no patient is in fold 1; the set has too few patients for its 5 folds"):
        here.run(load_spec(files / "base.yaml"))
    assert not (tmp_path / "runs").exists()


def test_windows_that_a_set_does_not_show_are_refused_before_any_training(
    prepared: Path, files: Path, tmp_path: Path
) -> None:
    (files / "bone.yaml").write_text("base: slices.yaml\nmodel: {windows: [brain, bone], normalise: false}")
    (files / "later.yaml").write_text("experiment: {blend: [slices.yaml, bone.yaml], folds: [1]}")
    (files / "after.yaml").write_text("base: base.yaml\nexperiment: {start: bone.yaml, stages: [frozen]}")
    for name in ("bone", "later", "after"):
        with pytest.raises(ConfigError, match=r"keeps -200 to 823 HU, and model\.windows has bone"):
            runner(prepared, tmp_path / "runs").run(load_spec(files / f"{name}.yaml"))
    assert not (tmp_path / "runs").exists()


def test_the_command_runs_files_and_says_what_is_wrong(prepared: Path, files: Path, tmp_path: Path) -> None:
    runs = ["--data", str(prepared), "--runs", str(tmp_path / "runs")]
    result = CliRunner().invoke(main, ["experiment", str(files / "slices.yaml"), *runs])
    assert result.exit_code == 0, result.output
    assert "weighted log loss" in result.output
    table = tmp_path / "table.md"
    seeds = [str(files / "slices.yaml"), "--seeds", "1,2", "--table", str(table), "--reference", "slices"]
    result = CliRunner().invoke(main, ["experiment", *seeds, *runs])
    assert result.exit_code == 0, result.output
    assert [name for name in ("slices-seed1", "slices-seed2") if name in table.read_text()]
    for arguments, words in (
        ([str(files / "absent.yaml"), *runs], "absent.yaml: the configuration can't be read"),
        ([str(files / "slices.yaml"), "--folds", "9", *runs], "fold 9 does not exist; the set has folds 0 to 4"),
        ([str(files / "slices.yaml"), "--quick", *runs], "quick.yaml: the configuration can't be read"),
        ([], "nothing to do"),
    ):
        result = CliRunner().invoke(main, ["experiment", *arguments])
        assert result.exit_code == 1
        (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
        assert words in line
    assert CliRunner().invoke(main, ["experiment", "--folds", "x"]).exit_code == 2
