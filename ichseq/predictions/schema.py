"""What a prediction table holds, a row a slice, and the table of exams beside it, a row a series.

Everything after prediction reads these columns and no others.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ichseq.labels import LABELS

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class ExamId(NamedTuple):
    """What tells one exam from another, which is a series: its UID alone may stand in several patients' scans.

    Attributes:
        patient_id: PatientID; may be empty.
        study_uid: StudyInstanceUID.
        series_uid: SeriesInstanceUID.
    """

    patient_id: str
    study_uid: str
    series_uid: str


EXAM_KEY: Final = ExamId._fields
"""The columns of an `ExamId`, with which every table begins."""

SLICE_KEY: Final = (*EXAM_KEY, "sop_uid")
"""What tells one slice from another; two tables cover the same slices if these agree."""

TRUTH: Final = tuple(f"true_{label}" for label in LABELS)
"""Columns of the labels as they are known: 0, 1, or empty where the truth is unknown."""

SLICE_TEXT: Final = (*SLICE_KEY, "file")
SLICE_NUMBERS: Final = ("slice_index", "position_mm", *LABELS, *TRUTH)

PREDICTION_COLUMNS: Final = (*SLICE_TEXT, *SLICE_NUMBERS)
"""Columns of every prediction table, a row a slice, in this order; a label's column holds its probability."""

EXAM_COLUMNS: Final = (*EXAM_KEY, *LABELS, *TRUTH, "n_slices", "warnings", "weights")
"""Columns of the table of exams, a row a series, in this order; a label's column holds the exam's score, the truth
is that of the exam, and weights tells which weights answered: the first digits of the SHA-256 of each model's file."""

CHOSEN: Final = "chosen"
"""Column of a table of exams whose scans were given as files: why that series of its study was asked."""

SCAN_TEXT: Final = ("series_description", "kernel")
SCAN_NUMBERS: Final = ("series_number", "thickness_mm")
"""Columns of a table of exams whose scans were at hand: what the header says of the series, empty where it does not."""

ACQUIRED: Final = ("acquisition_date", "acquisition_time")
"""Further ones, where they were asked for."""

STUDY_COLUMNS: Final = (*EXAM_KEY[:2], "series_found", "series_taken", "taken_series_uid", "taken", "not_taken")
"""Columns of the table of studies, a row a study, in this order; `ACQUIRED` follow where they were asked for."""

EXAM_TEXT: Final = (*EXAM_KEY, "warnings", "weights")
EXAM_NUMBERS: Final = (*LABELS, *TRUTH, "n_slices")


def slice_rows(
    exam: ExamId,
    sop_uids: Sequence[str],
    files: Sequence[str],
    positions_mm: np.ndarray,
    probabilities: np.ndarray,
    truth: np.ndarray | None = None,
) -> pd.DataFrame:
    """A series' rows of a prediction table.

    Args:
        exam: whose slices they are.
        sop_uids: SOPInstanceUIDs of the slices, feet to head.
        files: of the slices.
        positions_mm: float (n,).
        probabilities: float (n, 6).
        truth: (n, 6) labels, NaN where unknown; None: all unknown.
    """
    columns: dict[str, object] = exam._asdict()
    columns |= {"sop_uid": sop_uids, "file": files, "slice_index": np.arange(len(probabilities))}
    columns |= {"position_mm": positions_mm}
    columns |= {label: probabilities[:, k].astype(np.float64) for k, label in enumerate(LABELS)}
    unknown = np.full(len(probabilities), np.nan)
    columns |= {column: unknown if truth is None else truth[:, k] for k, column in enumerate(TRUTH)}
    return pd.DataFrame(columns)[list(PREDICTION_COLUMNS)]


def exam_rows(
    tables: Sequence[pd.DataFrame],
    warnings: Sequence[Sequence[str]],
    scores: Sequence[np.ndarray | None] | None = None,
    truth: np.ndarray | None = None,
    *,
    weights: str = "",
) -> pd.DataFrame:
    """The table of exams.

    Args:
        tables: the prediction table of each series, with at least one slice.
        warnings: what a person should know of each.
        scores: (6,) of each series, what the network answers for the exam; None, for one series or for all: the
            highest of its slices' probabilities.
        truth: (n, 6) labels of the exams, NaN where unknown; None: all unknown.
        weights: which weights answered.
    """
    rows = []
    scores = [None] * len(tables) if scores is None else scores
    known = np.full((len(tables), len(LABELS)), np.nan) if truth is None else truth
    for table, own, given, of_exam in zip(tables, warnings, scores, known, strict=True):
        score = table[list(LABELS)].max().to_numpy() if given is None else given
        row: dict[str, object] = exam_of(table)._asdict()
        row |= {label: float(score[k]) for k, label in enumerate(LABELS)}
        row |= {column: float(of_exam[k]) for k, column in enumerate(TRUTH)}
        rows.append(row | {"n_slices": len(table), "warnings": "; ".join(own), "weights": weights})
    return pd.DataFrame(rows, columns=list(EXAM_COLUMNS))


def exam_of(table: pd.DataFrame) -> ExamId:
    """The exam of a table's first slice."""
    return ExamId(*(table[column].iloc[0] for column in EXAM_KEY))


def exam_numbers(table: pd.DataFrame) -> Integers:
    """The number of each row's exam, (n,), counted from 0 in the order in which the exams appear."""
    numbers = table.groupby(list(EXAM_KEY), dropna=False, sort=False).ngroup()
    return numbers.to_numpy().astype(np.int64)


def count_exams(table: pd.DataFrame) -> int:
    """How many exams the rows of a table belong to."""
    return len(table[list(EXAM_KEY)].drop_duplicates())


def has_truth(table: pd.DataFrame) -> bool:
    """Whether any label of any slice is known."""
    return bool(table[list(TRUTH)].notna().any(axis=None))
