"""calibration.json is found where it belongs, read strictly, and what is wrong with it is named."""

import shutil
from pathlib import Path

import pytest
from resealed import edit
from test_calibration import FITTED_ON, exam_table

from ichseq.errors import RunError
from ichseq.evaluation.calibration import fit_calibration
from ichseq.predictions.calibration import Calibration
from ichseq.runs.calibration import find_calibration, read_calibration, write_calibration
from ichseq.runs.folders import leaf_of


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return fit_calibration(exam_table(), exam_table(), FITTED_ON)


def test_a_run_and_a_leaf_have_their_own(run_copy: Path, calibration: Calibration) -> None:
    leaf = leaf_of(run_copy, "joint", 0)
    assert find_calibration(run_copy) is None
    assert find_calibration(leaf) is None
    assert write_calibration(run_copy, calibration) == run_copy / "joint" / "calibration.json"
    assert find_calibration(run_copy) == calibration
    assert find_calibration(leaf) == calibration  # that of its stage
    other = calibration.model_copy(update={"fitted_on": FITTED_ON.model_copy(update={"folds": [0]})})
    assert write_calibration(leaf, other) == leaf / "calibration.json"
    assert find_calibration(leaf) == other
    assert find_calibration(run_copy) == calibration


def test_without_one_the_error_says_how_to_make_it(run_copy: Path) -> None:
    with pytest.raises(RunError, match=r"run: has no calibration; fit one .*`ichseq calibrate --run .*run`"):
        read_calibration(run_copy)
    with pytest.raises(RunError, match="absent: no such run"):
        read_calibration(run_copy / "absent")


def test_a_number_that_was_changed_is_refused(run_copy: Path, calibration: Calibration) -> None:
    path = write_calibration(run_copy, calibration)
    changed = path.read_text().replace('"method": "platt"', '"method": "temperature"')
    assert changed != path.read_text()
    path.write_text(changed)
    with pytest.raises(RunError, match=r"calibration\.json: can't be read .*; make it again with `ichseq calibrate`"):
        find_calibration(run_copy)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 2}, r"calibration\.json: version: input should be 1"),
        ({"shape": 1}, r"shape: extra inputs are not permitted; make it again with `ichseq calibrate`"),
        ({"slices": {}}, "labels of slices and of exams are epidural, "),
        ({"method": None}, "method: input should be 'platt' or 'temperature'"),
    ],
)
def test_a_file_that_is_not_what_was_written_is_refused(
    run_copy: Path, calibration: Calibration, change: dict, words: str
) -> None:
    path = write_calibration(run_copy, calibration)
    edit(path, **change)
    with pytest.raises(RunError, match=words):
        find_calibration(run_copy)


def test_a_damaged_file_is_refused(run_copy: Path, calibration: Calibration) -> None:
    path = write_calibration(run_copy, calibration)
    path.write_text(path.read_text()[:-20])
    with pytest.raises(RunError, match=r"calibration\.json: can't be read .*; make it again with `ichseq calibrate`"):
        read_calibration(run_copy)


def test_the_calibration_of_another_stage_is_not_taken(run_copy: Path, calibration: Calibration) -> None:
    shutil.copytree(run_copy / "joint", run_copy / "frozen")
    for file in (run_copy / "frozen" / "fold0" / "run.json",):
        edit(file, stage="frozen")
    write_calibration(run_copy / "frozen" / "fold0", calibration)
    assert find_calibration(run_copy) is None
