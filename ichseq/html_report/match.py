"""A table that was read back, put to the series of some scans: what `write_report` takes."""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from ichseq.ct.series import Series
from ichseq.errors import ScanError, counted
from ichseq.inference.predict import Predictions
from ichseq.predictions.schema import EXAM_KEY, ExamId, exam_of, exam_rows


class Matched(NamedTuple):
    """A table and the scans that it is about.

    Attributes:
        predictions: the tables, their exams in one order; no series.
        series: of each exam; None: no slice of it is among the scans.
        remarks: what a person should know, a line each.
    """

    predictions: Predictions
    series: list[Series | None]
    remarks: list[str]


def match_scans(slices: pd.DataFrame, exams: pd.DataFrame | None, found: Sequence[Series]) -> Matched:
    """Put a table to scans.

    Args:
        slices: a prediction table, in any order.
        exams: the table of exams; None, or one that does not count these slices: a new one, whose scores are those of
            the highest slices.
        found: the series, without pixels; those without a row in the table are let be.

    Raises:
        ScanError: not one slice of the table is among the scans.
    """
    parts = _parts(slices)
    own, remarks = _exams_of(parts, exams), list[str]()
    if own is None:
        own = exam_rows(parts, [[] for _ in parts])
        if exams is not None:
            remarks.append("the table of exams beside the table does not count its slices: an exam's score is that of "
                           "its highest slice, and warnings are not known")  # fmt: skip
    by_key: dict[ExamId, list[Series]] = {}
    for series in found:
        by_key.setdefault(ExamId(series.patient_id, series.study_uid, series.series_uid), []).append(series)
    matched = [_series_of(part, by_key.get(exam_of(part), [])) for part in parts]
    if not any(matched):
        raise ScanError("", f"the scans hold {counted(len(found), 'series')}, and none of the {len(parts):,} exams of "
                        "the table; name the scans that were predicted")  # fmt: skip
    return Matched(Predictions(pd.concat(parts, ignore_index=True), own), matched, remarks)


def _parts(slices: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows of each exam, feet to head. A series that was split has parts that count their slices anew."""
    parts = []
    for _, rows in slices.groupby(list(EXAM_KEY), sort=False, dropna=False):
        if rows["slice_index"].is_unique:
            parts.append(rows.sort_values("slice_index"))
            continue
        starts = (rows["slice_index"].diff() <= 0).cumsum()
        parts += [part for _, part in rows.groupby(starts.to_numpy(), sort=False)]
    return parts


def _exams_of(parts: Sequence[pd.DataFrame], exams: pd.DataFrame | None) -> pd.DataFrame | None:
    """The rows of the table of exams in the order of the parts; None if it is not about these slices."""
    if exams is None:
        return None
    left = {key: list(rows.index) for key, rows in exams.groupby(list(EXAM_KEY), sort=False, dropna=False)}
    chosen = []
    for part in parts:
        numbers = left.get(exam_of(part), [])
        if not numbers or exams.loc[numbers[0], "n_slices"] != len(part):
            return None
        chosen.append(numbers.pop(0))
    return exams.loc[chosen].reset_index(drop=True)


def _series_of(part: pd.DataFrame, candidates: Sequence[Series]) -> Series | None:
    """The series with the most of a part's slices."""
    wanted = set(part["sop_uid"])
    shared = [len(wanted.intersection(series.sop_uids)) for series in candidates]
    return candidates[shared.index(max(shared))] if any(shared) else None
