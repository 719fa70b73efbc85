"""The answer in a few lines: the most urgent exams first, and no word of a header."""

import pandas as pd
import pytest
from five_slices import five_slices

from ichseq.predictions.answer import SHOWN, answer_lines
from ichseq.predictions.names import pseudonym
from ichseq.predictions.schema import EXAM_KEY, ExamId, exam_rows


def tables(count: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """So many exams; the first one has the lowest scores, and the last three are flagged."""
    parts = []
    for k in range(count):
        high = 0.6 + k / 1000 if k >= count - 3 else k / 1000
        part = five_slices(scores=(0.0, 0.0, high, 0.0, 0.0)).assign(subdural=0.0)
        part[["intraparenchymal", "intraventricular", "subarachnoid"]] = 0.01
        part[list(EXAM_KEY)] = [f"DOE{k}", f"1.{k}", f"1.{k}.1"]
        part["file"] = [f"scans/{k}/{name}" for name in part["file"]]
        parts.append(part)
    return pd.concat(parts, ignore_index=True), exam_rows(parts, [[] for _ in parts])


def test_a_line_an_exam_and_how_many_more() -> None:
    lines = answer_lines(*tables(14))
    assert lines[0].startswith("3 of 14 exams flagged; score of any bleeding")
    assert len(lines) == 1 + SHOWN + 1
    name = pseudonym(ExamId("DOE13", "1.13", "1.13.1"))
    assert lines[1] == f"   0.61  flagged: epidural 0.61; slice 3 of 5  [{name}, scans/13]"
    assert lines[4].startswith("   0.01  not flagged; slice 3 of 5")
    assert lines[-1] == "  and 4 more, none flagged"
    assert "DOE" not in "".join(lines)


@pytest.mark.parametrize("count", [1, SHOWN])
def test_a_few_exams_are_all_shown(count: int) -> None:
    assert len(answer_lines(*tables(max(count, 3)))) == 1 + max(count, 3)
