"""Label files of slices: the long CSV of the RSNA 2019 set and a wide one, read into flat arrays and checked.

long  ID,Label                 ID = <SOPInstanceUID>_<label>, six rows a slice (the competition's layout)
wide  sop_uid,epidural,...     a row a slice; columns may be absent and cells empty: unknown

Those of exams are `ichseq.data.exam_table`'s.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from ichseq.data.label_columns import SLICE_ID, WANTED, columns_of, is_slice_table, plain_name, refuse_repeated
from ichseq.errors import DataError
from ichseq.labels import LABELS
from ichseq.predictions.schema import PREDICTION_COLUMNS

_BLOCK_BYTES: Final = 16 << 20  # read at a time, so that 4.5 million rows never stand in memory as text


@dataclass(frozen=True)
class LabelTable:
    """Labels of slices.

    Attributes:
        name: the file they come from, for messages.
        sop_uid: string (n,), each once.
        values: float32 (n, 6) in the order of LABELS: 0, 1, or NaN where unknown.
        inconsistent: number of slices whose `any` contradicts their five kinds; they are kept as they stand.
    """

    name: str
    sop_uid: pa.Array
    values: np.ndarray
    inconsistent: int

    def match(self, sop_uids: pa.Array) -> tuple[np.ndarray, int]:
        """Labels of the slices given, and the number of labelled slices that are not among them.

        Returns:
            float32 (len(sop_uids), 6), NaN where unknown; number of rows of this table without an image.
        """
        found = pc.index_in(sop_uids, value_set=self.sop_uid).fill_null(-1).to_numpy(zero_copy_only=False)
        values = np.full((len(found), len(LABELS)), np.nan, np.float32)
        values[found >= 0] = self.values[found[found >= 0]]
        return values, len(self.sop_uid) - len(np.unique(found[found >= 0]))


def read_labels(source: Path | BinaryIO, name: str | None = None) -> LabelTable:
    """Read a label file; which of the two layouts it has shows in its columns.

    Args:
        source: a CSV file, or an open stream of one.
        name: what messages call it; None: the path.

    Raises:
        DataError: the file is missing or no CSV of either layout, names an unknown label, holds a value other than 0
            and 1, or contradicts itself.
    """
    name = name or str(source)
    try:
        with pyarrow.csv.open_csv(
            source,
            read_options=pyarrow.csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False),
            convert_options=pyarrow.csv.ConvertOptions(column_types=_column_types(source), strings_can_be_null=True),
        ) as reader:
            columns = reader.schema.names
            refuse_repeated(columns, name)
            if not is_slice_table(columns):
                raise DataError(f"{name}: its columns are {', '.join(columns[:12])}; expected are {WANTED}")
            if set(columns) == {"ID", "Label"}:
                pieces = _long_pieces(reader, name)
            else:
                pieces = _wide_pieces(reader, columns, name)
            return _merge(name, list(pieces))
    except (FileNotFoundError, IsADirectoryError):
        raise DataError(f"{name}: no such file; give the labels' CSV") from None
    except pa.ArrowException as error:
        detail = re.sub(
            r"(, got \d+): .*", r"\1", " ".join(str(error).split())
        )  # less the row, which may name a patient
        raise DataError(f"{name}: not a readable label file ({detail}); labels are 0, 1 or empty") from error
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror or error}); check the file") from error


def merge_tables(tables: Sequence[LabelTable]) -> LabelTable:
    """Several tables as one.

    Raises:
        DataError: they contradict each other.
    """
    if len(tables) == 1:
        return tables[0]
    pieces = [(table.sop_uid, k, table.values[:, k]) for table in tables for k in range(len(LABELS))]
    return _merge(", ".join(table.name for table in tables), pieces)


def _column_types(source: Path | BinaryIO) -> dict[str, pa.DataType]:
    columns = ["ID", "Label", SLICE_ID, "SOPInstanceUID", *LABELS]
    columns += columns_of(source) if isinstance(source, Path) else []
    numbers = {column: pa.float32() for column in columns if column == "Label" or plain_name(column) in LABELS}
    return numbers | {column: pa.string() for column in columns if column == "ID" or plain_name(column) == SLICE_ID}


_Piece = tuple[pa.Array, int, np.ndarray]  # SOPInstanceUIDs, the label's place, values float32 (NaN: empty)


def _long_pieces(reader: Any, name: str) -> Iterator[_Piece]:
    for batch in reader:
        ids, values = batch.column("ID").fill_null(""), _checked_values(batch, "Label", "ID", name)
        taken = np.zeros(len(ids), bool)
        for k, label in enumerate(LABELS):
            chosen = pc.ends_with(ids, f"_{label}")
            mask = chosen.to_numpy(zero_copy_only=False)
            taken |= mask
            yield pc.utf8_slice_codeunits(ids.filter(chosen), 0, -len(label) - 1), k, values[mask]
        if not taken.all():
            first = ids[int(np.argmin(taken))].as_py()
            raise DataError(f"{name}: unknown label in ID {first!r}; an ID ends in _ and one of {', '.join(LABELS)}")


def _wide_pieces(reader: Any, columns: list[str], name: str) -> Iterator[_Piece]:
    known = {plain_name(column): column for column in columns}
    uid, given = known[SLICE_ID], [label for label in LABELS if label in known]
    unknown = [column for ours, column in known.items() if ours not in PREDICTION_COLUMNS]
    if unknown or not given:
        found = f"unknown label {unknown[0]!r}" if unknown else "no label"
        raise DataError(f"{name}: {found} among its columns; the labels are {', '.join(LABELS)}")
    for batch in reader:
        ids = batch.column(uid).fill_null("")
        for label in given:
            yield ids, LABELS.index(label), _checked_values(batch, known[label], uid, name)


def _checked_values(batch: pa.RecordBatch, column: str, key: str, name: str) -> np.ndarray:
    values = batch.column(column).to_numpy(zero_copy_only=False).astype(np.float32)
    wrong = ~np.isnan(values) & (values != 0) & (values != 1)
    if wrong.any():
        i = int(np.argmax(wrong))
        raise DataError(
            f"{name}: {column} of {batch.column(key)[i].as_py()!r} is {values[i]:g}; a label is 0, 1 or empty (unknown)"
        )
    return values


def _merge(name: str, pieces: list[_Piece]) -> LabelTable:
    """One row a slice; a label that stands twice must say the same twice."""
    uids: pa.Array = pa.chunked_array([piece[0] for piece in pieces], pa.string()).combine_chunks()
    encoded = uids.dictionary_encode()
    row = encoded.indices.to_numpy(zero_copy_only=False)
    column = np.repeat([piece[1] for piece in pieces], [len(piece[2]) for piece in pieces]).astype(np.int8)
    value = np.concatenate([piece[2] for piece in pieces] or [np.empty(0, np.float32)])
    values = np.full((len(encoded.dictionary), len(LABELS)), np.nan, np.float32)
    known = ~np.isnan(value)
    values[row[known], column[known]] = value[known]
    other = known & (values[row, column] != value)
    if other.any():
        i = int(np.argmax(other))
        raise DataError(
            f"{name}: two rows contradict each other: {encoded.dictionary[int(row[i])].as_py()}_{LABELS[column[i]]} is "
            "0 in one and 1 in another; remove the wrong one"
        )
    kinds, anything = values[:, :-1], values[:, -1]
    missed = (anything == 0) & (kinds == 1).any(axis=1)
    groundless = (anything == 1) & (kinds == 0).all(axis=1)
    return LabelTable(name, encoded.dictionary, values, int(np.count_nonzero(missed | groundless)))
