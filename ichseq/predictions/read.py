"""Prediction tables read back and checked."""

from pathlib import Path

import numpy as np
import pandas as pd

from ichseq.errors import DataError
from ichseq.predictions.check import (
    check_columns,
    check_slice_index,
    checked_probabilities,
    checked_truth,
    numbers_of,
    refuse_duplicates,
)
from ichseq.predictions.schema import PREDICTION_COLUMNS, SLICE_NUMBERS, SLICE_TEXT


def read_table(path: Path) -> pd.DataFrame:
    """Read a prediction table, Parquet (.parquet) or CSV (anything else), and check it.

    Returns:
        The columns of `PREDICTION_COLUMNS` and no others; identifiers are text, as they stand in the file.

    Raises:
        DataError: the file is missing, empty or no such table, a probability is empty or outside 0..1, a truth is not
            0, 1 or empty, or a slice stands in two rows.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; name a table that `ichseq predict` or `ichseq evaluate` wrote")
    try:
        table = pd.read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: can't be read as a prediction table ({first}); write it again") from None
    name = str(path)
    check_columns(table, PREDICTION_COLUMNS, name)
    if table.empty:
        raise DataError(f"{path}: no rows; predict at least one scan")
    table = table[list(PREDICTION_COLUMNS)].copy()
    for column in SLICE_TEXT:
        table[column] = table[column].astype(object).where(table[column].notna(), "").astype("str")
    for column in SLICE_NUMBERS:
        table[column] = numbers_of(table, column, name)
    check_slice_index(table, name)
    checked_probabilities(table, name)
    checked_truth(table, name)
    table["slice_index"] = table["slice_index"].astype(np.int64)
    refuse_duplicates(table, name)
    return table


def _read_csv(path: Path) -> pd.DataFrame:
    # Only an empty cell is unknown, and only where a number belongs: "NA" and "007" are fine names of patients.
    empty = {column: [""] for column in SLICE_NUMBERS}
    text = dict.fromkeys(SLICE_TEXT, "str")
    return pd.read_csv(path, dtype=text, keep_default_na=False, na_values=empty)
