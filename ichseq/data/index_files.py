"""The files of a prepared set, read and written.

index.json      format, key, HU range, folds, seed, phantom flag, names of the sources, counts, hashes of the tables;
                written last, and sealed (ichseq.documents)
series.parquet  a row a series (SERIES_SCHEMA)
slices.parquet  a row a slice, by series and then from feet to head (SLICES_SCHEMA)
exams.parquet   a row a series, where a table gave labels of exams (EXAMS_SCHEMA)
left_out.csv    file, reason
store/          one file a series (ichseq.data.store)
"""

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ichseq.data.owned import EXAMS, INDEX, SERIES, SLICES
from ichseq.data.store import CODEC, is_range, write_whole
from ichseq.documents import read_document, sealed, unsealed
from ichseq.errors import DataError
from ichseq.files import read_parquet
from ichseq.labels import LABELS
from ichseq.windows import HU_RANGE

FORMAT: Final = 2
"""Version of the tables' layout; goes up with every change that older code could not read."""

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
        ("manufacturer", pa.string()),  # a known one, "other", or "" where the files do not say
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
EXAMS_SCHEMA: Final = pa.schema(
    [
        ("series", pa.int32()),
        *((label, pa.float32()) for label in LABELS),  # NaN where unknown
        *((f"agreement_{label}", pa.float32()) for label in LABELS),  # share of the readers; NaN where not known
    ]
)

_KEY: Final = b"ichseq_key"
_KINDS: Final = {
    "finished": bool,
    "folds": int,
    "seed": int,
    "source": list,
    "key": str,
    "phantom": bool,
    "tables": dict,
}
_CONTENT: Final = b"ichseq_content"
PREPARE_AGAIN: Final = "run `ichseq prepare` again, which does only what is missing"


def patients_of(series: pa.Table) -> pa.Array:
    """Who each series' patient is: the PatientID; where that is empty, the study stands for the patient."""
    unnamed = pc.equal(series["patient_id"], "")
    return pc.if_else(unnamed, series["study_uid"], series["patient_id"]).combine_chunks()


def read_settings(folder: Path) -> dict[str, Any]:
    """The content of index.json, whose `finished` says whether the set is complete.

    Raises:
        DataError: it is missing, damaged or of another version.
    """
    path = folder / INDEX
    try:
        settings = read_document(path)
        found = (settings["format"], settings["codec"], is_range(*settings["hu_range"]))
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{folder}: no prepared set (index.json is missing); make one with `ichseq prepare`") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: damaged or not ichseq's ({type(error).__name__}); prepare into another folder"
        ) from error
    if found != (FORMAT, CODEC, True):
        raise DataError(
            f"{folder}: prepared by another version of ichseq (format {found[0]}, {found[1]}; this one reads {FORMAT}, "
            f"{CODEC}); prepare it again into another folder, or use the version that made it"
        )
    try:
        settings = unsealed(settings)
    except ValueError:
        raise DataError(f"{path}: is not as it was written, so it is damaged or was edited; {PREPARE_AGAIN}") from None
    for name, kind in _KINDS.items():
        if name in settings and type(settings[name]) is not kind:
            raise DataError(
                f"{path}: {name} is {settings[name]!r:.60}, which `prepare` does not write; {PREPARE_AGAIN}"
            )
    return settings


def write_settings(folder: Path, *, finished: bool, hu_range: tuple[int, int] = HU_RANGE, **settings: Any) -> None:
    """Write index.json with the versions, the range in HU that the store keeps, and the settings given."""
    header = {"format": FORMAT, "codec": CODEC, "hu_range": list(hu_range), "finished": finished}
    write_whole(folder / INDEX, (json.dumps(sealed(header | settings), indent=2) + "\n").encode())


def write_index(
    folder: Path,
    series: pa.Table,
    slices: pa.Table,
    exams: pa.Table | None = None,
    *,
    hu_range: tuple[int, int] = HU_RANGE,
    **settings: Any,
) -> str:
    """Write the tables and index.json, which makes the set a finished one; the same content gives the same bytes.

    Args:
        folder: the prepared folder.
        series: rows as in SERIES_SCHEMA.
        slices: rows as in SLICES_SCHEMA.
        exams: rows as in EXAMS_SCHEMA; None: no exam has labels of its own.
        hu_range: in HU, that the store keeps.
        settings: what index.json keeps beside the versions: folds, seed, source and the like.

    Returns:
        The set's key.
    """
    series, slices = series.select(SERIES_SCHEMA.names).cast(SERIES_SCHEMA), slices.select(SLICES_SCHEMA.names)
    slices = slices.cast(SLICES_SCHEMA)
    tables = {SERIES: series, SLICES: slices}
    if exams is not None:
        tables[EXAMS] = exams.select(EXAMS_SCHEMA.names).cast(EXAMS_SCHEMA)
        settings["exam_labels"] = True
    key = _key_of(series, slices, tables.get(EXAMS), hu_range)
    hashes = {}
    for name, table in tables.items():
        sink = io.BytesIO()
        known = {_KEY: key, _CONTENT: _content_of(table)}
        pq.write_table(table.combine_chunks().replace_schema_metadata(known), sink, compression="zstd")
        hashes[name] = hashlib.sha256(sink.getbuffer()).hexdigest()
        write_whole(folder / name, sink.getvalue())
    phantom = bool(np.any(numbers_of(series, "phantom")))
    counts = {"series": len(series), "slices": len(slices), "patients": len(patients_of(series).unique())}
    header: dict[str, Any] = {"finished": True, "hu_range": hu_range, "key": key, "phantom": phantom}
    write_settings(folder, **header, **settings, counts=counts, tables=hashes)
    if exams is None:
        (folder / EXAMS).unlink(missing_ok=True)
    return key


def _key_of(series: pa.Table, slices: pa.Table, exams: pa.Table | None, hu_range: tuple[int, int]) -> str:
    """Hash of identity, order, labels, folds and pixels; file names and the place of the source do not enter."""
    digest = hashlib.sha256(f"{FORMAT} {CODEC} {hu_range}".encode())
    for table, names in (
        (series, ("patient_id", "study_uid", "series_uid", "n_slices", "rows", "columns", "fold", "phantom")),
        (slices, ("sop_uid", "position_mm", *LABELS, "checksum")),
        *([] if exams is None else [(exams, LABELS)]),
    ):
        _add(digest, table, names)
    return digest.hexdigest()


def _content_of(table: pa.Table) -> str:
    """Hash of all columns of a table, which tells whether one that no index.json belongs to is as it was written."""
    digest = hashlib.sha256()
    _add(digest, table, table.schema.names)
    return digest.hexdigest()


def _add(digest: "hashlib._Hash", table: pa.Table, names: Sequence[str]) -> None:
    for name in names:
        text = pa.types.is_string(table.schema.field(name).type)
        content = "\n".join(table[name].to_pylist()).encode() if text else numbers_of(table, name).tobytes()
        digest.update(f"\n{name} {len(content)}\n".encode())
        digest.update(content)


def numbers_of(table: pa.Table, name: str) -> np.ndarray:
    """A column of numbers as one array."""
    values = table[name].to_numpy()
    return np.ascontiguousarray(values)


def read_table(path: Path, schema: pa.Schema, settings: dict[str, Any]) -> pa.Table:
    """The columns of a schema from one of the tables.

    Args:
        path: of the table.
        schema: of the columns that are wanted.
        settings: of the set, as `read_settings` gives them.

    Raises:
        DataError: it is missing, not the one that was written with the set's index.json, or damaged.
    """
    data = _bytes_of(path, PREPARE_AGAIN)
    try:
        whole = hashlib.sha256(data).hexdigest() == settings["tables"][path.name]
        table = read_parquet(data)
        found = (table.schema.metadata or {}).get(_KEY, b"").decode()
        table = table.select(schema.names).cast(schema)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise DataError(f"{path}: damaged ({type(error).__name__}); {PREPARE_AGAIN}") from error
    if found != settings["key"]:
        raise DataError(
            f"{path}: does not belong to index.json (interrupted, or copied from elsewhere); {PREPARE_AGAIN}"
        )
    if not whole:
        raise DataError(f"{path}: damaged (its hash is not that of index.json); {PREPARE_AGAIN}")
    return table


def read_series_there(folder: Path) -> pa.Table:
    """The series of a set that is prepared again, which may have been interrupted before its index.json was written.

    Raises:
        DataError: the table is missing, or not as it was written: the folds stand in it.
    """
    path = folder / SERIES
    remedy = "the folds stand in it; restore it from a copy, or prepare into another folder"
    data = _bytes_of(path, remedy)
    try:
        table = read_parquet(data)
        content = (table.schema.metadata or {})[_CONTENT].decode()
        table = table.select(SERIES_SCHEMA.names).cast(SERIES_SCHEMA)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise DataError(f"{path}: damaged ({type(error).__name__}), and {remedy}") from error
    if content != _content_of(table):
        raise DataError(f"{path}: damaged (its hash is not that of its content), and {remedy}")
    return table


def _bytes_of(path: Path, remedy: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: missing; {remedy}") from None
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror}); {remedy}") from error
