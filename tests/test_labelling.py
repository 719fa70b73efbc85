"""Labels in a prepared set: slices here, exams there, on phantoms and on the published readers' table of CQ500."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from dicom_files import write_series

from ichseq.cli import main
from ichseq.data.index import Index
from ichseq.data.prepare import prepare
from ichseq.errors import DataError
from ichseq.labels import LABELS

FINDINGS = {"ICH": "any", "IPH": "intraparenchymal", "IVH": "intraventricular", "SDH": "subdural", "EDH": "epidural",
            "SAH": "subarachnoid"}  # fmt: skip


def exam_rows(index: Index) -> pd.DataFrame:
    """What a report says of each exam of a set."""
    table = pd.DataFrame({"study_uid": index.series_column("study_uid"), "patient": index.series_column("patient_id")})
    return table.assign(**{label: index.exam_labels[:, k].astype(int) for k, label in enumerate(LABELS)})


def test_exams_alone_give_what_their_slices_would_have_given(prepared: Path, phantoms: Path, tmp_path: Path) -> None:
    whole = Index.load(prepared)
    exam_rows(whole).drop(columns="patient").to_csv(tmp_path / "reports.csv", index=False)
    summary = prepare(phantoms / "stage_2_test", tmp_path / "no", folds=1, workers=1)  # without labels nothing changes
    assert "exam_labels" not in summary.index.settings
    summary = prepare(phantoms, tmp_path / "set", labels=tmp_path / "reports.csv", workers=1)
    index = summary.index
    assert np.isnan(index.labels).all()
    assert np.array_equal(index.exam_labels_given, whole.exam_labels)
    assert np.array_equal(index.exam_labels, whole.exam_labels)
    assert (index.settings["labels"], index.settings["exam_series"]) == ("reports.csv", "all")
    assert index.key != whole.key
    bleeding = [(index.exam_labels[index.validation_series(f), -1] == 1).sum() for f in range(5)]
    assert max(bleeding) - min(bleeding) <= 1  # the folds know them
    text = summary.text()
    assert "labels of exams, by series, from" in text
    assert "folds, and their positive exams:" in text
    again = prepare(phantoms, tmp_path / "set", labels=tmp_path / "reports.csv", workers=1)
    assert (again.read, again.index.key) == (0, index.key)


def test_slices_here_and_exams_there(prepared: Path, phantoms: Path, tmp_path: Path) -> None:
    whole = Index.load(prepared)
    exams = exam_rows(whole)
    bleeds = int(np.flatnonzero(exams["any"] == 1)[0])
    slices = pd.DataFrame({"sop_uid": whole.sop_uids(bleeds)})
    rows = slice(whole.offsets[bleeds], whole.offsets[bleeds + 1])
    slices = slices.assign(**{label: whole.labels[rows, k].astype(int) for k, label in enumerate(LABELS)})
    slices.to_csv(tmp_path / "slices.csv", index=False)
    exams.drop(index=bleeds).drop(columns="patient").to_csv(tmp_path / "exams.csv", index=False)
    out = tmp_path / "set"
    command = ["prepare", str(phantoms), "-o", str(out), "--workers", "1"]
    for name in ("slices.csv", "exams.csv"):
        command += ["--labels", str(tmp_path / name)]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    index = Index.load(out)
    assert np.isnan(index.exam_labels_given[bleeds]).all()
    assert np.array_equal(index.exam_labels, whole.exam_labels)  # that one by its slices
    known = np.flatnonzero(~np.isnan(index.labels).any(axis=1))
    assert known.tolist() == list(range(rows.start, rows.stop))
    assert "1 series have no labels of an exam" in done.output


def test_an_exam_that_contradicts_its_slices_is_refused_before_a_pixel_is_read(
    prepared: Path, phantoms: Path, tmp_path: Path
) -> None:
    exams = exam_rows(Index.load(prepared))
    bleeds = int(np.flatnonzero(exams["any"] == 1)[0])
    exams.loc[bleeds, list(LABELS)] = 0
    exams.to_csv(tmp_path / "exams.csv", index=False)
    labels = [phantoms / "stage_2_train.csv", tmp_path / "exams.csv"]
    with pytest.raises(DataError, match=f"1 exam labelled 0 with a slice .*study_uid {exams['study_uid'][bleeds]}"):
        prepare(phantoms, tmp_path / "set", labels=labels, workers=1)
    assert not (tmp_path / "set").exists()
    quiet = int(np.flatnonzero(exams["any"] == 0)[-1])
    exams.loc[[bleeds, quiet], "any"] = 1
    exams.to_csv(tmp_path / "exams.csv", index=False)
    with pytest.raises(DataError, match="labelled 0"):  # of the kind that it bleeds
        prepare(phantoms, tmp_path / "set", labels=labels, workers=1)
    exams.drop(index=bleeds).to_csv(tmp_path / "exams.csv", index=False)
    summary = prepare(phantoms, tmp_path / "set", labels=labels, workers=1)
    assert "1 series have a label that is 1 by their exam and 0 in every slice" in summary.text()
    assert summary.index.exam_labels[quiet, -1] == 1


def test_the_readers_table_of_cq500_as_published(prepared: Path, phantoms: Path, tmp_path: Path) -> None:
    whole = Index.load(prepared)
    exams = exam_rows(whole)
    table = pd.DataFrame({"name": exams["patient"].str.replace("_", "-"), "Category": "B1"})
    for reader in (1, 2, 3):
        for finding, label in FINDINGS.items():
            table[f"R{reader}:{finding}"] = exams[label] if reader < 3 else 0
        table[f"R{reader}:Fracture"] = 0
    table.to_csv(tmp_path / "reads.csv", index=False)
    stranger = table.iloc[:1].assign(name="CQ500-CT-9999")
    pd.concat([table, stranger]).to_csv(tmp_path / "reads.csv", index=False)
    summary = prepare(phantoms, tmp_path / "set", labels=tmp_path / "reads.csv", workers=1)
    assert np.array_equal(summary.index.exam_labels_given, whole.exam_labels)
    assert np.allclose(summary.index.exam_agreement, np.where(whole.exam_labels == 1, 2 / 3, 1))
    assert summary.labels.exams_without_series == 1
    settings = json.loads((tmp_path / "set" / "index.json").read_text())
    assert settings["labels"] == "reads.csv"
    with pytest.raises(DataError, match=r"has labels of exams from reads\.csv, and this run would lose them"):
        prepare(phantoms, tmp_path / "set", workers=1)  # with those of the slices alone


def labels_csv(path: Path, *uids: str) -> Path:
    path.write_text("\n".join(["sop_uid,any", *(f"{uid},{k % 2}" for k, uid in enumerate(uids))]))
    return path


@pytest.mark.parametrize("shared_by", ["slices", "series", "patients"])
def test_a_uid_of_several_images_is_no_key_of_a_label(shared_by: str, tmp_path: Path) -> None:
    scans, same = tmp_path / "scans", {"SOPInstanceUID": "1.2.7"}
    write_series(scans / "a", range(1, 5), **(same if shared_by == "slices" else {}))
    other = {"slices": {}, "series": {"SeriesInstanceUID": "1.8"}, "patients": {"PatientID": "P2"}}[shared_by]
    study = {"StudyInstanceUID": "1.9"} if shared_by == "patients" else {}
    write_series(scans / "b", range(6, 9), **other, **study)
    if shared_by != "slices":
        write_series(scans / "c", range(20, 21), **same)
        write_series(scans / "d", range(21, 22), **other, **study, **same)
    table = labels_csv(tmp_path / "labels.csv", "1.2.7", "1.2.3.4.5.7")
    count = 4 if shared_by == "slices" else 2
    with pytest.raises(DataError, match=f"1 SOPInstanceUID of its labels stand at {count} images, such as 1.2.7"):
        prepare(scans, tmp_path / "set", labels=table, folds=1, workers=1)
    table = labels_csv(tmp_path / "labels.csv", "1.2.3.4.5.7", "1.2.3.4.5.8")  # without a label, it is no matter
    index = prepare(scans, tmp_path / "set", labels=table, folds=1, workers=1).index
    assert np.isfinite(index.labels[:, -1]).sum() == 2


def test_copies_of_a_file_share_a_uid_and_its_label(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_series(tmp_path / "scans" / folder, range(1, 5))
    table = labels_csv(tmp_path / "labels.csv", *(f"1.2.3.4.5.{k}" for k in range(1, 5)))
    index = prepare(tmp_path / "scans", tmp_path / "set", labels=table, folds=1, workers=1).index
    assert index.labels[:, -1].tolist() == [0, 1, 0, 1]
