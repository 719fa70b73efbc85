"""What the columns of a label table are called: our names, the DICOM keywords, and both in any case."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ichseq.errors import DataError
from ichseq.labels import LABELS

SLICE_ID: Final = "sop_uid"
EXAM_IDS: Final = ("series_uid", "study_uid", "patient_id")
"""What an exam may be named by, the narrowest first."""

WANTED: Final = (
    "ID,Label (slices, RSNA 2019); sop_uid (slices), or study_uid, series_uid or patient_id (exams), and any of "
    f"{', '.join(LABELS)}; name,R1:ICH,R1:IPH,... (exams, CQ500)"
)
"""The columns of a label table, for messages."""

_OTHER_NAMES: Final = {
    "sopinstanceuid": SLICE_ID,
    "seriesinstanceuid": "series_uid",
    "studyinstanceuid": "study_uid",
}


def plain_name(column: str) -> str:
    """A column's name by which it is known here; other columns keep their own."""
    letters = re.sub("[^a-z0-9]", "", column.lower())
    ours = {re.sub("_", "", name): name for name in (SLICE_ID, *EXAM_IDS, *LABELS)}
    return (ours | _OTHER_NAMES).get(letters, column)


def columns_of(path: Path) -> list[str]:
    """The columns of a CSV file, as its first line names them; none where it can't be read."""
    try:
        with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
            return next(csv.reader(file), [])
    except (OSError, csv.Error):
        return []


def is_slice_table(columns: Sequence[str]) -> bool:
    """Whether a table with these columns is one of slices."""
    return set(columns) == {"ID", "Label"} or SLICE_ID in map(plain_name, columns)


def refuse_repeated(columns: Sequence[str], name: str) -> None:
    """Refuse a table in which one column of ours stands twice, by whatever name.

    Raises:
        DataError: one does.
    """
    known = [plain_name(column) for column in columns]
    if len(set(known)) < len(known):
        raise DataError(f"{name}: a column's name stands twice in its first line; remove one of the two")
