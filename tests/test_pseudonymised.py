"""Predictions with pseudonyms: the same answers, no id in a file or on standard output, and scans found again."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from click.testing import CliRunner
from conftest import tiny

import ichseq
from ichseq.api import predict_scans
from ichseq.cli import main
from ichseq.data.index import Index
from ichseq.data.prepare import prepare
from ichseq.errors import ConfigError
from ichseq.evaluation.evaluate import evaluate_fold
from ichseq.labels import LABELS
from ichseq.predictions.findings import findings_of
from ichseq.predictions.read import read_exams, read_table
from ichseq.predictions.write import exams_beside, studies_beside
from ichseq.pseudonyms import SALT, kept_salt
from ichseq.training.train import train_stage

pytestmark = pytest.mark.filterwarnings("ignore:these weights", "ignore:Invalid value for VR UI")


@pytest.fixture(scope="module")
def scans(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three exams, and a file that is cut short, in a folder that is called as a patient is."""
    out = tmp_path_factory.mktemp("scans") / "SMITH"
    out.mkdir()
    patients: list[str] = []
    for path in sorted((phantoms / "stage_2_train").iterdir()):
        patient = pydicom.dcmread(path, specific_tags=["PatientID"]).PatientID
        if patient in patients or len(patients) < 3:
            patients += [patient] if patient not in patients else []
            shutil.copy(path, out / f"SMITH {path.name}")
    (out / "SMITH cut.dcm").write_bytes(path.read_bytes()[:-100])
    return out


def canaries(scans: Path) -> set[str]:
    found = {"SMITH"}
    for path in scans.iterdir():
        header = pydicom.dcmread(path, stop_before_pixels=True)
        found |= {str(header[key].value) for key in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID")}
        found.add(str(header.SOPInstanceUID))
    return found


def test_no_id_is_in_what_is_written_or_printed(run: Path, scans: Path, tmp_path: Path) -> None:
    out, report = tmp_path / "out" / "p.csv", tmp_path / "report"
    asked = ["predict", str(scans), "--run", str(run), "-o", str(out), "--report", str(report), "--pseudonymise"]
    done = CliRunner().invoke(main, asked)
    assert done.exit_code == 3, done.output
    texts = [path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*") if path.is_file()]
    names = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")]
    written = "\n".join([done.stdout, *texts, *names])
    assert not [canary for canary in canaries(scans) if canary in written]
    assert "SMITH cut.dcm" in done.stderr, "whoever holds the scans has to know which file failed"
    table = read_table(out)
    assert {path.name for path in out.parent.iterdir()} == {"p.csv", "p-exams.csv", "p-studies.csv", SALT}
    shown = (report / "index.html").read_text()
    assert all(patient in shown and patient in done.stdout for patient in table["patient_id"])
    studies = pd.read_csv(studies_beside(out))
    assert studies["patient_id"].tolist() == sorted(set(table["patient_id"]))
    assert set(studies["taken_series_uid"]) == set(table["series_uid"])
    assert set(studies["study_uid"]) == set(table["study_uid"])
    assert "keyed hash" in shown


def test_the_answers_are_the_same_and_agree_with_a_set_by_the_same_salt(
    run: Path, phantoms: Path, tmp_path: Path
) -> None:
    salt = tmp_path / "salt of the study"
    raw = phantoms / "stage_2_train"
    index = prepare(raw, tmp_path / "set", salt_file=salt, workers=1).index
    plain = predict_scans(run, raw)
    given = predict_scans(run, raw, salt_file=salt)
    names = kept_salt(salt)
    assert len(findings_of(given.slices, given.exams)) == len(plain.exams)
    assert set(given.slices["sop_uid"]) == {uid for i in range(index.n_series) for uid in index.sop_uids(i)}
    assert sorted(set(given.exams["patient_id"])) == index.patients() == given.exams["patient_id"].tolist()
    answers = plain.slices.assign(sop_uid=[names.uid(uid) for uid in plain.slices["sop_uid"]]).set_index("sop_uid")
    same = answers.loc[given.slices["sop_uid"], list(LABELS)].to_numpy()
    assert np.array_equal(same, given.slices[list(LABELS)].to_numpy())
    for series, warnings, (_, exam) in zip(given.series, given.series_warnings, given.exams.iterrows(), strict=True):
        assert names.uid(series.series_uid) == exam["series_uid"]
        assert all(text in exam["warnings"] for text in warnings)


def test_a_report_of_a_table_finds_the_scans_by_the_salt(run: Path, scans: Path, tmp_path: Path) -> None:
    predict_scans(run, scans, out=tmp_path / "p.csv", pseudonymise=True)
    with pytest.raises(ConfigError, match=r"has pseudonyms for ids.*--salt-file"):
        ichseq.report(tmp_path / "p.csv", scans, tmp_path / "report", model=run)
    command = ["report", str(tmp_path / "p.csv"), "--scans", str(scans), "--run", str(run), "-o", str(tmp_path / "r")]
    done = CliRunner().invoke(main, [*command, "--salt-file", str(tmp_path / SALT)])
    assert done.exit_code == 0, done.output
    pages = "\n".join(path.read_text() for path in (tmp_path / "r").rglob("*.html"))
    assert not [canary for canary in canaries(scans) if canary in pages]
    assert all(patient in pages for patient in read_exams(exams_beside(tmp_path / "p.csv"))["patient_id"])
    assert list((tmp_path / "r").rglob("*.webp"))


def test_what_contradicts_is_refused_before_the_work(run: Path, scans: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name a salt_file"):
        predict_scans(run, scans, pseudonymise=True)
    with pytest.raises(ConfigError, match="show_id"):
        predict_scans(run, scans, out=tmp_path / "p.csv", report=tmp_path / "r", show_id=True, pseudonymise=True)
    with pytest.raises(ConfigError, match="dates"):
        predict_scans(run, scans, out=tmp_path / "p.csv", dates=True, pseudonymise=True)
    assert not list(tmp_path.iterdir())


def test_a_run_of_a_set_with_pseudonyms_is_evaluated_like_any(run: Path, phantoms: Path, tmp_path: Path) -> None:
    index = prepare(phantoms, tmp_path / "set", pseudonymise=True, workers=1).index
    leaf = train_stage(tiny(), "joint", data=tmp_path / "set", fold=0, out=tmp_path / "run", progress=False)
    scored = evaluate_fold(leaf, Index.load(tmp_path / "set"))
    assert set(pd.read_parquet(leaf / "predictions.parquet")["patient_id"]) <= set(index.patients())
    assert "remarks" not in scored.metrics
