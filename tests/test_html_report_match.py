"""A table that was read back finds its scans, whatever its order, and says what is missing."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import ichseq
from ichseq.cli import main
from ichseq.ct.series import load_series
from ichseq.errors import DataError, RunError, ScanError
from ichseq.html_report.match import match_scans
from ichseq.inference.predict import Predictions, predict_sources
from ichseq.labels import LABELS
from ichseq.model import Model
from ichseq.predictions.findings import findings_of
from ichseq.predictions.schema import exam_rows
from ichseq.predictions.write import write_table
from ichseq.runs.folders import leaf_of


@pytest.fixture(scope="module")
def outcome(run: Path, phantoms: Path) -> Predictions:
    return predict_sources([Model.load(leaf_of(run, "joint", 0))], [phantoms / "stage_2_train"])


def test_the_order_of_a_table_changes_nothing(outcome: Predictions, phantoms: Path) -> None:
    found = load_series(phantoms / "stage_2_train")
    shuffled = outcome.slices.sample(frac=1, random_state=0)
    matched = match_scans(shuffled, outcome.exams[::-1], found)
    assert matched.remarks == []
    of = matched.predictions
    assert len(findings_of(of.slices, of.exams)) == 10
    for series, (_, exam), stop in zip(matched.series, of.exams.iterrows(), of.exams["n_slices"].cumsum(), strict=True):
        rows = of.slices.iloc[stop - exam["n_slices"] : stop]
        assert series is not None
        assert series.sop_uids == rows["sop_uid"].tolist()
        assert exam["any"] == rows["any"].max()


def test_parts_of_a_series_stay_apart(outcome: Predictions, phantoms: Path) -> None:
    """Two exams under the identifiers of one, as a series of two thicknesses is split."""
    pair = load_series(phantoms / "stage_2_train")[:2]
    tables = []
    for series in pair:
        rows = outcome.slices[outcome.slices["series_uid"] == series.series_uid].copy()
        rows[["patient_id", "study_uid", "series_uid"]] = ["P", "1", "2"]
        tables.append(rows)
    parts = [series for series in pair]
    for series in parts:
        series.patient_id, series.study_uid, series.series_uid = "P", "1", "2"
    exams = exam_rows(tables, [[], []])
    matched = match_scans(pd.concat(tables, ignore_index=True), exams, parts[::-1])
    assert [series is part for series, part in zip(matched.series, parts, strict=True)] == [True, True]
    assert matched.predictions.exams["any"].tolist() == exams["any"].tolist()


def test_without_a_table_of_exams_the_highest_slice_counts(outcome: Predictions, phantoms: Path) -> None:
    found = load_series(phantoms / "stage_2_train")
    for exams, remarks in ((None, 0), (outcome.exams[:5], 1), (outcome.exams.assign(n_slices=1), 1)):
        matched = match_scans(outcome.slices, exams, found)
        assert len(matched.remarks) == remarks
        assert np.allclose(matched.predictions.exams[list(LABELS)], outcome.exams[list(LABELS)])


def test_scans_that_are_not_there_are_named(outcome: Predictions, phantoms: Path) -> None:
    one = outcome.exams["series_uid"].iloc[3]
    some = [series for series in load_series(phantoms / "stage_2_train") if series.series_uid != one]
    matched = match_scans(outcome.slices, outcome.exams, some)
    assert [series is None for series in matched.series] == [k == 3 for k in range(10)]
    with pytest.raises(ScanError, match="the scans hold 1 series, and none of the 10 exams of the table"):
        match_scans(outcome.slices, outcome.exams, load_series(phantoms / "stage_2_test"))


@pytest.mark.filterwarnings("ignore:these weights")
def test_the_commands_make_a_report(run: Path, phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scan = Path(shutil.copytree(phantoms / "stage_2_test", tmp_path / "scan"))
    done = CliRunner().invoke(main, ["predict", "scan", "--run", str(run), "--report", "first"])
    assert done.exit_code == 0, done.output
    assert "exams flagged; score of any bleeding" in done.stdout
    assert "report: first/index.html" in done.stdout
    assert (tmp_path / "first" / "index.html").is_file()
    again = ["report", "predictions.csv", "--scans", "scan"]
    done = CliRunner().invoke(main, [*again, "--run", str(run), "-o", "second"])
    assert (done.exit_code, done.stderr.count("\n")) == (0, 1), done.output  # the progress bar's line
    same = [(tmp_path / name / "exams" / "0001.html").read_text() for name in ("first", "second")]
    assert same[0] == same[1]
    other = CliRunner().invoke(main, [*again, "-o", "third"])
    assert other.exit_code == 0
    assert "no heat maps: the network that ships did not make this table" in other.stderr
    path = ichseq.report(pd.read_csv("predictions.csv"), load_series(scan), tmp_path / "third", model=run)
    assert path == tmp_path / "third" / "index.html"
    with pytest.raises(RunError, match="the model that was named is not the one that answered: its answers differ"):
        ichseq.report("predictions.csv", scan, "fourth", model="phantom-1")
    table = pd.concat([pd.read_csv("predictions.csv"), pd.read_csv("predictions.csv").assign(series_uid="else")])
    write_table(table, tmp_path / "more.csv")
    part = CliRunner().invoke(main, ["report", "more.csv", "--scans", "scan", "--run", str(run), "-o", "fifth"])
    assert part.exit_code == 3, part.output
    assert "its scan is not there; it has no pictures" in part.stderr


def test_what_is_wrong_is_found_before_the_work(run: Path, phantoms: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    calls: list[object] = []
    with pytest.raises(DataError, match=r"holds notes\.txt, which no report writes"):
        ichseq.api.predict_scans(run, phantoms, report=tmp_path, progress=lambda *_: calls.append(1))  # type: ignore
    with pytest.raises(DataError, match=r"p\.csv: lies in the report's folder"):
        ichseq.api.predict_scans(run, phantoms, out=tmp_path / "r" / "p.csv", report=tmp_path / "r")
    with pytest.raises(DataError, match=r"absent\.csv: no such file"):
        ichseq.report(tmp_path / "absent.csv", phantoms, tmp_path / "r")
    assert calls == []
    assert not (tmp_path / "r" / "index.html").exists()
