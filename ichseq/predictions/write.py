"""Prediction tables and tables of exams as files, Parquet or CSV, that appear whole."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final

import pandas as pd

from ichseq.errors import DataError
from ichseq.files import flush, read_parquet, replacing
from ichseq.predictions.cells import as_cells
from ichseq.predictions.schema import EXAM_COLUMNS, STUDY_COLUMNS

EXAMS: Final = "exams"
STUDIES: Final = "studies"
"""What the names of the tables of exams and of studies end with, beside that of the slices."""

_PLAIN: Final = "predictions"
"""A table of slices of this name has exams and studies beside it that are called so and no more."""


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
    """Where the exams' table of a table of slices is; two tables of slices in one folder never share one.

    Example:
        >>> from pathlib import Path
        >>> from ichseq.predictions.write import exams_beside
        >>> exams_beside(Path("predictions.csv")).name, exams_beside(Path("ward.parquet")).name
        ('exams.csv', 'ward-exams.parquet')
    """
    return _beside(path, EXAMS)


def studies_beside(path: Path) -> Path:
    """Where the table of studies of a table of slices is, likewise."""
    return _beside(path, STUDIES)


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f"{what if path.stem == _PLAIN else f'{path.stem}-{what}'}{path.suffix}")


def check_outputs(path: Path) -> None:
    """Find out before the work whether a table of slices and those beside it can be written.

    Raises:
        DataError: one of them can't, the name is one that a table beside another one has, or something else stands
            where one of those beside it goes.
    """
    if path.stem.lower().rpartition("-")[2] in (EXAMS, STUDIES):
        raise DataError(f"{path}: tables of exams and of studies have such names; name another file for the slices "
                        "with -o")  # fmt: skip
    check_writable(path)
    for one, columns in ((exams_beside(path), EXAM_COLUMNS), (studies_beside(path), STUDY_COLUMNS)):
        check_writable(one)
        if one.is_file() and not set(columns) <= set(_columns_of(one)):  # a label table, say, that nothing has named
            raise DataError(f"{one}: is no table of ichseq's, and would be written over; move it, or name another file "
                            "for the slices with -o")  # fmt: skip


def _columns_of(path: Path) -> list[str]:
    try:
        if path.suffix == ".parquet":
            return list(read_parquet(path.read_bytes()).schema.names)
        return list(pd.read_csv(path, nrows=0).columns)
    except (OSError, ValueError, KeyError):
        return []


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
