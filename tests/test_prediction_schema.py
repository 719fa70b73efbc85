"""The columns of the two tables, and how slices are counted as exams."""

import numpy as np
import pandas as pd
import pytest
from five_slices import five_slices

from ichseq.labels import LABELS
from ichseq.predictions.schema import (
    EXAM_COLUMNS,
    EXAM_KEY,
    PREDICTION_COLUMNS,
    SLICE_KEY,
    TRUTH,
    ExamId,
    count_exams,
    exam_numbers,
    exam_of,
    exam_rows,
    has_truth,
    slice_rows,
)


def test_the_rows_of_a_series_have_the_columns_in_their_order() -> None:
    exam = ExamId("p", "1.2", "1.2.3")
    probabilities = np.arange(12, dtype=np.float32).reshape(2, 6) / 16
    truth = np.array([[0, 1, 0, 0, np.nan, 1], [np.nan] * 6])
    table = slice_rows(exam, ["a", "b"], ["a.dcm", "b.dcm"], np.array([0.0, 2.5]), probabilities, truth)
    assert tuple(table.columns) == PREDICTION_COLUMNS == (*SLICE_KEY, "file", "slice_index", "position_mm", *LABELS,
                                                          *TRUTH)  # fmt: skip
    assert np.array_equal(table[list(LABELS)], probabilities)
    assert np.array_equal(table[list(TRUTH)], truth, equal_nan=True)
    assert exam_of(table) == exam
    assert list(table["slice_index"]) == [0, 1]
    unknown = slice_rows(exam, ["a", "b"], ["a.dcm", "b.dcm"], np.array([0.0, 2.5]), probabilities)
    assert (has_truth(table), has_truth(unknown), has_truth(table[1:])) == (True, False, False)


def test_an_exam_has_the_highest_of_its_slices() -> None:
    one, other = five_slices("aabbb")[:2], five_slices("aabbb")[2:]
    exams = exam_rows([one, other], [["tilted", "thick"], []])
    assert tuple(exams.columns) == EXAM_COLUMNS
    assert list(exams["any"]) == [0.4, 0.9]
    assert list(exams["epidural"]) == [0.9, 0.7]
    assert list(exams["n_slices"]) == [2, 3]
    assert list(exams["warnings"]) == ["tilted; thick", ""]
    assert [ExamId(*row) for row in exams[list(EXAM_KEY)].itertuples(index=False)] == [exam_of(one), exam_of(other)]


def test_an_exams_own_score_and_truth_come_before_those_of_its_slices() -> None:
    one, other = five_slices("aabbb")[:2], five_slices("aabbb")[2:]
    own, truth = np.linspace(0, 0.5, 6), np.array([[0, 0, 0, 0, 1, 1], [np.nan] * 6])
    exams = exam_rows([one, other], [[], []], [own, None], truth)
    assert np.array_equal(exams[list(LABELS)].iloc[0], own)
    assert list(exams.loc[1, list(LABELS)]) == [other[label].max() for label in LABELS]
    assert np.array_equal(exams[list(TRUTH)], truth, equal_nan=True)
    assert exam_rows([one], [[]])[list(TRUTH)].isna().all(axis=None)


@pytest.mark.parametrize("column", EXAM_KEY)
def test_exams_that_differ_in_one_identifier_are_two(column: str) -> None:
    table = five_slices().assign(**dict.fromkeys(EXAM_KEY, "same"))
    assert count_exams(table) == 1
    table[column] = ["x", "y", "x", "", None]
    assert list(exam_numbers(table)) == [0, 1, 0, 2, 3]
    assert count_exams(table) == count_exams(pd.concat([table, table])) == 4
