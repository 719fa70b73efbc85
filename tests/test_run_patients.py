"""A patient seen in training is noticed, and what a run keeps of patients tells no more."""

import json
from pathlib import Path

import numpy as np
import pytest
from dicom_files import write_series

from ichseq.data.index import Index
from ichseq.data.prepare import prepare
from ichseq.errors import RunError
from ichseq.pseudonyms import SALT, Pseudonyms, kept_salt
from ichseq.runs.patients import Seen, refuse_seen_patients, refuse_seen_set
from ichseq.runs.records import write_json

NAMES = ("SMITH^A", "JONES^B", "BAKER^C", "ABBOT^D")


def leaf_trained_on(seen: Seen, leaf: Path) -> Path:
    leaf.mkdir(parents=True, exist_ok=True)
    write_json(leaf / "run.json", {"stage": "joint", "fold": 0, **seen.record()}, sealed=True)
    seen.write_salts(leaf)
    return leaf


def write_patients(raw: Path, names: tuple[str, ...] = NAMES) -> Path:
    for k, name in enumerate(names):
        uids = {"PatientID": name, "StudyInstanceUID": f"1.2.{name and k}{k}", "SeriesInstanceUID": f"1.2.{k}.1"}
        write_series(raw / str(k), **uids)
    return raw


def whole(index: Index) -> np.ndarray:
    return np.arange(index.n_series)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write_patients(tmp_path / "raw")


def test_a_run_keeps_pseudonyms_and_its_salt_lies_beside(raw: Path, tmp_path: Path) -> None:
    index = prepare(raw, tmp_path / "set", folds=2, workers=1).index
    seen = Seen.of(index, whole(index))
    leaf = leaf_trained_on(seen, tmp_path / "leaf")
    assert Seen.read(leaf) == Seen.read(leaf / "epochs" / "epoch-001") == seen
    text = (leaf / "run.json").read_text()
    assert len(json.loads(text)["patients"]) == len(NAMES)
    assert not any(name in text for name in NAMES)
    assert (leaf / SALT).read_text().strip() not in text
    assert Seen.of(index, whole(index)).patients.isdisjoint(seen.patients), "each run has a salt of its own"


def test_patients_seen_in_training_are_refused(prepared: Path, tmp_path: Path) -> None:
    index = Index.load(prepared)
    leaf = leaf_trained_on(Seen.of(index, index.training_series(0)), tmp_path)
    assert refuse_seen_patients(leaf, index, 0) == []
    with pytest.raises(RunError, match="2 of the 2 patients of this set's fold 1"):
        refuse_seen_patients(leaf, index, 1)
    with pytest.raises(RunError, match="8 of the 10 patients of"):
        refuse_seen_set([leaf], index)


def test_scans_without_patient_ids_are_told_apart_by_their_studies(tmp_path: Path) -> None:
    raw = write_patients(tmp_path / "raw", ("",) * 4)
    for name, asked in (("plain", False), ("set", True)):
        index = prepare(raw, tmp_path / name, folds=2, workers=1, pseudonymise=asked).index
        leaf = leaf_trained_on(Seen.of(index, index.training_series(0)), tmp_path / name / "leaf")
        assert refuse_seen_patients(leaf, index, 0) == []
        with pytest.raises(RunError, match="2 of the 2 patients of this set's fold 1"):
            refuse_seen_patients(leaf, index, 1)


def test_patients_of_a_start_are_remembered_with_its_salt(raw: Path, tmp_path: Path) -> None:
    index = prepare(raw, tmp_path / "set", folds=2, workers=1).index
    other = prepare(write_patients(tmp_path / "more", ("NEWMAN^E",)), tmp_path / "new", folds=1, workers=1).index
    first = leaf_trained_on(Seen.of(other, whole(other)), tmp_path / "first")
    second = leaf_trained_on(Seen.of(index, index.training_series(0), [first]), tmp_path / "second")
    assert (first / SALT).read_text() == (second / SALT).read_text()
    with pytest.raises(RunError, match="1 of the 1 patient of"):
        refuse_seen_set([second], other)
    (first / SALT).unlink()
    third = leaf_trained_on(Seen.of(index, index.training_series(0), [first]), tmp_path / "third")
    assert "second" not in "".join(refuse_seen_set([third], other)), "what can't be compared is remarked on"
    assert len(refuse_seen_set([third], other)) == 1
    with pytest.raises(RunError, match="2 of the 2 patients of this set's fold 1"):
        refuse_seen_patients(third, index, 1)


def test_sets_with_pseudonyms_are_compared_where_the_salt_is_the_same(raw: Path, tmp_path: Path) -> None:
    plain = prepare(raw, tmp_path / "plain", folds=2, workers=1).index
    one, same = (prepare(raw, tmp_path / name, folds=2, workers=1, salt_file=tmp_path / SALT).index for name in "ab")
    other = prepare(raw, tmp_path / "other", folds=2, workers=1, pseudonymise=True).index
    leaf = leaf_trained_on(Seen.of(one, whole(one)), tmp_path / "leaf")
    assert not (leaf / SALT).exists(), "a set's salt goes nowhere by itself"
    with pytest.raises(RunError, match="4 of the 4 patients of"):
        refuse_seen_set([leaf], same)
    for index in (plain, other):
        (remark,) = refuse_seen_set([leaf], index)
        assert remark.startswith(f"{leaf}: whether it was trained on a patient of {index.folder} can't be known")
    (leaf / SALT).write_bytes((tmp_path / SALT).read_bytes())  # who may compare puts it there
    with pytest.raises(RunError, match="4 of the 4 patients of"):
        refuse_seen_set([leaf], plain)


def test_without_its_salt_or_with_another_a_run_is_not_taken_for_one_of_strangers(raw: Path, tmp_path: Path) -> None:
    index = prepare(raw, tmp_path / "set", folds=2, workers=1).index
    leaf = leaf_trained_on(Seen.of(index, whole(index)), tmp_path / "leaf")
    (leaf / SALT).unlink()
    assert len(refuse_seen_set([leaf], index)) == len(refuse_seen_patients(leaf, index, 0)) == 1
    kept_salt(leaf / SALT)
    assert len(refuse_seen_set([leaf], index)) == 1
    nothing = Seen(frozenset({Pseudonyms.draw().patient("A")}), frozenset(), ())
    assert len(refuse_seen_set([leaf_trained_on(nothing, tmp_path / "no salts")], index)) == 1
