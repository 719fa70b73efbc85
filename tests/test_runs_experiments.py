"""What experiments left: read as it was written, and refused where something is missing or damaged."""

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml
from made_experiments import STAGES, leave, stage, table_of

from ichseq.errors import DataError, RunError
from ichseq.runs.experiments import Measured, read_models, read_results, write_description


def test_experiments_are_read_by_name(tmp_path: Path) -> None:
    for name in ("lstm", "gru"):
        leave(tmp_path, name, table_of(0.8), folds=[1, 0])
    (tmp_path / "results.md").write_text("a file")
    (tmp_path / ".cache").mkdir()
    gru, lstm = read_results(tmp_path)
    assert (gru.name, lstm.name) == ("gru", "lstm")
    assert gru.measured_on == Measured("k1", (0, 1), 5)
    assert gru.loss == gru.metrics["weighted_log_loss"] == pytest.approx(0.2231436)
    assert list(gru.stages) == STAGES
    pd.testing.assert_frame_equal(gru.table(), table_of(0.8), check_dtype=False)


def test_in_what_two_differ() -> None:
    own = Measured("k1", (0, 1), 5)
    assert own.unlike(own) == ""
    assert own.unlike(Measured("k2", (0, 1), 5)) == "data set k1, not k2"
    assert own.unlike(Measured("k2", (0,), 4)) == "data set k1, not k2; folds 0, 1, not fold 0"
    assert own.unlike(Measured("k1", (0, 1), 4000)) == "5 slices, not 4,000"


def test_a_folder_without_experiments(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="absent: no such folder"):
        read_results(tmp_path / "absent")
    with pytest.raises(DataError, match="holds no experiment"):
        read_results(tmp_path)


@pytest.mark.parametrize("name", ["metrics.json", "cost.json"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file"),
        (b"", "can't be read .JSONDecodeError"),
        (b"\xff\xfe", "can't be read .UnicodeDecodeError"),
        (b'{"weighted_log_loss": NaN}', "can't be read .ValueError"),
        (b"[1]", "is not what an experiment leaves"),
        (b"{}", "has no (name|stages)"),
    ],
)
def test_a_file_that_is_missing_or_damaged_is_named(
    tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    path = leave(tmp_path, "lstm", table_of(0.8)) / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=words) as error:
        read_results(tmp_path)
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "gru"}, "is of experiment gru"),
        ({"data_series": "many"}, "data_series is 'many'"),
        ({"n_slices": True}, "n_slices is True"),
        ({"quick": 1}, "quick is 1"),
        ({"weighted_log_loss": None}, "weighted_log_loss is None"),
        ({"folds": []}, "are not numbers of folds"),
        ({"folds": ["all"]}, "are not numbers of folds"),
        ({"labels": {}}, r"has no labels\.epidural"),
        ({"exam": {"auc_any": "high"}}, r"exam\.auc_any is 'high'"),
        ({"intervals": {}}, r"has no intervals\.weighted_log_loss"),
        ({"intervals": {"weighted_log_loss": [0.1]}}, "interval .0.1. is not two numbers"),
    ],
)
def test_metrics_that_do_not_fit(tmp_path: Path, changes: dict, words: str) -> None:
    folder = leave(tmp_path, "lstm", table_of(0.8), **changes)
    with pytest.raises(DataError, match=words) as error:
        read_results(tmp_path)
    assert str(error.value).startswith(str(folder / "metrics.json"))


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ({}, "stages is {}"),
        ([[]], "is not what an experiment leaves"),
        ([stage("slice", 0, steps="40")], "steps is '40'"),
        ([{"fold": 0}], "has no passes"),
        ([stage("slice", 0)], r"is of fold 0, and metrics\.json of folds 0, 1"),
    ],
)
def test_costs_that_do_not_fit(tmp_path: Path, stages: object, words: str) -> None:
    folder = leave(tmp_path, "lstm", table_of(0.8), stages=stages)
    with pytest.raises(DataError, match=words) as error:
        read_results(tmp_path)
    assert str(error.value).startswith(str(folder / "cost.json"))


def test_a_table_that_is_missing_or_not_the_one_that_was_scored(tmp_path: Path) -> None:
    folder = leave(tmp_path, "lstm", table_of(0.8), n_slices=6)
    (one,) = read_results(tmp_path)
    with pytest.raises(DataError, match=r"predictions\.parquet: 5 slices, but metrics\.json beside it was made of 6"):
        one.table()
    (folder / "predictions.parquet").write_bytes(json.dumps({}).encode())
    with pytest.raises(DataError, match=r"predictions\.parquet: can't be read"):
        one.table()
    (folder / "predictions.parquet").unlink()
    with pytest.raises(DataError, match=r"predictions\.parquet: no such file"):
        one.table()


def test_a_description_replaces_an_earlier_runs_and_notes_each_training_once(tmp_path: Path) -> None:
    folder = leave(tmp_path / "results", "lstm", table_of(0.8))
    models = [tmp_path / "slice-1" / "slice" / "fold0", tmp_path / "results" / "other"]
    experiment = {"experiment": {"folds": (0, 1)}, "train": {"seed": 3}}
    write_description(folder, experiment, [STAGES[0], STAGES[1], STAGES[0]], models)
    assert sorted(path.name for path in folder.iterdir()) == ["cost.json", "experiment.yaml", "models.json"]
    assert yaml.safe_load((folder / "experiment.yaml").read_text()) == {"experiment": {"folds": [0, 1]},
                                                                        "train": {"seed": 3}}  # fmt: skip
    assert json.loads((folder / "cost.json").read_text()) == {"stages": STAGES[:2]}
    assert [(folder / model).resolve() for model in read_models(folder)] == [model.resolve() for model in models]


def test_one_without_figures_is_no_row_and_its_models_are_read_or_named(tmp_path: Path) -> None:
    leave(tmp_path, "lstm", table_of(0.8))
    folder = tmp_path / "all-patients"
    write_description(folder, {}, [], [])
    assert [one.name for one in read_results(tmp_path)] == ["lstm"]
    assert read_models(folder) == []
    for content in ("{}", '{"models": [1]}', "["):
        (folder / "models.json").write_text(content)
        with pytest.raises(RunError, match=r"models\.json: .*; run the experiment again"):
            read_models(folder)
