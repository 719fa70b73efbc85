"""The index of a prepared set: a row a series, a row a slice, and the folds, as flat arrays.

Text stays in Arrow, numbers become numpy: a million slices cost some hundred megabytes and no Python object each, and
loader workers share what they inherit. `ichseq.data.index_files` names the files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from ichseq.data.exam_labels import exam_labels
from ichseq.data.index_files import (
    EXAMS_SCHEMA,
    PREPARE_AGAIN,
    SERIES_SCHEMA,
    SLICES_SCHEMA,
    numbers_of,
    patients_of,
    read_settings,
    read_table,
)
from ichseq.data.owned import EXAMS, SERIES, SLICES, is_place
from ichseq.data.store import Expected
from ichseq.errors import ConfigError, DataError
from ichseq.labels import LABELS
from ichseq.windows import WINDOWS, range_read

ALL_PATIENTS: Final = -1
"""Stands for a fold that holds out no patient."""


@dataclass(frozen=True, eq=False)
class Index:
    """A prepared set's tables.

    Attributes:
        folder: the prepared folder.
        key: hash of everything in the set that training depends on, and of its version.
        folds: number of folds; they are 0 to folds - 1.
        phantom: whether any series is made up.
        lengths: int32 (n_series,), slices of each series.
        offsets: int64 (n_series + 1,); the slices of series i are rows offsets[i] to offsets[i + 1] - 1.
        shapes: int32 (n_series, 2), rows and columns.
        spacing: float32 (n_series, 2), mm between rows and between columns; NaN where the files do not say.
        fold: int16 (n_series,).
        patient_codes: int32 (n_series,), the same number for the same patient (`patients_of`).
        labels: float32 (n_slices, 6) in the order of LABELS, NaN where unknown.
        exam_labels: float32 (n_series, 6), of the exams: those given, completed by what the slices tell.
        exam_labels_given: float32 (n_series, 6), those that a table gave for the exams.
        exam_agreement: float32 (n_series, 6), share of an exam's readers who agree with the label that was given; NaN
            where no readers are known.
        positions_mm: float64 (n_slices,), along the scan axis, ascending from feet to head in a series.
        checksums: uint64 (n_slices,), of the stored pixels, as the store's files have to have them.
    """

    folder: Path
    key: str
    folds: int
    phantom: bool
    lengths: np.ndarray
    offsets: np.ndarray
    shapes: np.ndarray
    spacing: np.ndarray
    fold: np.ndarray
    patient_codes: np.ndarray
    labels: np.ndarray
    exam_labels: np.ndarray
    exam_labels_given: np.ndarray
    exam_agreement: np.ndarray
    positions_mm: np.ndarray
    checksums: np.ndarray
    settings: dict[str, Any]
    _series: pa.Table
    _sop_uid: pa.ChunkedArray
    _file: pa.ChunkedArray

    @classmethod
    def load(cls, folder: str | Path) -> "Index":
        """Load the tables of a prepared set; no pixels.

        Raises:
            DataError: no prepared set there, an unfinished or damaged one, or one of another version.
        """
        folder = Path(folder)
        settings = read_settings(folder)
        if not settings["finished"]:
            raise DataError(f"{folder}: preparing was not finished; {PREPARE_AGAIN}")
        series = read_table(folder / SERIES, SERIES_SCHEMA, settings)
        slices = read_table(folder / SLICES, SLICES_SCHEMA, settings)
        lengths = numbers_of(series, "n_slices")
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        if offsets[-1] != len(slices) or not np.array_equal(numbers_of(series, "first_row"), offsets[:-1]):
            raise DataError(
                f"{folder}: damaged (series.parquet and slices.parquet do not fit together); {PREPARE_AGAIN}"
            )
        if not all(map(is_place, series["store"].to_pylist())):
            raise DataError(
                f"{folder / SERIES}: names a file that is none of a store, so it is damaged or not ichseq's; "
                f"{PREPARE_AGAIN}"
            )
        labels = _columns(slices, LABELS)
        given = agreement = np.full((len(series), len(LABELS)), np.nan, np.float32)
        if settings.get("exam_labels"):
            exams = read_table(folder / EXAMS, EXAMS_SCHEMA, settings)
            given, agreement = _columns(exams, LABELS), _columns(exams, [f"agreement_{label}" for label in LABELS])
        patients = patients_of(series).dictionary_encode()
        return cls(
            folder=folder,
            key=settings["key"],
            folds=settings["folds"],
            phantom=settings["phantom"],
            lengths=lengths,
            offsets=offsets,
            shapes=np.stack([numbers_of(series, "rows"), numbers_of(series, "columns")], axis=1),
            spacing=np.stack([numbers_of(series, f"spacing_{axis}_mm") for axis in ("row", "column")], axis=1),
            fold=numbers_of(series, "fold"),
            patient_codes=patients.indices.to_numpy(zero_copy_only=False).astype(np.int32),
            labels=labels,
            exam_labels=exam_labels(given, labels, lengths),
            exam_labels_given=given,
            exam_agreement=agreement,
            positions_mm=numbers_of(slices, "position_mm"),
            checksums=numbers_of(slices, "checksum"),
            settings=settings,
            _series=series,
            _sop_uid=slices["sop_uid"],
            _file=slices["file"],
        )

    @property
    def manufacturers(self) -> np.ndarray:
        """(n_series,) of the scanners: keys of `ichseq.ct.described.MANUFACTURERS`, "other", or "" where not known."""
        return self._series["manufacturer"].to_numpy()

    @property
    def n_series(self) -> int:
        return len(self.lengths)

    @property
    def n_slices(self) -> int:
        return len(self.labels)

    @property
    def n_patients(self) -> int:
        return int(self.patient_codes.max()) + 1 if self.n_series else 0

    @property
    def hu_range(self) -> tuple[int, int]:
        """Range in HU that the store keeps; what lay outside was clipped."""
        low, high = self.settings["hu_range"]
        return low, high

    def refuse_windows(self, windows: Sequence[str]) -> None:
        """See that the store keeps all that a network's windows show.

        Raises:
            ConfigError: it does not.
        """
        low, high = self.hu_range
        for name in windows:
            least, most = range_read([name])
            if least < low or high < most:
                centre, width = WINDOWS[name]
                raise ConfigError(
                    f"{self.folder}: keeps {low} to {high} HU, and model.windows has {name}, {centre - width / 2:g} to "
                    f"{centre + width / 2:g} HU; prepare the scans with --bone into another folder (`ichseq prepare "
                    "SCANS --bone -o FOLDER`), or choose other windows"
                )

    def series_row(self, i: int) -> dict[str, Any]:
        """Row i of series.parquet: patient_id, study_uid, series_uid, warnings and the rest."""
        return dict(self._series.slice(i, 1).to_pylist()[0])

    def series_column(self, name: str) -> list[Any]:
        """One column of series.parquet, an element a series."""
        return list(self._series[name].to_pylist())

    def patients(self) -> list[str]:
        """Who each series' patient is, an element a series (`patients_of`); never empty."""
        return list(patients_of(self._series).to_pylist())

    def sop_uids(self, i: int) -> list[str]:
        """SOPInstanceUIDs of series i, in the order of its slices."""
        return list(self._sop_uid.slice(self.offsets[i], self.lengths[i]).to_pylist())

    def files(self, i: int) -> list[str]:
        """Files of series i, in the order of its slices."""
        return list(self._file.slice(self.offsets[i], self.lengths[i]).to_pylist())

    def store_path(self, i: int) -> Path:
        """The file with the pixels of series i."""
        return self.folder / str(self._series["store"][i])

    def expected(self, i: int) -> Expected:
        """What the file with the pixels of series i has to hold."""
        rows, columns = self.shapes[i]
        sums = self.checksums[self.offsets[i] : self.offsets[i + 1]]
        return Expected((int(self.lengths[i]), int(rows), int(columns)), sums)

    def training_series(self, fold: int) -> np.ndarray:
        """Numbers of the series outside a fold, ascending; of `ALL_PATIENTS`, every one.

        Raises:
            ConfigError: there is no such fold, or nothing lies outside it.
        """
        chosen = np.flatnonzero(self.fold != self._checked(fold))  # no series is of ALL_PATIENTS
        if not len(chosen):
            raise ConfigError(f"fold {fold} holds every series; prepare with at least 2 folds to have some to train on")
        return chosen

    def validation_series(self, fold: int) -> np.ndarray:
        """Numbers of the series in a fold, ascending; raises as `training_series` does."""
        return np.flatnonzero(self.fold == self._checked(fold))

    def _checked(self, fold: int) -> int:
        if fold != ALL_PATIENTS and not 0 <= fold < self.folds:
            there = f"folds 0 to {self.folds - 1}" if self.folds > 1 else "fold 0 alone"
            raise ConfigError(f"fold {fold} does not exist; this set has {there}")
        return fold

    def slice_rows(self, series: np.ndarray) -> np.ndarray:
        """Rows of all slices of the series given, in their order."""
        lengths = self.lengths[series].astype(np.int64)
        ends = np.cumsum(lengths)
        first = np.repeat(self.offsets[:-1][series] - (ends - lengths), lengths)
        return first + np.arange(ends[-1] if len(ends) else 0)

    def slice_distance_mm(self, series: np.ndarray) -> tuple[float, float] | None:
        """Between which distances the slices of nearly all these series lie: the 1st and the 99th percentile.

        None: of no series are the positions of two slices known.
        """
        steps = [np.diff(self.positions_mm[self.offsets[i] : self.offsets[i + 1]]) for i in series]
        usual = [float(np.median(of)) for of in steps if len(of) and np.isfinite(of).all() and np.median(of) > 0]
        if not usual:
            return None
        low, high = np.percentile(usual, (1, 99))
        return round(float(low), 2), round(float(high), 2)

    def prevalence(self, series: np.ndarray | None = None) -> np.ndarray:
        """float64 (6,): share of positive slices among those whose label is known; NaN where none is.

        Args:
            series: numbers of the series to count; None: all.
        """
        return _shares(self.labels if series is None else self.labels[self.slice_rows(np.asarray(series))])

    def exam_prevalence(self, series: np.ndarray) -> np.ndarray:
        """float64 (6,): share of positive exams among those of the series given whose label is known; else NaN."""
        return _shares(self.exam_labels[series])


def _columns(table: pa.Table, names: Sequence[str]) -> np.ndarray:
    """Columns of numbers as float32 (rows, columns)."""
    values = np.empty((len(table), len(names)), np.float32)
    for k, name in enumerate(names):
        values[:, k] = numbers_of(table, name)
    return values


def _shares(labels: np.ndarray) -> np.ndarray:
    """float64 (6,): share of ones among the known labels (n, 6); NaN where none is."""
    known = np.count_nonzero(~np.isnan(labels), axis=0)
    sums = np.nansum(labels, axis=0, dtype=np.float64)
    return np.where(known > 0, sums / np.maximum(known, 1), np.nan)
