"""What the tables say of each exam: its score, which kinds are flagged, where, and which exam comes first.

Everything that a reader gets, pages and DICOM results, starts from here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from ichseq.errors import DataError
from ichseq.labels import LABELS
from ichseq.predictions.calibration import CALIBRATED, FLAGGED
from ichseq.predictions.schema import EXAM_KEY, ExamId, Floats, exam_of

DEFAULT_THRESHOLD: Final = 0.5
"""A raw score from which on a slice or an exam is flagged where no operating point was fitted."""

RUNS: Final = 4
"""Runs of flagged slices of which one is a key slice, at most."""

DEFAULT_RULE: Final = f"flagged from a raw score of {DEFAULT_THRESHOLD} on; no operating point was fitted"


@dataclass(frozen=True)
class LabelFinding:
    """The answer for one label in one exam.

    Attributes:
        label: one of `LABELS`.
        score: of the exam: calibrated where the table has that, else raw.
        raw: the network's own score of the exam.
        flagged: whether the exam is; None: the operating point is undefined.
        key_slice: number of the slice with the highest raw score, from 0 at the feet.
        slices: float64 (n,), the slices' scores: calibrated where the table has that, else raw.
        flagged_slices: numbers of the flagged slices, from feet to head.
    """

    label: str
    score: float
    raw: float
    flagged: bool | None
    key_slice: int
    slices: Floats
    flagged_slices: tuple[int, ...]

    def run_peaks(self) -> list[int]:
        """Of each run of flagged slices that follow each other the one with the highest score, the highest first."""
        flagged = np.array(self.flagged_slices, dtype=np.int64)
        runs = np.split(flagged, np.flatnonzero(np.diff(flagged) > 1) + 1) if len(flagged) else []
        peaks = [int(run[self.slices[run].argmax()]) for run in runs]
        return sorted(peaks, key=lambda number: -self.slices[number])


@dataclass(frozen=True)
class ExamFindings:
    """The answers for one exam.

    Attributes:
        number: its row in the table of exams.
        exam: whose it is.
        rows: its slices' rows in the table of slices, feet to head.
        labels: a finding for each of `LABELS`.
        calibrated: whether the exam's scores are calibrated.
        slices_calibrated: whether the slices' scores are.
        fitted: whether what is flagged follows from operating points that were fitted; else by `DEFAULT_RULE`.
        warnings: the exam's, as its row has them.
    """

    number: int
    exam: ExamId
    rows: range
    labels: dict[str, LabelFinding]
    calibrated: bool
    slices_calibrated: bool
    fitted: bool
    warnings: str

    @property
    def score(self) -> float:
        """That there is any bleeding."""
        return self.labels["any"].score

    @property
    def kinds(self) -> list[str]:
        """The flagged kinds, the highest score first; `any` is none."""
        found = [one for one in self.labels.values() if one.flagged and one.label != "any"]
        return [one.label for one in sorted(found, key=lambda one: -one.score)]

    @property
    def flagged(self) -> bool:
        """Whether any label is."""
        return any(one.flagged for one in self.labels.values())

    @property
    def key_slice(self) -> int:
        """The slice to look at first, that with the highest score of any."""
        return self.labels["any"].key_slice

    @property
    def flagged_slices(self) -> list[int]:
        """The slices that are flagged for any label, from feet to head."""
        return sorted({number for one in self.labels.values() for number in one.flagged_slices})

    @property
    def key_slices(self) -> dict[int, list[str]]:
        """The slices to look at and for which labels, feet to head.

        A flagged label's highest, and for any also the highest of each of the `RUNS` highest runs of flagged slices,
        since blood may lie in several places; where nothing is flagged, the highest for any.
        """
        shown = [label for label, one in self.labels.items() if one.flagged] or ["any"]
        pairs = [(self.labels[label].key_slice, label) for label in shown]
        if "any" in shown:
            pairs += [(number, "any") for number in self.labels["any"].run_peaks()[:RUNS]]
        chosen: dict[int, list[str]] = {}
        for number, label in dict.fromkeys(pairs):
            chosen.setdefault(number, []).append(label)
        return dict(sorted(chosen.items()))


def findings_of(slices: pd.DataFrame, exams: pd.DataFrame) -> list[ExamFindings]:
    """What two tables say of each exam, in the order of the table of exams.

    Args:
        slices: a prediction table; the rows of an exam follow each other, feet to head, in the order of `exams`. Its
            columns of `CALIBRATED` and `FLAGGED` are used if they are there.
        exams: the table of exams; likewise.

    Raises:
        DataError: the tables don't belong together.
    """
    ends = np.cumsum(exams["n_slices"].to_numpy(dtype=np.int64)) if len(exams) else np.zeros(1, np.int64)
    if ends[-1] != len(slices):
        raise DataError(f"the table of exams counts {ends[-1]:,} slices, and the table of slices has {len(slices):,} "
                        "rows; use two tables of one prediction")  # fmt: skip
    found = []
    for number, stop in enumerate(ends):
        rows = range(int(ends[number - 1]) if number else 0, int(stop))
        own, row = slices.iloc[rows.start : rows.stop], exams.iloc[number]
        exam = ExamId(*(row[column] for column in EXAM_KEY))
        if not rows or exam_of(own) != exam or len(own[list(EXAM_KEY)].drop_duplicates()) > 1:
            raise DataError(f"row {number + 1} of the table of exams is not the exam of the slices in its place; use "
                            "two tables of one prediction")  # fmt: skip
        found.append(_exam(number, exam, rows, own, row))
    return found


def _exam(number: int, exam: ExamId, rows: range, own: pd.DataFrame, row: pd.Series) -> ExamFindings:
    one = pd.DataFrame([row])
    calibrated, slices_calibrated = (all(name in table.columns for name in CALIBRATED) for table in (one, own))
    labels = {}
    for label, of_calibrated, of_flagged in zip(LABELS, CALIBRATED, FLAGGED, strict=True):
        raw = _numbers(own, label)
        flags = _flags(own, label, of_flagged)
        (flagged,) = _flags(one, label, of_flagged)
        labels[label] = LabelFinding(
            label=label,
            score=float(row[of_calibrated if calibrated else label]),
            raw=float(row[label]),
            flagged=None if np.isnan(flagged) else bool(flagged),
            key_slice=int(raw.argmax()),
            slices=_numbers(own, of_calibrated) if slices_calibrated else raw,
            flagged_slices=tuple(int(k) for k in np.flatnonzero(flags == 1)),
        )
    fitted = all(name in table.columns for table in (one, own) for name in FLAGGED)
    return ExamFindings(number, exam, rows, labels, calibrated, slices_calibrated, fitted, str(row["warnings"]))


def _numbers(table: pd.DataFrame, column: str) -> Floats:
    return pd.to_numeric(table[column]).to_numpy(dtype=np.float64, na_value=np.nan)


def _flags(table: pd.DataFrame, label: str, flagged: str) -> Floats:
    """1 where a row is flagged, 0 where it is not, NaN where the operating point is undefined."""
    if flagged in table.columns:
        return _numbers(table, flagged)
    return (_numbers(table, label) >= DEFAULT_THRESHOLD).astype(np.float64)


def by_urgency(findings: Sequence[ExamFindings]) -> list[ExamFindings]:
    """The flagged exams first, and among these and the others the highest score of any first."""
    return sorted(findings, key=lambda one: (not one.flagged, -one.score, one.number))
