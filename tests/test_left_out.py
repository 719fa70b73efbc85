"""Why a file is not used: fields that survive the way back from a worker, and their counts."""

import pickle

import pytest

from ichseq.ct.left_out import LeftOut, SliceError, count_reasons
from ichseq.errors import ScanError


@pytest.mark.parametrize("expected", [False, True])
@pytest.mark.parametrize("is_dicom", [False, True])
def test_the_fields_survive_pickling(expected: bool, is_dicom: bool) -> None:
    error = SliceError("a: b", "is bad: so", expected=expected, is_dicom=is_dicom)
    back = pickle.loads(pickle.dumps(error))
    assert (back.file, back.reason, back.expected, back.is_dicom) == ("a: b", "is bad: so", expected, is_dicom)
    assert str(back) == "a: b: is bad: so"
    assert back.left_out == LeftOut("a: b", "is bad: so", expected)


def test_an_error_of_no_single_file_is_its_reason() -> None:
    assert str(ScanError("", "no source given")) == "no source given"
    assert str(pickle.loads(pickle.dumps(ScanError("a", "is bad")))) == "a: is bad"


def test_reasons_that_differ_after_a_colon_are_counted_together() -> None:
    reasons = ["not CT", "cut: 1 of 2", "cut: 1 of 3", "cut: 1 of 2", "duplicate: of a"]
    counts = count_reasons([LeftOut(f"file {k}", reason) for k, reason in enumerate(reasons)])
    assert counts == {"cut (details differ)": 3, "duplicate: of a": 1, "not CT": 1}
    assert list(counts) == ["cut (details differ)", "duplicate: of a", "not CT"]
