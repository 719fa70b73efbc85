"""Prediction tables and tables of exams as files, Parquet or CSV, that appear whole."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

import pandas as pd

from ichseq.errors import DataError

EXAMS: Final = "exams.csv"
"""The table of exams, beside that of the slices."""


def check_writable(path: Path) -> None:
    """Find out before the work whether a table can be written.

    Raises:
        DataError: it can't.
    """
    if path.is_dir():
        raise DataError(f"{path}: is a folder; name a file, such as -o {path / 'predictions.csv'}")
    beside = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.touch()
        beside.unlink()
    except OSError as error:
        raise DataError(f"{path}: can't be written ({error.strerror}); choose another -o") from None


def exams_beside(path: Path) -> Path:
    """Where the exams' table goes, once both it and the table of slices are found to be writable.

    Raises:
        DataError: one of them isn't, or both would be one file.
    """
    if path.name.lower() == EXAMS:
        raise DataError(f"{path}: the exams' table has that name; name another file for the slices with -o")
    check_writable(path)
    exams = path.with_name(EXAMS)
    check_writable(exams)
    return exams


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as Parquet (.parquet) or CSV (anything else), beside and then renamed into place.

    Raises:
        DataError: the file can't be written.
    """
    beside = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".parquet":
            table.to_parquet(beside, index=False)
        else:
            table.to_csv(beside, index=False, float_format="%.7g")
        os.replace(beside, path)
    except BaseException as error:  # Ctrl-C too
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise DataError(f"{path}: can't be written ({error.strerror}); choose another -o") from None
