"""Labels of exams: what follows from a label, and from slices for their exam, and that nothing follows backwards."""

import itertools

import numpy as np
import pytest

from ichseq.data.exam_labels import by_slices, completed, exam_labels
from ichseq.labels import LABELS

NAN = np.nan
UNKNOWN = [NAN] * 6


def row(**known: float) -> list[float]:
    return [known.get(label, NAN) for label in LABELS]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (row(subdural=1), row(subdural=1, any=1)),
        (row(any=0), [0.0] * 6),
        ([0, 0, 0, 0, 0, NAN], [0.0] * 6),
        (row(any=1, epidural=0), row(any=1, epidural=0)),
        (row(epidural=0), row(epidural=0)),
        (UNKNOWN, UNKNOWN),
    ],
)
def test_any_and_the_kinds_follow_from_each_other(given: list[float], expected: list[float]) -> None:
    labels = np.array([given], np.float32)
    assert np.array_equal(completed(labels), [expected], equal_nan=True)
    assert np.array_equal(labels, [given], equal_nan=True)  # which stays as it was


def test_completing_is_done_once_and_changes_nothing_that_is_known() -> None:
    every = np.array(list(itertools.product([0, 1, NAN], repeat=6)), np.float32)
    once = completed(every)
    known = ~np.isnan(every)
    assert np.array_equal(once[known], every[known])
    assert np.array_equal(completed(once), once, equal_nan=True)
    sound = ~((once[:, 5] == 0) & (once[:, :5] == 1).any(axis=1))
    assert ((once[sound, 5] == 1) | ~(once[sound, :5] == 1).any(axis=1)).all()


def test_a_slice_makes_its_exam_positive_and_only_all_of_them_make_it_negative() -> None:
    slices = np.array([row(subdural=0), row(subdural=1), row(any=0), row(any=0), row(any=0), row(epidural=1)])
    found = by_slices(slices, np.array([2, 2, 1, 1]))
    assert np.array_equal(found, [row(subdural=1, any=1), [0.0] * 6, [0.0] * 6, row(epidural=1, any=1)], equal_nan=True)
    partly = by_slices(np.array([row(any=0), UNKNOWN]), np.array([2]))
    assert np.isnan(partly).all()


def test_what_is_given_comes_before_what_slices_say_and_is_completed_by_it() -> None:
    slices = np.array([row(any=0), row(any=0), row(subdural=1), row(subdural=0)])
    given = np.array([row(any=1), row(epidural=1)])
    found = exam_labels(given, slices, np.array([2, 2]))
    assert found.dtype == np.float32
    assert np.array_equal(found[0], [0, 0, 0, 0, 0, 1])
    assert np.array_equal(found[1], row(epidural=1, subdural=1, any=1), equal_nan=True)
