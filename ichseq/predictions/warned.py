"""What a person should know of each exam, in lines for a terminal: a patient's pseudonym and the folder, no header."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Final

import pandas as pd

from ichseq.predictions.names import pseudonym
from ichseq.predictions.schema import EXAM_KEY, ExamId

SHOWN: Final = 10
"""Exams whose warnings are printed; of the others, how many there are, and what is most frequent."""

_OFTEN: Final = 5


def warning_lines(slices: pd.DataFrame, exams: pd.DataFrame, warnings: Sequence[Sequence[str]]) -> list[str]:
    """A line an exam with warnings, in the order of the table, of the first `SHOWN`.

    Args:
        slices: the prediction table, the rows of an exam following each other in the order of the exams.
        exams: the table of exams.
        warnings: of each exam.
    """
    warned = sum(map(bool, warnings))
    if not warned:
        return []
    lines = [f"Note: {warned} of {len(exams)} series with warnings, column `warnings` of the exams' table:"]
    every = zip(_places(slices, exams), warnings, strict=True)
    lines += [f"    {place}: {'; '.join(own)}" for place, own in every if own][:SHOWN]
    if warned > SHOWN:
        lines.append(f"    and {warned - SHOWN:,} more, see the exams' table; the most frequent of all:")
        often = Counter(text for own in warnings for text in own).most_common(_OFTEN)
        lines += [f"    {number:,} series: {text}" for text, number in often]
    return lines


def _places(slices: pd.DataFrame, exams: pd.DataFrame) -> Iterator[str]:
    start = 0
    for *identity, count in exams[[*EXAM_KEY, "n_slices"]].itertuples(index=False):
        yield f"[{pseudonym(ExamId(*identity))}, {PurePath(str(slices['file'].iloc[start])).parent}]"
        start += count
