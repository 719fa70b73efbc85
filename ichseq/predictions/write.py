"""Prediction tables: the columns that everything after prediction reads, and how they are written."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from ichseq.errors import DataError
from ichseq.labels import LABELS, PREDICTION_COLUMNS

EXAMS: Final = "exams.csv"
"""The table of exams, beside that of the slices."""


def slice_table(
    identity: tuple[str, str, str],
    sop_uids: Sequence[str],
    files: Sequence[str],
    positions_mm: np.ndarray,
    answers: np.ndarray,
    truth: np.ndarray | None = None,
) -> pd.DataFrame:
    """A series' rows of the table, with the columns of `PREDICTION_COLUMNS`.

    Args:
        identity: PatientID, StudyInstanceUID and SeriesInstanceUID.
        sop_uids: of the slices, feet to head.
        files: of the slices.
        positions_mm: float (n,).
        answers: (n, 6) probabilities.
        truth: (n, 6) labels, NaN where unknown; None: all unknown.
    """
    columns: dict[str, object] = dict(zip(PREDICTION_COLUMNS[:3], identity, strict=True))
    columns |= {"sop_uid": sop_uids, "file": files, "slice_index": np.arange(len(answers))}
    columns |= {"position_mm": positions_mm}
    columns |= {label: answers[:, k].astype(np.float64) for k, label in enumerate(LABELS)}
    unknown = np.full(len(answers), np.nan)
    columns |= {f"true_{label}": unknown if truth is None else truth[:, k] for k, label in enumerate(LABELS)}
    return pd.DataFrame(columns)[list(PREDICTION_COLUMNS)]


def exam_row(table: pd.DataFrame, said: Sequence[str]) -> dict[str, object]:
    """One series as one row; its score for a label is the highest of its slices' probabilities."""
    first = table.iloc[0]
    row: dict[str, object] = {name: first[name] for name in ("patient_id", "study_uid", "series_uid")}
    row |= {label: float(table[label].max()) for label in LABELS}
    return row | {"n_slices": len(table), "warnings": "; ".join(said)}


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
