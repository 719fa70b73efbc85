"""The answer in a few lines of text: the most urgent exams with score, kinds and the slice to look at."""

from pathlib import PurePath
from typing import Final

import pandas as pd

from ichseq.predictions.findings import ExamFindings, by_urgency, findings_of
from ichseq.predictions.names import pseudonym, score_text

SHOWN: Final = 10
"""Exams that are listed; of the others, how many there are."""


def answer_lines(slices: pd.DataFrame, exams: pd.DataFrame) -> list[str]:
    """A line an exam, the most urgent first: a patient's pseudonym and the folder, and nothing else of a header.

    Where the tables have pseudonyms themselves, there is no folder.

    Args:
        slices: as for `findings_of`.
        exams: as for `findings_of`.

    Raises:
        DataError: the tables don't belong together.
    """
    ordered = by_urgency(findings_of(slices, exams))
    word = "probability" if ordered[0].calibrated else "score"
    flagged = sum(one.flagged for one in ordered)
    lines = [f"{flagged} of {len(ordered)} exams flagged; {word} of any bleeding, and the slice with the highest:"]
    for one in ordered[:SHOWN]:
        who, file = pseudonym(one.exam), str(slices["file"].iloc[one.rows.start])
        where = who if who == one.exam.patient_id else f"{who}, {PurePath(file).parent}"
        lines.append(f"  {score_text(one.score):>5}  {_words(one)}; slice {one.key_slice + 1} of {len(one.rows)}  "
                     f"[{where}]")  # fmt: skip
    more = ordered[SHOWN:]
    if more:
        of_them = sum(one.flagged for one in more)
        lines.append(f"  and {len(more):,} more" + (f", {of_them:,} of them flagged" if of_them else ", none flagged"))
    return lines


def _words(one: ExamFindings) -> str:
    if not one.flagged:
        return "not flagged"
    kinds = ", ".join(f"{kind} {score_text(one.labels[kind].score)}" for kind in one.kinds)
    return f"flagged: {kinds or 'any bleeding'}"
