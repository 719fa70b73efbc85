"""What a worker of `prepare` does: read the headers of some files; put the slices of some series into the store.

Everything a worker is given and gives back is flat (numpy and Arrow), so that any joblib backend can carry it.
"""

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from ichseq.ct.archive import FileList
from ichseq.ct.described import described
from ichseq.ct.left_out import LeftOut, SliceError
from ichseq.ct.reconstruction import RECONSTRUCTION_FIELDS
from ichseq.ct.scan import Headers, scan_headers
from ichseq.ct.series import Series, make_series
from ichseq.data.owned import is_place, place_of
from ichseq.data.source_states import add_state, state_of, states_there
from ichseq.data.store import CODEC, Stored, pack_series, read_stored, write_whole
from ichseq.errors import DataError
from ichseq.windows import HU_RANGE
from ichseq.workers import note

# Columns of a header that say nothing about the pixels.
_NOT_OF_THE_PIXELS: Final = ("file", "stamp", "noted", *(name for name, _ in RECONSTRUCTION_FIELDS))


@dataclass(frozen=True)
class Packed:
    """A series that is in the store.

    Attributes:
        row: its row of SERIES_SCHEMA, less what only the whole set knows.
        slices: its rows of SLICES_SCHEMA, less series and labels.
        order: sorts the series of a set, the same way wherever their files lie.
    """

    row: dict[str, Any]
    slices: pa.RecordBatch
    order: tuple[Any, ...]


def scan_piece(files: FileList, first: int) -> tuple[Headers, int]:
    """Read the headers of some files, of which the first has this number in the whole list; and how many files."""
    return scan_headers(files, first=first), len(files)


def pack_batch(
    pieces: list[tuple[FileList, Headers]],
    folder: Path,
    notes: Path,
    key: str,
    hu_range: tuple[int, int],
) -> tuple[list[Packed], list[LeftOut], int, int]:
    """What `pack_groups` gives, and how many slices are done."""
    packed, left_out, read = pack_groups(pieces, folder, notes, key, hu_range)
    return packed, left_out, read, sum(len(headers) for _, headers in pieces)


def pack_groups(
    groups: Sequence[tuple[FileList, Headers]], folder: Path, notes: Path, key: str, hu_range: tuple[int, int]
) -> tuple[list[Packed], list[LeftOut], int]:
    """Put the series of some groups of headers (`group_headers`) into the store below a folder.

    A series whose file is there, whole and made from its slices as they still are, is not read again. A slice that
    cannot be decoded is left out and the series goes on without it; the next run tries again, as the error may have
    passed.

    Args:
        groups: files and headers of each.
        folder: the prepared folder.
        notes: where the slice is noted that is being read (`ichseq.workers.note`).
        key: enters the files' names, so that without it headers can't be tried on them; "": none.
        hu_range: in HU, that is kept.

    Returns:
        The series, what was left out of them, and how many of them were read now.

    Raises:
        DataError: the store cannot be written.
    """
    packed: list[Packed] = []
    left_out: list[LeftOut] = []
    read, known = 0, states_there(folder)
    how = CODEC if hu_range == HU_RANGE else f"{CODEC} {hu_range}"  # a file of another range is none of this set
    with ThreadPoolExecutor(1) as thread:
        writing: list[Future[None]] = []
        for files, headers in groups:
            found, out = make_series(files, headers)
            left_out += out
            content, state = _content(headers), state_of(files)
            for series in found:
                name = hashlib.sha256(f"{how}\n{content}\n{series.key}{key}".encode()).hexdigest()[:40]
                place, stored = _still_good(folder, name, series, known, state)
                if stored is None:
                    data, stored = _pack(series, notes, hu_range)
                    place = _place(name, stored)
                    if data:  # the disk is waited for while the next series is read
                        read += 1
                        _finish(writing)
                        writing.append(thread.submit(_write, folder, place, data, state))
                bad = dict(stored.notes["left_out"])
                left_out += [LeftOut(series.files[k], reason) for k, reason in bad.items()]
                if len(bad) < len(series):
                    packed.append(_packed(place, series, stored, [k for k in range(len(series)) if k not in bad]))
        _finish(writing)
    note(notes, "")
    return packed, left_out, read


def _write(folder: Path, place: str, data: bytes, state: str) -> None:
    add_state(folder, place, state)  # first: the name tells the bytes, and a run that is killed loses no file
    write_whole(folder / place, data)


def _finish(writing: "list[Future[None]]") -> None:
    while writing:
        writing.pop().result()


def _content(headers: Headers) -> str:
    """Hash of what the headers say of the pixels, independent of the files' names and order."""
    kept = [name for name in headers.numbers.dtype.names or () if name not in _NOT_OF_THE_PIXELS]
    rows = sorted(
        headers.sop_uid[k] + b"\0" + b"\0".join(headers.numbers[name][k].tobytes() for name in kept)
        for k in range(len(headers))
    )
    return hashlib.sha256(b"\n".join(rows)).hexdigest()


def _place(name: str, stored: Stored) -> str:
    """Path of a series' file below the prepared folder.

    It follows from the headers (`name`) and from what the file holds, so that no file is ever overwritten by another
    one: until the new index is written, the old one has the pixels that belong to it.
    """
    digest = hashlib.sha256(stored.sums.tobytes() + json.dumps(stored.notes, sort_keys=True).encode())
    return place_of(name, digest.hexdigest()[:16])


def _still_good(
    folder: Path, name: str, series: Series, known: Mapping[str, str], state: str
) -> tuple[str, Stored | None]:
    """Place and content of the series' file that need not be read again, as it was made from the same state."""
    for path in folder.glob(place_of(name, "*")):
        place = path.relative_to(folder).as_posix()
        if is_place(place) and state and known.get(place) == state:
            with suppress(DataError):  # damaged: it is written again
                stored = read_stored(path)
                if stored.shape == series.shape and not stored.notes["left_out"]:
                    return place, stored
    return "", None


def _pack(series: Series, reading: Path, hu_range: tuple[int, int]) -> tuple[bytes, Stored]:
    """Read a series, a slice at a time: the bytes for its file, none if no slice can be read."""
    notes: dict[str, Any] = {"left_out": [], "warnings": []}
    slices = _readable(series, notes, reading)
    first = next(slices, None)
    if first is None:
        return b"", Stored((0, *series.shape[1:]), np.empty(0, np.uint64), notes)
    return pack_series(itertools.chain([first], slices), hu_range=hu_range, notes=notes)


def _readable(series: Series, notes: dict[str, Any], reading: Path) -> Iterator[np.ndarray]:
    """The slices that can be read, (1, rows, columns) each; at the end `notes` says what happened on the way."""
    bad: list[list[Any]] = notes["left_out"]
    for k in range(len(series)):
        note(reading, series.files[k])
        try:
            yield series.read(k, k + 1)
        except SliceError as error:
            bad.append([k, error.reason])
    notes["warnings"] = list(series.warnings)
    if bad:
        notes["warnings"].append(f"{len(bad)} of {len(series)} slices could not be read and are left out")


def _packed(place: str, series: Series, stored: Stored, kept: list[int]) -> Packed:
    n, rows, columns = stored.shape
    row = {
        "patient_id": series.patient_id,
        "study_uid": series.study_uid,
        "series_uid": series.series_uid,
        "store": place,
        "n_slices": n,
        "rows": rows,
        "columns": columns,
        "spacing_row_mm": series.spacing_mm[0],
        "spacing_column_mm": series.spacing_mm[1],
        "phantom": series.phantom,
        "manufacturer": described(series).manufacturer,
        "warnings": "\n".join(stored.notes["warnings"]),
    }
    slices = pa.record_batch(
        {
            "slice_index": pa.array(range(n), pa.int32()),
            "sop_uid": pa.array([series.sop_uids[k] for k in kept], pa.string()),
            "file": pa.array([series.files[k] for k in kept], pa.string()),
            "position_mm": pa.array(series.positions_mm[kept], pa.float64()),
            "checksum": pa.array(stored.sums, pa.uint64()),
        }
    )
    identity = (series.patient_id, series.study_uid, series.series_uid)
    return Packed(row, slices, (*identity, rows, columns, series.sop_uids[0]))
