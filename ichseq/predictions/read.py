"""Prediction tables read back and checked."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from ichseq.errors import DataError
from ichseq.files import read_parquet
from ichseq.predictions.calibration import CALIBRATED, FLAGGED
from ichseq.predictions.cells import from_cells
from ichseq.predictions.check import (
    check_calibrated,
    check_columns,
    check_n_slices,
    check_slice_index,
    checked_probabilities,
    checked_truth,
    numbers_of,
    refuse_duplicates,
)
from ichseq.predictions.schema import (
    ACQUIRED,
    CHOSEN,
    EXAM_COLUMNS,
    EXAM_NUMBERS,
    EXAM_TEXT,
    PREDICTION_COLUMNS,
    SCAN_NUMBERS,
    SCAN_TEXT,
    SLICE_NUMBERS,
    SLICE_TEXT,
)

_CALIBRATED: Final = (*CALIBRATED, *FLAGGED)
_OF_SCANS: Final = (CHOSEN, *SCAN_TEXT, *ACQUIRED)


def read_table(path: Path, *, calibrated: bool = False) -> pd.DataFrame:
    """Read a prediction table, Parquet (.parquet) or CSV (anything else), and check it.

    Args:
        path: the file.
        calibrated: take the columns of `CALIBRATED` and `FLAGGED` too where they are.

    Returns:
        The columns of `PREDICTION_COLUMNS` and no others; identifiers are text, as they stand in the file.

    Raises:
        DataError: the file is missing, empty or no such table, a probability is empty or outside 0..1, a truth is not
            0, 1 or empty, or a slice stands in two rows.
    """
    more = _CALIBRATED if calibrated else ()
    table = _read(path, "prediction table", PREDICTION_COLUMNS, SLICE_TEXT, SLICE_NUMBERS, more)
    check_slice_index(table, str(path))
    table["slice_index"] = table["slice_index"].astype(np.int64)
    refuse_duplicates(table, str(path))
    return table


def read_exams(path: Path, *, calibrated: bool = False) -> pd.DataFrame:
    """Read a table of exams, Parquet (.parquet) or CSV (anything else), and check it.

    Args:
        path: the file.
        calibrated: as for `read_table`; and those of the columns `CHOSEN`, `SCAN_TEXT`, `SCAN_NUMBERS` and `ACQUIRED`
            that are there.

    Returns:
        The columns of `EXAM_COLUMNS` and no others; identifiers are text, as they stand in the file. The parts of a
        series that was split, such as thick and thin slices under one UID, are a row each with the same identifiers.

    Raises:
        DataError: the file is missing, empty or no such table, a score is empty or outside 0..1, or a truth is not 0,
            1 or empty.
    """
    more = _CALIBRATED if calibrated else ()
    of_scans = (_OF_SCANS, SCAN_NUMBERS) if calibrated else ((), ())
    table = _read(path, "table of exams", EXAM_COLUMNS, EXAM_TEXT, EXAM_NUMBERS, more, *of_scans)
    check_n_slices(table, str(path))
    table["n_slices"] = table["n_slices"].astype(np.int64)
    return table


def _read(
    path: Path,
    kind: str,
    columns: Sequence[str],
    text: Sequence[str],
    numbers: Sequence[str],
    more: Sequence[str],
    more_text: Sequence[str] = (),
    more_numbers: Sequence[str] = (),
) -> pd.DataFrame:
    """The columns asked for, as text and numbers, with probabilities and truth checked.

    `more` numbers are taken where all are there, each of `more_text` and `more_numbers` where it is there.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; name a table that `ichseq predict` or `ichseq evaluate` wrote")
    try:
        table = (
            read_parquet(path.read_bytes()).to_pandas(use_threads=False)
            if path.suffix == ".parquet"
            else _read_csv(path, (*text, *more_text), (*numbers, *more, *more_numbers))
        )
    except (OSError, ValueError, KeyError, TypeError, NotImplementedError) as error:  # of pandas and Arrow
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: can't be read as a {kind} ({first}); write it again") from None
    name = str(path)
    check_columns(table, columns, name)
    if table.empty:
        raise DataError(f"{path}: no rows; predict at least one scan")
    numbers = [*numbers, *more] if set(more) <= set(table.columns) else list(numbers)
    numbers += [column for column in more_numbers if column in table.columns]
    text = [*text, *(column for column in more_text if column in table.columns)]
    table = table[list(dict.fromkeys([*columns, *text, *numbers]))].copy()
    for column in text:
        table[column] = table[column].astype(object).where(table[column].notna(), "").astype("str")
    for column in numbers:
        table[column] = numbers_of(table, column, name)
    checked_probabilities(table, name)
    checked_truth(table, name)
    if set(more) & set(table.columns):
        check_calibrated(table, name)
    return table


def _read_csv(path: Path, text: Sequence[str], numbers: Sequence[str]) -> pd.DataFrame:
    # Only an empty cell is unknown, and only where a number belongs: "NA" and "007" are fine names of patients.
    empty = {column: [""] for column in numbers}
    table = pd.read_csv(path, dtype=dict.fromkeys(text, "str"), keep_default_na=False, na_values=empty)
    return from_cells(table, text)
