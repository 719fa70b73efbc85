"""What the tables say of the scans: each series as its header calls it, and of each study what was taken."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pydicom
import pytest
from click.testing import CliRunner
from pandas.testing import assert_frame_equal

import ichseq
from ichseq.api import predict_scans
from ichseq.cli import main
from ichseq.inference.predict import predict_sources
from ichseq.inference.studies import with_scans
from ichseq.model import Model
from ichseq.predictions.read import read_exams
from ichseq.predictions.schema import ACQUIRED, EXAM_COLUMNS, STUDY_COLUMNS
from ichseq.predictions.write import exams_beside, studies_beside

pytestmark = pytest.mark.filterwarnings("ignore:these weights", "ignore:Invalid value for VR UI")
THICK = {"SeriesNumber": 2, "SeriesDescription": "=Head 5.0", "SliceThickness": 5, "ConvolutionKernel": "H31s"}
THIN = {"SeriesNumber": 3, "SeriesDescription": "Bone", "SliceThickness": 1.5, "ConvolutionKernel": "H60s"}
WHEN = {"AcquisitionDate": "20190301", "AcquisitionTime": "123456.78"}


def copied(source: Path, folder: Path, uid: str, **tags: Any) -> Path:
    """A copy of a scan as a series of its own of the same study."""
    folder.mkdir(parents=True)
    for k, path in enumerate(sorted(source.iterdir())):
        slice_ = pydicom.dcmread(path)
        slice_.SeriesInstanceUID, slice_.SOPInstanceUID = uid, f"{uid}.{k}"
        for keyword, value in tags.items():
            setattr(slice_, keyword, value)
        slice_.save_as(folder / path.name)
    return folder


@pytest.fixture
def study(phantoms: Path, tmp_path: Path) -> Path:
    """One study of a thick and a thin series, and another one without a word on how it was made."""
    scan = phantoms / "stage_2_test"
    copied(scan, tmp_path / "study" / "thick", "1.2.1", **THICK, **WHEN)
    copied(scan, tmp_path / "study" / "thin", "1.2.2", **THIN, **WHEN)
    plain = {"StudyInstanceUID": "1.9", "PatientID": "another", "SeriesDescription": None}
    copied(scan, tmp_path / "study" / "plain", "1.9.1", **plain)
    return tmp_path / "study"


@pytest.fixture
def model() -> Model:
    return Model("test_resnet", image_size=32, hidden_size=8).eval()


def test_the_tables_say_which_series_of_each_study_was_taken(study: Path, model: Model, tmp_path: Path) -> None:
    outcome = predict_scans(model, study, out=tmp_path / "p.csv", progress=False)
    exams = outcome.exams.set_index("series_uid")
    assert exams.loc["1.2.1", ["series_number", "series_description", "kernel", "thickness_mm"]].tolist() == [
        2, "=Head 5.0", "H31s", 5.0
    ]  # fmt: skip
    assert exams.loc["1.9.1", ["series_description", "kernel"]].tolist() == ["", ""]
    assert exams.loc["1.9.1", ["series_number", "thickness_mm"]].isna().all()
    assert not set(ACQUIRED) & set(exams.columns)
    assert outcome.studies is not None
    assert list(outcome.studies.columns) == list(STUDY_COLUMNS)
    rows = outcome.studies.set_index("study_uid")
    n = len(list((study / "thin").iterdir()))
    (uid,) = set(rows.index) - {"1.9"}
    assert rows.loc[uid, ["series_found", "series_taken", "taken_series_uid"]].tolist() == [2, 1, "1.2.1"]
    assert rows.loc[uid, "taken"] == f"2: =Head 5.0 (H31s, 5 mm, {n} slices)"
    assert rows.loc[uid, "not_taken"] == f"3: Bone (H60s, 1.5 mm, {n} slices): sharp kernel (bone)"
    assert rows.loc["1.9", ["patient_id", "series_found", "taken", "not_taken"]].tolist() == [
        "another", 1, f"{n} slices", ""
    ]  # fmt: skip
    assert "'=Head 5.0" in (tmp_path / "p-exams.csv").read_text()  # no formula
    written = pd.read_csv(tmp_path / "p-studies.csv", keep_default_na=False)
    assert_frame_equal(written, outcome.studies, check_dtype=False)


@pytest.mark.parametrize("name", ["p.csv", "p.parquet"])
def test_the_columns_are_read_back_and_dates_come_when_asked_for(
    study: Path, model: Model, tmp_path: Path, name: str
) -> None:
    out = tmp_path / name
    outcome = predict_scans(model, study, out=out, all_series=True, dates=True, progress=False)
    assert sorted(outcome.exams["acquisition_date"]) == ["", "2019-03-01", "2019-03-01"]
    assert sorted(outcome.exams["acquisition_time"]) == ["", "12:34:56", "12:34:56"]
    read = read_exams(exams_beside(out), calibrated=True)
    exams = outcome.exams.astype({"series_number": float})  # empty where there is none, and a number still
    assert_frame_equal(read[list(exams.columns)], exams, check_dtype=False, rtol=1e-6)
    assert list(read_exams(exams_beside(out)).columns) == list(EXAM_COLUMNS)
    assert outcome.studies is not None
    assert sorted(outcome.studies["acquisition_date"]) == ["", "2019-03-01"]
    assert studies_beside(out).is_file()


def test_a_study_without_an_answer_has_its_row_too(study: Path, model: Model) -> None:
    found = ichseq.load_series(study)
    for path in (study / "plain").iterdir():
        path.write_bytes(path.read_bytes()[:-50])  # after its header was read
    for path in (study / "thick").iterdir():
        path.unlink()
    outcome = with_scans(predict_scans(model, found, progress=False))
    assert outcome.studies is not None
    rows = outcome.studies.set_index("study_uid")
    assert rows.loc["1.9", ["series_taken", "taken", "taken_series_uid"]].tolist() == [0, "", ""]
    assert rows.loc["1.9", "not_taken"].endswith(" slices: no slice of it can be read")
    assert rows["series_taken"].sum() == len(outcome.exams) == 1
    assert "Bone" in rows.drop(index="1.9")["taken"].iloc[0]


def test_two_predictions_in_one_folder_keep_their_tables(study: Path, run: Path, tmp_path: Path) -> None:
    for name, source in (("a", study / "thick"), ("b", study / "plain")):
        arguments = ["predict", str(source), "--run", str(run), "-o", str(tmp_path / f"{name}.csv")]
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 0, done.output
        assert f"{tmp_path / f'{name}-exams.csv'}, by study {tmp_path / f'{name}-studies.csv'}" in done.stdout
        assert "Head 5.0" not in done.output  # a description may hold a name
    assert [read_exams(tmp_path / f"{name}-exams.csv")["series_uid"].tolist() for name in "ab"] == [
        ["1.2.1"],
        ["1.9.1"],
    ]
    shutil.rmtree(study / "plain")
    report = CliRunner().invoke(
        main, ["report", str(tmp_path / "a.csv"), "--scans", str(study), "--run", str(run), "-o", str(tmp_path / "r")]
    )
    assert report.exit_code == 0, report.output  # it has found the exams of its own table


def test_without_files_there_is_no_column(study: Path, model: Model) -> None:
    plain = predict_sources([model], [study / "thick"])
    assert plain.studies is None
    assert "series_description" not in plain.exams
