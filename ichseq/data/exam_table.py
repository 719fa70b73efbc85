"""Label tables of exams: one by our own names, and the readers' answers of CQ500 as published.

ours   study_uid,any,subdural,...     a row an exam, by study_uid, series_uid or patient_id; cells empty: unknown
CQ500  name,Category,R1:ICH,R1:IPH... a row an exam, by patient; each reader's answers, of which the majority counts
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.csv

from ichseq.data.exam_labels import ANY
from ichseq.data.label_columns import EXAM_IDS, WANTED, plain_name, refuse_repeated
from ichseq.errors import DataError
from ichseq.labels import LABELS

_VALUES: Final = {"": np.nan, "0": 0.0, "0.0": 0.0, "1": 1.0, "1.0": 1.0}
_ALIKE: Final = 0.8  # so alike is a column to a label that it is a misspelt one
_CQ500: Final = {
    "ICH": "any",
    "IPH": "intraparenchymal",
    "IVH": "intraventricular",
    "SDH": "subdural",
    "EDH": "epidural",
    "SAH": "subarachnoid",
}
_READER: Final = re.compile(rf"(R\d+):({'|'.join(_CQ500)})")


@dataclass(frozen=True)
class ExamTable:
    """Labels of exams.

    Attributes:
        name: the file they come from, for messages.
        key: what exams are named by, one of `EXAM_IDS`.
        ids: of each exam, each once.
        values: float32 (n, 6) in the order of LABELS: 0, 1, or NaN where unknown.
        agreement: float32 (n, 6), share of the readers who agree with the value; NaN without readers.
        loose: whether ids are compared by their letters and digits alone.
    """

    name: str
    key: str
    ids: list[str]
    values: np.ndarray
    agreement: np.ndarray
    loose: bool = False

    def rows(self, ids: Sequence[str]) -> np.ndarray:
        """int64 (n,): this table's row for each of some ids, -1 where there is none."""
        place = {self._compared(one): row for row, one in enumerate(self.ids)}
        return np.array([place.get(self._compared(one), -1) for one in ids], np.int64)

    def _compared(self, text: str) -> str:
        return re.sub("[^a-z0-9]", "", text.lower()) if self.loose else text.strip()


def is_exam_table(columns: Sequence[str]) -> bool:
    """Whether a table with these columns is one of exams: their ids and a label, or CQ500's."""
    known = [plain_name(column) for column in columns]
    ours = any(key in known for key in EXAM_IDS) and any(label in known for label in LABELS)
    return ours or _is_cq500(columns)


def _is_cq500(columns: Sequence[str]) -> bool:
    return "name" in columns and any(_READER.fullmatch(column) for column in columns)


def read_exam_table(path: Path, columns: Sequence[str]) -> ExamTable:
    """Read a label table of exams.

    Args:
        path: a CSV file.
        columns: in its first line.

    Raises:
        DataError: it can't be read, names an unknown label, holds a value other than 0 and 1, or contradicts itself.
    """
    name = str(path)
    refuse_repeated(columns, name)
    wanted = [column for column in columns if _is_read(column)]  # a report beside them may be in any encoding
    types = {column: pa.string() for column in wanted}
    try:
        options = pyarrow.csv.ConvertOptions(column_types=types, include_columns=wanted, null_values=[""])
        parsing = pyarrow.csv.ParseOptions(newlines_in_values=True)  # a column may hold a report
        reading = pyarrow.csv.ReadOptions(use_threads=False)
        content = pyarrow.csv.read_csv(path, reading, parsing, options)
    except (OSError, pa.ArrowException) as error:
        detail = re.sub(r"(, got \d+): .*", r"\1", " ".join(str(error).split()))  # less the row
        raise DataError(f"{name}: not a readable label file ({detail}); labels are 0, 1 or empty") from error
    cells = {column: [(value or "").strip() for value in content[column].to_pylist()] for column in wanted}
    if _is_cq500(columns):
        return _of_readers(name, cells)
    names = {plain_name(column): column for column in columns}
    _refuse_misspelt(columns, name)
    key = next(key for key in EXAM_IDS if key in names)
    ids = cells[names[key]]
    _refuse_unnamed(ids, names[key], name)
    values = np.full((len(ids), len(LABELS)), np.nan, np.float32)
    for k, label in enumerate(LABELS):
        if label in names:
            values[:, k] = _numbers(cells[names[label]], names[label], name)
    return _merged(name, key, ids, values)


def _is_read(column: str) -> bool:
    known = plain_name(column)
    return known in EXAM_IDS or known in LABELS or column == "name" or _READER.fullmatch(column) is not None


def _refuse_misspelt(columns: Sequence[str], name: str) -> None:
    known = [plain_name(column) for column in columns]
    missing = [label for label in LABELS if label not in known]
    for column in columns:
        if plain_name(column) not in LABELS and difflib.get_close_matches(column.lower(), missing, 1, _ALIKE):
            raise DataError(f"{name}: unknown label {column!r} among its columns; the labels are {', '.join(LABELS)}")


def _refuse_unnamed(ids: Sequence[str], column: str, name: str) -> None:
    if not ids:
        raise DataError(f"{name}: no rows; give the labels' CSV, with columns {WANTED}")
    if "" in ids:
        raise DataError(f"{name}: row {ids.index('') + 1} has no {column}; name its exam, or remove the row")


def _numbers(cells: Sequence[str], column: str, name: str) -> np.ndarray:
    """float32 (n,), NaN where a cell is empty."""
    for row, cell in enumerate(cells, 1):
        if cell not in _VALUES:
            raise DataError(f"{name}: {column} of row {row} is {cell!r}; a label is 0, 1 or empty (unknown)")
    return np.array([_VALUES[cell] for cell in cells], np.float32)


def _merged(name: str, key: str, ids: Sequence[str], values: np.ndarray) -> ExamTable:
    """One row an exam; rows of the same exam must say the same, and `any` must not be 0 beside a kind that is 1."""
    first: dict[str, int] = {}
    owner = np.array([first.setdefault(one, len(first)) for one in ids])
    merged = np.full((len(first), len(LABELS)), np.nan, np.float32)
    row, column = np.nonzero(~np.isnan(values))
    merged[owner[row], column] = values[row, column]
    other = merged[owner[row], column] != values[row, column]
    if other.any():
        i = int(np.argmax(other))
        finer = "" if key == EXAM_IDS[0] else f", or name exams by {EXAM_IDS[EXAM_IDS.index(key) - 1]}"
        raise DataError(
            f"{name}: two rows contradict each other: {LABELS[column[i]]} of {key} {ids[row[i]]} is 0 in one and 1 in "
            f"another; remove the wrong one{finer}"
        )
    _refuse_against_any(name, key, list(first), merged)
    return ExamTable(name, key, list(first), merged, np.full_like(merged, np.nan))


def _refuse_against_any(name: str, key: str, ids: Sequence[str], values: np.ndarray) -> None:
    against = (values[:, ANY] == 0) & (values[:, :ANY] == 1).any(axis=1)
    if against.any():
        i = int(np.argmax(against))
        kind = LABELS[int(np.argmax(values[i, :ANY] == 1))]
        raise DataError(f"{name}: {key} {ids[i]} has any 0 and {kind} 1; correct one of the two")


def _of_readers(name: str, cells: Mapping[str, Sequence[str]]) -> ExamTable:
    """CQ500's reads.csv: the majority of the readers that answered, and the share of them that agrees.

    As many for as against is unknown. Source of the rule: Chilamkurthy et al., Lancet 2018.
    """
    ids = cells["name"]
    _refuse_unnamed(ids, "name", name)
    if len(set(ids)) < len(ids):
        raise DataError(f"{name}: an exam stands in two rows; remove one of the two")
    values, agreement = np.full((2, len(ids), len(LABELS)), np.nan, np.float32)
    found = [match for match in map(_READER.fullmatch, cells) if match is not None]
    for finding, label in _CQ500.items():
        columns = [match.group() for match in found if match.group(2) == finding]
        if not columns:
            continue
        answers = np.stack([_numbers(cells[column], column, name) for column in columns], axis=1)  # (n, readers)
        number = np.count_nonzero(~np.isnan(answers), axis=1)
        share = np.nansum(answers, axis=1) / np.maximum(number, 1)
        k, decided = LABELS.index(label), (number > 0) & (share != 0.5)
        values[decided, k] = share[decided] > 0.5
        agreement[decided, k] = np.maximum(share, 1 - share)[decided]
    _refuse_against_any(name, "name", ids, values)
    return ExamTable(name, "patient_id", list(ids), values, agreement, loose=True)
