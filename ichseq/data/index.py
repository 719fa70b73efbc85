"""The index of a prepared set: a row a series, a row a slice, and the folds, as flat arrays.

    index.json      format, key, HU range, folds, seed, phantom flag, names of the sources, counts; written last
    series.parquet  a row a series (SERIES_SCHEMA)
    slices.parquet  a row a slice, by series and then from feet to head (SLICES_SCHEMA)
    left_out.csv    file, reason
    store/          one file a series (ichseq.data.store)

Text stays in Arrow, numbers become numpy: a million slices cost some hundred megabytes and no Python object each, and
loader workers share what they inherit.
"""

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ichseq.data.store import CODEC, write_whole
from ichseq.errors import ConfigError, DataError
from ichseq.labels import LABELS
from ichseq.windows import HU_RANGE

FORMAT: Final = 1
"""Version of the tables' layout; goes up with every change that older code could not read."""

ALL_PATIENTS: Final = -1
"""Stands for a fold that holds out nobody."""

SERIES_SCHEMA: Final = pa.schema(
    [
        ("series", pa.int32()),
        ("patient_id", pa.string()),
        ("study_uid", pa.string()),
        ("series_uid", pa.string()),
        ("store", pa.string()),  # path below the prepared folder
        ("n_slices", pa.int32()),
        ("rows", pa.int32()),
        ("columns", pa.int32()),
        ("spacing_row_mm", pa.float32()),
        ("spacing_column_mm", pa.float32()),
        ("fold", pa.int16()),
        ("phantom", pa.bool_()),
        ("warnings", pa.string()),  # one a line
        ("first_row", pa.int64()),  # in slices.parquet
    ]
)
SLICES_SCHEMA: Final = pa.schema(
    [
        ("series", pa.int32()),
        ("slice_index", pa.int32()),
        ("sop_uid", pa.string()),
        ("file", pa.string()),
        ("position_mm", pa.float64()),
        *((label, pa.float32()) for label in LABELS),  # NaN where unknown
        ("checksum", pa.uint64()),  # of the stored pixels
    ]
)

_KEY: Final = b"ichseq_key"
_AGAIN: Final = "run `ichseq prepare` again, which does only what is missing"


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
        positions_mm: float64 (n_slices,), along the scan axis, ascending from feet to head in a series.
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
    positions_mm: np.ndarray
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
            raise DataError(f"{folder}: preparing was not finished; {_AGAIN}")
        series = _read_table(folder / "series.parquet", SERIES_SCHEMA, settings["key"])
        slices = _read_table(folder / "slices.parquet", SLICES_SCHEMA, settings["key"])
        lengths = _numbers(series, "n_slices")
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        if offsets[-1] != len(slices) or not np.array_equal(_numbers(series, "first_row"), offsets[:-1]):
            raise DataError(f"{folder}: damaged (series.parquet and slices.parquet do not fit together); {_AGAIN}")
        labels = np.empty((len(slices), len(LABELS)), np.float32)
        for k, label in enumerate(LABELS):
            labels[:, k] = _numbers(slices, label)
        patients = patients_of(series).dictionary_encode()
        return cls(
            folder=folder,
            key=settings["key"],
            folds=settings["folds"],
            phantom=settings["phantom"],
            lengths=lengths,
            offsets=offsets,
            shapes=np.stack([_numbers(series, "rows"), _numbers(series, "columns")], axis=1),
            spacing=np.stack([_numbers(series, f"spacing_{axis}_mm") for axis in ("row", "column")], axis=1),
            fold=_numbers(series, "fold"),
            patient_codes=patients.indices.to_numpy(zero_copy_only=False).astype(np.int32),
            labels=labels,
            positions_mm=_numbers(slices, "position_mm"),
            settings=settings,
            _series=series,
            _sop_uid=slices["sop_uid"],
            _file=slices["file"],
        )

    @property
    def n_series(self) -> int:
        return len(self.lengths)

    @property
    def n_slices(self) -> int:
        return len(self.labels)

    @property
    def n_patients(self) -> int:
        return int(self.patient_codes.max()) + 1 if self.n_series else 0

    def series_row(self, i: int) -> dict[str, Any]:
        """Row i of series.parquet: patient_id, study_uid, series_uid, warnings and the rest."""
        return dict(self._series.slice(i, 1).to_pylist()[0])

    def series_column(self, name: str) -> list[Any]:
        """One column of series.parquet, an element a series."""
        return list(self._series[name].to_pylist())

    def patients(self) -> list[str]:
        """Who each series' patient is, an element a series (`patients_of`); never empty."""
        return list(patients_of(self._series).to_pylist())

    def sop_uid(self, row: int) -> str:
        """SOPInstanceUID of a slice, by its row."""
        return str(self._sop_uid[row])

    def file(self, row: int) -> str:
        """The file that a slice was read from, as it was named then."""
        return str(self._file[row])

    def sop_uids(self, i: int) -> list[str]:
        """SOPInstanceUIDs of series i, in the order of its slices."""
        return list(self._sop_uid.slice(self.offsets[i], self.lengths[i]).to_pylist())

    def files(self, i: int) -> list[str]:
        """Files of series i, in the order of its slices."""
        return list(self._file.slice(self.offsets[i], self.lengths[i]).to_pylist())

    def store_path(self, i: int) -> Path:
        """The file with the pixels of series i."""
        return self.folder / str(self._series["store"][i])

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

    def prevalence(self, series: np.ndarray | None = None) -> np.ndarray:
        """float64 (6,): share of positive slices among those whose label is known; NaN where none is.

        Args:
            series: numbers of the series to count; None: all.
        """
        labels = self.labels if series is None else self.labels[self.slice_rows(np.asarray(series))]
        known = np.count_nonzero(~np.isnan(labels), axis=0)
        sums = np.nansum(labels, axis=0, dtype=np.float64)
        return np.where(known > 0, sums / np.maximum(known, 1), np.nan)


def patients_of(series: pa.Table) -> pa.Array:
    """Who each series' patient is: the PatientID; where that is empty, the study stands for the patient."""
    unnamed = pc.equal(series["patient_id"], "")
    return pc.if_else(unnamed, series["study_uid"], series["patient_id"]).combine_chunks()


def read_settings(folder: Path) -> dict[str, Any]:
    """The content of index.json, whose `finished` says whether the set is complete.

    Raises:
        DataError: it is missing, damaged or of another version.
    """
    path = folder / "index.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        found = (settings["format"], settings["codec"], tuple(settings["hu_range"]))
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{folder}: no prepared set (index.json is missing); make one with `ichseq prepare`") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: damaged or not ichseq's ({type(error).__name__}); prepare into another folder"
        ) from error
    if found != (FORMAT, CODEC, HU_RANGE):
        raise DataError(
            f"{folder}: prepared by another version of ichseq (format {found[0]}, {found[1]}; this one reads {FORMAT}, "
            f"{CODEC}); prepare it again into another folder, or use the version that made it"
        )
    return dict(settings)


def write_settings(folder: Path, *, finished: bool, **settings: Any) -> None:
    """Write index.json with the versions and the settings given."""
    header = {"format": FORMAT, "codec": CODEC, "hu_range": list(HU_RANGE), "finished": finished}
    write_whole(folder / "index.json", (json.dumps(header | settings, indent=2) + "\n").encode())


def write_index(folder: Path, series: pa.Table, slices: pa.Table, **settings: Any) -> str:
    """Write the tables and index.json, which makes the set a finished one; the same content gives the same bytes.

    Args:
        folder: the prepared folder.
        series: rows as in SERIES_SCHEMA.
        slices: rows as in SLICES_SCHEMA.
        settings: what index.json keeps beside the versions: folds, seed, source and the like.

    Returns:
        The set's key.
    """
    series, slices = series.select(SERIES_SCHEMA.names).cast(SERIES_SCHEMA), slices.select(SLICES_SCHEMA.names)
    slices = slices.cast(SLICES_SCHEMA)
    key = _key_of(series, slices)
    for name, table in (("series.parquet", series), ("slices.parquet", slices)):
        sink = io.BytesIO()
        pq.write_table(table.combine_chunks().replace_schema_metadata({_KEY: key}), sink, compression="zstd")
        write_whole(folder / name, sink.getvalue())
    phantom = bool(np.any(_numbers(series, "phantom")))
    counts = {"series": len(series), "slices": len(slices), "patients": len(patients_of(series).unique())}
    write_settings(folder, finished=True, key=key, phantom=phantom, **settings, counts=counts)
    return key


def _key_of(series: pa.Table, slices: pa.Table) -> str:
    """Hash of identity, order, labels, folds and pixels; file names and the place of the source do not enter."""
    digest = hashlib.sha256(f"{FORMAT} {CODEC} {HU_RANGE}".encode())
    for table, names in (
        (series, ("patient_id", "study_uid", "series_uid", "n_slices", "rows", "columns", "fold", "phantom")),
        (slices, ("sop_uid", "position_mm", *LABELS, "checksum")),
    ):
        for name in names:
            text = pa.types.is_string(table.schema.field(name).type)
            content = "\n".join(table[name].to_pylist()).encode() if text else _numbers(table, name).tobytes()
            digest.update(f"\n{name} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()


def _numbers(table: pa.Table, name: str) -> np.ndarray:
    values = table[name].to_numpy()
    return np.ascontiguousarray(values)


def _read_table(path: Path, schema: pa.Schema, key: str) -> pa.Table:
    try:
        table = pq.read_table(path, memory_map=False)
        found = (table.schema.metadata or {}).get(_KEY, b"").decode()
        table = table.select(schema.names).cast(schema)
    except FileNotFoundError:
        raise DataError(f"{path}: missing; {_AGAIN}") from None
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise DataError(f"{path}: damaged ({type(error).__name__}); {_AGAIN}") from error
    if found != key:
        raise DataError(f"{path}: does not belong to index.json (interrupted, or copied from elsewhere); {_AGAIN}")
    return table
