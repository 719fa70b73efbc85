"""Run folders: the one that is meant is found, and a patient seen in training is noticed."""

import json
import os
from pathlib import Path

import pytest
from dicom_files import write_series

from ichseq.data.index import Index
from ichseq.data.prepare import prepare
from ichseq.errors import RunError
from ichseq.training import runs


def make_leaf(run: Path, stage: str, fold: int, *, model: bool = True, patients: tuple[str, ...] = ()) -> Path:
    leaf = runs.leaf_of(run, stage, fold)
    leaf.mkdir(parents=True)
    runs.write_json(leaf / "run.json", {"stage": stage, "fold": fold, "patients": list(patients)})
    if model:
        (leaf / "model.json").write_text("{}")
    return leaf


def test_the_last_stage_is_meant_and_folds_come_in_order(tmp_path: Path) -> None:
    of_slice = make_leaf(tmp_path, "slice", 3)
    joint = [make_leaf(tmp_path, "joint", fold) for fold in (10, 2, 0)]
    make_leaf(tmp_path, "joint", 4, model=False)  # no model yet
    assert runs.find_leaves(tmp_path) == joint[::-1]
    assert runs.find_leaves(tmp_path, 2) == [joint[1]]
    assert runs.find_leaves(tmp_path, 3) == [of_slice]
    assert runs.find_leaves(of_slice) == [of_slice]
    with pytest.raises(RunError, match="no trained model for fold 4"):
        runs.find_leaves(tmp_path, 4)


def test_a_missing_run_names_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(RunError, match=r"yours: no such run; there are .*mine"):
        runs.find_leaves(tmp_path / "yours")
    with pytest.raises(RunError, match="no trained model in it"):
        runs.find_leaves(tmp_path / "mine")


@pytest.mark.parametrize("content", [None, "{", "[]", "{}"])
def test_a_damaged_run_is_named(tmp_path: Path, content: str | None) -> None:
    leaf = make_leaf(tmp_path, "joint", 0)
    (leaf / "run.json").unlink()
    if content is not None:
        (leaf / "run.json").write_text(content)
    with pytest.raises(RunError, match=r"fold0: run.json can't be read"):
        runs.find_leaves(tmp_path)


def test_the_newest_run_with_the_fold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match="no run of fold 1"):
        runs.newest_run(1)
    for age, (name, fold, model) in enumerate([("z", 0, True), ("a", 1, True), ("m", 0, False)]):
        leaf = make_leaf(runs.RUNS / name, "joint", fold, model=model)
        os.utime(leaf / "run.json", (1000 + age, 1000 + age))
    assert runs.newest_run() == runs.RUNS / "a"
    assert runs.newest_run(0) == runs.RUNS / "z"  # m has no model
    assert runs.newest_run(0, "joint") == runs.RUNS / "m"  # but can be resumed


def test_json_is_strict_and_appears_whole(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    runs.write_json(file, {"a": 1})
    with pytest.raises(ValueError):
        runs.write_json(file, {"a": float("nan")})
    assert json.loads(file.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [file]


def test_hashes_tell_patients_apart_and_no_more() -> None:
    hashes = runs.patient_hashes(["ID_1", "ID_2", "ID_1"])
    assert len(set(hashes)) == len(hashes) == 2
    assert hashes == runs.patient_hashes(["ID_2", "ID_1"]) == sorted(hashes)
    assert not any("ID" in text for text in hashes)


def test_patients_seen_in_training_are_refused(prepared: Path, tmp_path: Path) -> None:
    index = Index.load(prepared)
    patients = index.patients()
    trained = tuple(runs.patient_hashes(patients[i] for i in index.training_series(0)))
    leaf = make_leaf(tmp_path, "joint", 0, patients=trained)
    assert runs.refuse_seen_patients(leaf, index, 0) == list(trained)
    with pytest.raises(RunError, match="2 of the 2 patients of this set's fold 1"):
        runs.refuse_seen_patients(leaf, index, 1)


def test_scans_without_patient_ids_are_told_apart_by_their_studies(tmp_path: Path) -> None:
    for k in range(4):
        uids = {"PatientID": "", "StudyInstanceUID": f"1.2.{k}", "SeriesInstanceUID": f"1.2.{k}.1"}
        write_series(tmp_path / "raw" / str(k), **uids)
    index = prepare(tmp_path / "raw", tmp_path / "set", folds=2, workers=1).index
    trained = tuple(runs.patient_hashes(index.patients()[i] for i in index.training_series(0)))
    leaf = make_leaf(tmp_path, "joint", 0, patients=trained)
    assert runs.refuse_seen_patients(leaf, index, 0) == list(trained)
    with pytest.raises(RunError, match="2 of the 2 patients of this set's fold 1"):
        runs.refuse_seen_patients(leaf, index, 1)
