"""Warnings on the terminal: each exam's in a line of its own, of many the first ones, and nothing of a header."""

from collections.abc import Sequence

import pandas as pd
import pytest
from five_slices import five_slices

from ichseq.predictions.names import pseudonym
from ichseq.predictions.schema import ExamId, exam_rows
from ichseq.predictions.warned import warning_lines


def tables(warnings: Sequence[Sequence[str]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """An exam for each of the warnings, one of two and one of three slices in turn, each in a folder of its own."""
    whole, parts = five_slices(), []
    for k in range(len(warnings)):
        part = whole.iloc[:2] if k % 2 else whole.iloc[2:]
        parts.append(part.assign(patient_id=f"SECRET{k}", series_uid=f"1.{k}", file=f"scans/{k}/slice"))
    return pd.concat(parts, ignore_index=True), exam_rows(parts, warnings)


def test_each_exam_with_warnings_has_its_line() -> None:
    warnings = [["tilted", "thick"], [], ["tilted"]]
    slices, exams = tables(warnings)
    first, *lines = warning_lines(slices, exams, warnings)
    assert first == "Note: 2 of 3 series with warnings, column `warnings` of the exams' table:"
    names = [pseudonym(ExamId(f"SECRET{k}", "", "")) for k in range(3)]
    assert lines == [f"    [{names[0]}, scans/0]: tilted; thick", f"    [{names[2]}, scans/2]: tilted"]
    assert "SECRET" not in "".join(lines)
    assert warning_lines(slices, exams, [[], [], []]) == []


@pytest.mark.parametrize("count", [10, 11, 2000])
def test_of_many_the_first_ones_are_shown_and_what_is_frequent(count: int) -> None:
    warnings = [["tilted"] if k else ["tilted", "thick"] for k in range(count)]
    lines = warning_lines(*tables(warnings), warnings)
    shown = [line for line in lines if "scans/" in line]
    assert [f"scans/{k}]" in line for k, line in enumerate(shown)] == [True] * 10
    assert lines[11:] == ([] if count == 10 else [
        f"    and {count - 10:,} more, see the exams' table; the most frequent of all:",
        f"    {count:,} series: tilted",
        "    1 series: thick",
    ])  # fmt: skip
