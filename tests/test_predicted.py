"""What is brought together for a blend: runs, leaves and table files, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from five_slices import five_slices
from resealed import edit
from test_judge import exams_of
from test_metrics import make_table

from ichseq.errors import DataError, RunError
from ichseq.evaluation.predicted import Predicted, blend_predicted, compare_predicted, find_predicted, refuse_unlike
from ichseq.evaluation.score import mean_prevalence, score
from ichseq.predictions.smooth import WEIGHTED, clip, smooth
from ichseq.predictions.write import write_table


@pytest.fixture
def copy(scored: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(scored, tmp_path / "copy"))


def test_a_run_folder_is_its_folds_one_below_the_other(scored: Path) -> None:
    leaves = [scored / "joint" / f"fold{fold}" for fold in (0, 1)]
    whole = find_predicted(scored)
    parts = [find_predicted(leaf) for leaf in leaves]
    assert (whole.folds, parts[0].folds, parts[1].folds) == ((0, 1), (0,), (1,))
    pd.testing.assert_frame_equal(whole.table, pd.concat([part.table for part in parts], ignore_index=True))
    for leaf, part in zip(leaves, parts, strict=True):
        pd.testing.assert_frame_equal(part.table, pd.read_parquet(leaf / "predictions.parquet"), check_dtype=False)
        assert part.data_key == json.loads((leaf / "metrics.json").read_text())["data_key"]
    prevalences = [json.loads((leaf / "run.json").read_text())["prevalence"] for leaf in leaves]
    assert np.allclose(mean_prevalence(whole.prevalences), np.mean(prevalences, axis=0))
    refuse_unlike([whole, whole])


def test_a_table_file_tells_of_no_run(tmp_path: Path) -> None:
    write_table(five_slices(), tmp_path / "t.csv")
    one = find_predicted(tmp_path / "t.csv")
    assert (one.data_key, one.folds, mean_prevalence(one.prevalences)) == (None, (), None)
    with pytest.raises(DataError, match=r"absent\.csv: no such file"):
        find_predicted(tmp_path / "absent.csv")
    with pytest.raises(RunError, match="absent: no such run"):
        find_predicted(tmp_path / "absent")


def test_a_run_that_was_not_evaluated_says_so(copy: Path) -> None:
    leaf = copy / "joint" / "fold1"
    (leaf / "predictions.parquet").unlink()
    for path in (copy, leaf):
        with pytest.raises(RunError, match=r"fold1: no predictions.parquet; run `ichseq evaluate --fold 1 --run"):
            find_predicted(path)


def test_folds_that_do_not_fit_together_are_refused(copy: Path) -> None:
    first, second = (copy / "joint" / f"fold{fold}" for fold in (0, 1))
    shutil.copy(first / "predictions.parquet", second / "predictions.parquet")
    with pytest.raises(DataError, match="2 exams in more than one fold"):
        find_predicted(copy)
    edit(second / "metrics.json", data_key="another")
    with pytest.raises(RunError, match=r"fold0 and .*fold1 were evaluated on different data sets"):
        find_predicted(copy)
    (second / "metrics.json").write_text("{}")
    with pytest.raises(RunError, match=r"metrics.json: can't be read"):
        find_predicted(second)


def test_without_metrics_the_run_tells_the_data_set(copy: Path) -> None:
    leaf = copy / "joint" / "fold0"
    (leaf / "metrics.json").unlink()
    edit(leaf / "run.json", data_key="trained on", prevalence=None)
    one = find_predicted(leaf)
    assert one.data_key == "trained on"
    assert mean_prevalence(one.prevalences) == [None] * 6


def test_runs_of_other_data_or_folds_are_refused_by_name() -> None:
    table = five_slices()
    file, first, second = (
        Predicted("t.csv", table),
        Predicted("a", table, "k", (0,)),
        Predicted("b", table, "k", (0, 1)),
    )
    refuse_unlike([file, first, file])
    with pytest.raises(RunError, match=r"a \(fold 0\) and b \(folds 0, 1\) are of different folds"):
        refuse_unlike([file, first, second])
    with pytest.raises(RunError, match="a and c were evaluated on different data sets"):
        refuse_unlike([first, file, Predicted("c", table, "m", (0,))])


def test_what_was_brought_together_is_blended_and_scored_with_its_runs_prior(scored: Path) -> None:
    run = find_predicted(scored)
    table, metrics = blend_predicted([run, run], [1, 3], least=0)
    pd.testing.assert_frame_equal(table, run.table)
    assert metrics is not None
    assert metrics == score(run.table, run.prevalences)
    smoothed, _ = blend_predicted([run], smoothing="weighted")
    pd.testing.assert_frame_equal(smoothed, clip(smooth(run.table, WEIGHTED)))
    assert blend_predicted([Predicted("t.csv", five_slices())])[1] is None
    with pytest.raises(RunError, match="are of different folds"):
        blend_predicted([run, find_predicted(scored / "joint" / "fold0")])


def test_parts_of_a_split_series_are_not_compared_as_exams() -> None:
    """They share their identifiers, so that none can be matched with its like; slices can."""
    slices = make_table(12, 6)
    exams = exams_of(slices)
    whole = Predicted("one", slices, exams=exams)
    assert compare_predicted(whole, whole, draws=10)["exams"]["n_exams"] == 12
    parts = Predicted("other", slices, exams=pd.concat([exams, exams[:1]], ignore_index=True))
    found = compare_predicted(whole, parts, draws=10)
    assert found["exams"] is None
    assert "parts of a split series" in found["undefined"]["exams"]
    assert found["slices"]["difference"] == 0


def test_a_folder_of_an_evaluation_is_what_stands_in_it(scored: Path, tmp_path: Path) -> None:
    for name in ("predictions.parquet", "exams.parquet", "metrics.json"):
        (tmp_path / "sets" / "other").mkdir(parents=True, exist_ok=True)
        shutil.copy(scored / "joint" / "fold0" / name, tmp_path / "sets" / "other" / name)
    found, leaf = find_predicted(tmp_path / "sets" / "other"), find_predicted(scored / "joint" / "fold0")
    pd.testing.assert_frame_equal(found.table, leaf.table)
    assert found.exams is not None
    pd.testing.assert_frame_equal(found.exams, leaf.exams)
    assert (found.folds, found.data_key) == ((), None)
