"""Run folders: the one that is meant is found."""

import os
from pathlib import Path

import pytest

from ichseq import Model
from ichseq.data.index import ALL_PATIENTS
from ichseq.errors import ConfigError, RunError
from ichseq.runs import folders as runs
from ichseq.runs.names import MODEL, WEIGHTS, fold_name, fold_words, folds_text
from ichseq.runs.records import write_json


def make_leaf(run: Path, stage: str, fold: int, *, model: bool = True) -> Path:
    leaf = runs.leaf_of(run, stage, fold)
    leaf.mkdir(parents=True)
    write_json(leaf / "run.json", {"stage": stage, "fold": fold, "patients": []}, sealed=True)
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
    make_leaf(tmp_path / "mine", "joint", 0)
    (tmp_path / "scans").mkdir()
    with pytest.raises(RunError, match=r"yours: no such run; there are \S*mine$"):
        runs.find_leaves(tmp_path / "yours")
    with pytest.raises(RunError, match="no trained model in it"):
        runs.find_leaves(tmp_path / "scans")


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


def test_a_model_is_found_by_the_names_under_which_it_is_saved(tmp_path: Path) -> None:
    leaf = tmp_path / "joint" / "fold0"
    assert not runs.has_model(leaf)
    Model("test_resnet", pretrained=False, image_size=32, hidden_size=8).save(leaf)
    assert runs.has_model(leaf)
    assert {path.name for path in leaf.iterdir()} == {MODEL, WEIGHTS}
    assert runs.leaves(tmp_path) == runs.leaves(leaf) == [leaf]


def test_a_bag_holds_the_last_epochs(tmp_path: Path) -> None:
    leaf = make_leaf(tmp_path, "joint", 0)
    folders = [runs.epoch_folder(leaf, epoch) for epoch in (2, 9, 10, 11)]
    for folder in reversed(folders):
        folder.mkdir(parents=True)
    assert runs.kept_epochs(leaf) == folders
    assert runs.bag_of(leaf, 0) == [leaf]
    assert runs.bag_of(leaf, 3) == runs.models_of(tmp_path, 3) == folders[1:]
    with pytest.raises(RunError, match="a bag of 5 epochs was asked for, and the weights of 4 are kept"):
        runs.bag_of(leaf, 5)
    with pytest.raises(ConfigError, match="bag is -1"):
        runs.bag_of(leaf, -1)


def test_folds_in_words() -> None:
    assert (fold_words(2), fold_name(2)) == ("fold 2", "fold2")
    assert fold_words(ALL_PATIENTS) == fold_name(ALL_PATIENTS) == "all-patients"
    assert (folds_text({2, 0}), folds_text([1])) == ("folds 0, 2", "fold 1")
