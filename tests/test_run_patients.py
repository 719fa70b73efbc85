"""A patient seen in training is noticed, and a hash tells no more."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from dicom_files import write_series

from ichseq.data.index import Index
from ichseq.data.prepare import prepare
from ichseq.errors import RunError
from ichseq.runs.patients import patient_hashes, refuse_seen_patients
from ichseq.runs.records import write_json


def leaf_trained_on(hashes: Sequence[str], leaf: Path) -> Path:
    write_json(leaf / "run.json", {"stage": "joint", "fold": 0, "patients": list(hashes)}, sealed=True)
    return leaf


def test_hashes_tell_patients_apart_and_no_more() -> None:
    hashes = patient_hashes(["ID_1", "ID_2", "ID_1"])
    assert len(set(hashes)) == len(hashes) == 2
    assert hashes == patient_hashes(["ID_2", "ID_1"]) == sorted(hashes)
    assert not any("ID" in text for text in hashes)


def test_patients_seen_in_training_are_refused(prepared: Path, tmp_path: Path) -> None:
    index = Index.load(prepared)
    patients = index.patients()
    trained = tuple(patient_hashes(patients[i] for i in index.training_series(0)))
    leaf = leaf_trained_on(trained, tmp_path)
    assert refuse_seen_patients(leaf, index, 0) == list(trained)
    with pytest.raises(RunError, match="2 of the 2 patients of this set's fold 1"):
        refuse_seen_patients(leaf, index, 1)


def test_scans_without_patient_ids_are_told_apart_by_their_studies(tmp_path: Path) -> None:
    for k in range(4):
        uids = {"PatientID": "", "StudyInstanceUID": f"1.2.{k}", "SeriesInstanceUID": f"1.2.{k}.1"}
        write_series(tmp_path / "raw" / str(k), **uids)
    index = prepare(tmp_path / "raw", tmp_path / "set", folds=2, workers=1).index
    trained = tuple(patient_hashes(index.patients()[i] for i in index.training_series(0)))
    leaf = leaf_trained_on(trained, tmp_path)
    assert refuse_seen_patients(leaf, index, 0) == list(trained)
    with pytest.raises(RunError, match="2 of the 2 patients of this set's fold 1"):
        refuse_seen_patients(leaf, index, 1)
