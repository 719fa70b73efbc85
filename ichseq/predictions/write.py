"""Prediction tables and tables of exams as files, Parquet or CSV, that appear whole."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final

import pandas as pd

from ichseq.errors import DataError
from ichseq.files import flush, replacing
from ichseq.predictions.cells import as_cells

EXAMS: Final = "exams.csv"
"""The table of exams, beside that of the slices."""


def check_writable(path: Path) -> None:
    """Find out before the work whether a table can be written.

    Raises:
        DataError: it can't.
    """
    if path.is_dir():
        raise DataError(f"{path}: is a folder; name a file, such as -o {path / 'predictions.csv'}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path.parent):
            pass
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


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as Parquet (.parquet) or CSV (anything else), beside and then renamed into place.

    In CSV, text that a spreadsheet would run is guarded (`ichseq.predictions.cells`).

    Raises:
        DataError: the file can't be written.
    """
    write_tables({path: table})


def write_tables(tables: Mapping[Path, pd.DataFrame]) -> None:
    """Write several tables as `write_table` does: all of them, or none where one can't be written.

    Raises:
        DataError: one can't be written; what stood there before is as it was.
    """
    path = next(iter(tables))
    try:
        with ExitStack() as stack:
            for path, table in tables.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                beside = stack.enter_context(replacing(path))
                if path.suffix == ".parquet":
                    table.to_parquet(beside, index=False, write_page_checksum=True)
                else:
                    as_cells(table).to_csv(beside, index=False, float_format="%.7g")
                flush(beside)  # a full disk is heard of here, before the first of them is in its place
    except OSError as error:
        raise DataError(f"{path}: can't be written ({error.strerror}); choose another -o") from None
