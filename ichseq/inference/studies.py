"""What the tables say of the scans: how each series is called and made, and which series of each study was taken."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import pandas as pd

from ichseq.ct.choice import study_of
from ichseq.ct.described import Described, described
from ichseq.ct.elements import NO_NUMBER
from ichseq.ct.series import Series
from ichseq.errors import counted
from ichseq.inference.predict import Predictions
from ichseq.predictions.schema import ACQUIRED, EXAM_KEY, STUDY_COLUMNS


def with_scans(outcome: Predictions, *, dates: bool = False) -> Predictions:
    """The same predictions, with the columns `SCAN_TEXT` and `SCAN_NUMBERS` in the table of exams, and one of studies.

    One file of each series is opened again for it.

    Args:
        outcome: of scans that were read as files.
        dates: whether both tables have `ACQUIRED` too.
    """
    taken = [_Scan(series, described(series)) for series in outcome.series]
    others = [_Scan(series, described(series), reason) for series, reason in outcome.others]
    columns: dict[str, Any] = {
        "series_number": pd.array([one.number for one in taken], "Int64"),
        "series_description": [one.described.description for one in taken],
        "kernel": [one.described.kernel for one in taken],
        "thickness_mm": [one.series.reconstruction.thickness_mm for one in taken],
        **(_acquired(taken) if dates else {}),
    }
    return replace(outcome, exams=outcome.exams.assign(**columns), studies=_studies(taken, others, dates=dates))


class _Scan(NamedTuple):
    """A series, how it is called, and why it was not taken; "" where it was."""

    series: Series
    described: Described
    reason: str = ""

    @property
    def number(self) -> int | None:
        """SeriesNumber; None where the header has none."""
        number = self.series.reconstruction.number
        return None if number == NO_NUMBER else number

    def words(self) -> str:
        """Number and description, and in brackets how the series was made."""
        thickness = self.series.reconstruction.thickness_mm
        made = [self.described.kernel, "" if math.isnan(thickness) else f"{thickness:g} mm"]
        name = ": ".join(filter(None, ["" if self.number is None else str(self.number), self.described.description]))
        how = ", ".join(filter(None, [*made, counted(len(self.series), "slice")]))
        return f"{name} ({how})" if name else how


def _acquired(scans: Sequence[_Scan]) -> dict[str, list[str]]:
    values = ([one.described.date for one in scans], [one.described.time for one in scans])
    return dict(zip(ACQUIRED, values, strict=True))


def _studies(taken: Sequence[_Scan], others: Sequence[_Scan], *, dates: bool) -> pd.DataFrame:
    """A row a study of which a series was found, those that were answered first; a series without a study is one."""
    by_study: dict[tuple[str, ...], list[_Scan]] = {}
    for one in (*taken, *others):
        by_study.setdefault(study_of(one.series), []).append(one)
    rows = []
    for (patient, study, *_), scans in by_study.items():
        asked, left = [one for one in scans if not one.reason], [one for one in scans if one.reason]
        row: dict[str, object] = dict(zip(EXAM_KEY[:2], (patient, study), strict=True))
        row |= {"series_found": len(scans), "series_taken": len(asked)}
        row |= {"taken_series_uid": "; ".join(one.series.series_uid for one in asked)}
        row |= {"taken": "; ".join(one.words() for one in asked)}
        row |= {"not_taken": "; ".join(f"{one.words()}: {one.reason}" for one in left)}
        rows.append(row | ({name: value for name, (value, *_) in _acquired(scans).items()} if dates else {}))
    return pd.DataFrame(rows, columns=[*STUDY_COLUMNS, *(ACQUIRED if dates else ())])
