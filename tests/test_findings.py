"""What two tables say of each exam: scores, flags, key slices, and the order in which exams are read."""

import numpy as np
import pandas as pd
import pytest
from five_slices import five_slices

from ichseq.errors import DataError
from ichseq.labels import LABELS
from ichseq.predictions.calibration import CALIBRATED, FLAGGED
from ichseq.predictions.findings import by_urgency, findings_of
from ichseq.predictions.schema import exam_rows


def two_exams() -> tuple[pd.DataFrame, pd.DataFrame]:
    """An exam with low scores and one with high ones: epidural's are the others of any, from last to first."""
    tables = [
        five_slices("aaaaa", scores=(0.1, 0.2, 0.3, 0.4, 0.45)),
        five_slices("bbbbb", scores=(0.1, 0.6, 0.9, 0.7, 0.3)),
    ]
    for table in tables:
        table[["intraparenchymal", "intraventricular", "subarachnoid", "subdural"]] = 0.01
    exams = exam_rows(tables, [["a warning"], []])
    return pd.concat(tables, ignore_index=True), exams


def test_without_an_operating_point_a_half_flags() -> None:
    low, high = findings_of(*two_exams())
    assert (low.flagged, low.kinds, low.flagged_slices, low.warnings) == (False, [], [], "a warning")
    assert low.key_slices == {4: ["any"]}, "the highest slice is shown though nothing is flagged"
    assert (high.flagged, high.kinds, high.score) == (True, ["epidural"], 0.9)
    assert high.labels["any"].flagged_slices == (1, 2, 3)
    assert high.flagged_slices == [1, 2, 3]
    assert high.key_slices == {2: ["epidural", "any"]}
    assert high.rows == range(5, 10)
    assert not high.calibrated
    assert not high.fitted
    assert by_urgency([low, high]) == [high, low]


def test_calibrated_columns_decide_where_they_are() -> None:
    slices, exams = two_exams()
    for table in (slices, exams):
        for label, calibrated, flagged in zip(LABELS, CALIBRATED, FLAGGED, strict=True):
            table[calibrated] = table[label] / 10
            table[flagged] = pd.array((table[label] >= 0.3).astype(int), dtype="Int8")
        table[FLAGGED[0]] = pd.array([pd.NA] * len(table), dtype="Int8")
    low, high = findings_of(slices, exams)
    assert low.labels["any"].flagged_slices == (2, 3, 4)
    assert low.score == pytest.approx(0.045)
    assert np.allclose(high.labels["any"].slices, [0.01, 0.06, 0.09, 0.07, 0.03])
    assert high.labels["any"].raw == 0.9
    assert high.labels["epidural"].flagged is None, "its operating point is undefined"
    assert high.labels["epidural"].flagged_slices == ()
    assert high.calibrated
    assert high.fitted


def test_a_flagged_exam_comes_before_one_with_a_higher_score_that_is_not() -> None:
    slices, exams = two_exams()
    exams["subdural"] = [0.8, 0.01]
    exams["any"] = [0.2, 0.4]
    exams["epidural"] = 0.1
    low, high = findings_of(slices, exams)
    assert [one.flagged for one in (low, high)] == [True, False]
    assert by_urgency([high, low]) == [low, high]


def test_tables_that_do_not_belong_together_are_refused() -> None:
    slices, exams = two_exams()
    with pytest.raises(DataError, match="counts 10 slices, and the table of slices has 9"):
        findings_of(slices[:-1], exams)
    with pytest.raises(DataError, match="row 1 of the table of exams is not the exam"):
        findings_of(slices, exams[::-1])


def test_each_run_of_flagged_slices_has_a_key_slice() -> None:
    table = five_slices(scores=(0.7, 0.1, 0.8, 0.9, 0.2))
    table[list(LABELS[:-1])] = 0.01
    (found,) = findings_of(table, exam_rows([table], [[]]))
    assert found.labels["any"].run_peaks() == [3, 0]
    assert found.key_slices == {0: ["any"], 3: ["any"]}
    table["subdural"] = [0.1, 0.1, 0.1, 0.6, 0.1]
    (found,) = findings_of(table, exam_rows([table], [[]]))
    assert found.key_slices == {0: ["any"], 3: ["subdural", "any"]}
