"""Headers of many files as flat columns, and which of them form a series: the layer that preparing at scale works on.

    files = list_files(source)                                   # once, in the parent
    parts = [scan_headers(piece, first=k) for k, piece in ...]   # in workers: piece = files.take(range(k, k + 1000))
    headers = put_together(Headers.concatenate(parts))           # in the parent, ichseq.ct.together
    for group in group_headers(headers): ...                     # rows of one SeriesInstanceUID
        part = headers.take(group)                               # in workers, again:
        series, left_out = make_series(files.take(part.numbers["file"]), part)   # ichseq.ct.series

Everything handed over is a few numpy arrays, whatever the number of files.
"""

import struct
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from ichseq.ct.archive import FileList
from ichseq.ct.dicom import IMAGE_DTYPE, Header, read_header
from ichseq.ct.left_out import LeftOut, SliceError
from ichseq.errors import ScanError, counted

ROW_DTYPE: Final = np.dtype(
    [("file", "i4"), ("stamp", "u4"), *((name, IMAGE_DTYPE[name]) for name in IMAGE_DTYPE.names or ())]
)
"""IMAGE_DTYPE and, first, the file's number in the list that was scanned, and its `stamp_of`."""

CHANGED: Final = "changed since its header was read; run again, and leave the files as they are meanwhile"

TEXTS: Final = ("patient_id", "study_uid", "series_uid", "sop_uid", "kernel", "syntax")


@dataclass(frozen=True)
class Headers:
    """Headers of n usable slices, a row each, and what was left out.

    Attributes:
        numbers: ROW_DTYPE (n,).
        patient_id, study_uid, series_uid, sop_uid, kernel, syntax: numpy bytes (n,), UTF-8.
        left_out: files that are no usable slice, with reasons.
        dicom_files: number of files that were DICOM at all.
    """

    numbers: np.ndarray
    patient_id: np.ndarray
    study_uid: np.ndarray
    series_uid: np.ndarray
    sop_uid: np.ndarray
    kernel: np.ndarray
    syntax: np.ndarray
    left_out: list[LeftOut] = field(default_factory=list)
    dicom_files: int = 0

    def __len__(self) -> int:
        return len(self.numbers)

    def text(self, column: str, row: int) -> str:
        """One entry of a text column."""
        value: bytes = getattr(self, column)[row]
        return value.decode("utf-8")

    def take(self, rows: Sequence[int] | np.ndarray) -> "Headers":
        """The rows given, in that order; `left_out` stays behind."""
        chosen = np.asarray(rows, np.intp)
        return _table(self.numbers[chosen], [getattr(self, name)[chosen] for name in TEXTS], [], len(chosen))

    @staticmethod
    def concatenate(parts: Sequence["Headers"]) -> "Headers":
        """Join scans of parts of one file list."""
        parts = parts or [scan_headers(None)]
        texts = [np.concatenate([getattr(part, name) for part in parts]) for name in TEXTS]
        left_out = [item for part in parts for item in part.left_out]
        numbers = np.concatenate([part.numbers for part in parts])
        return _table(numbers, texts, left_out, sum(part.dicom_files for part in parts))


def _table(numbers: np.ndarray, texts: list[np.ndarray], left_out: list[LeftOut], dicom_files: int) -> Headers:
    patient_id, study_uid, series_uid, sop_uid, kernel, syntax = texts
    return Headers(numbers, patient_id, study_uid, series_uid, sop_uid, kernel, syntax, left_out, dicom_files)


def scan_headers(
    files: FileList | None,
    *,
    first: int = 0,
    need_position: bool = True,
    progress: Callable[[int], None] | None = None,
) -> Headers:
    """Read the header of every file of a list; no pixels. Never raises for a bad file: it is left out with a reason.

    Args:
        files: the whole list or a piece of it; None: no file.
        first: number of the piece's first file in the whole list; added to the column "file".
        need_position: False if the slices will be ordered by number or name, and need no position.
        progress: called with the number of files done, after each.
    """
    rows: list[tuple] = []
    texts: list[tuple[bytes, ...]] = []
    left_out: list[LeftOut] = []
    dicom_files = 0
    for i in range(len(files) if files is not None else 0):
        assert files is not None
        try:
            stamp, header = _scan_one(files, i, need_position)
            rows.append((first + i, stamp, *header.numbers))
            texts.append(tuple(getattr(header, name).encode("utf-8") for name in TEXTS))
            dicom_files += 1
        except SliceError as error:
            left_out.append(error.left_out)
            dicom_files += error.is_dicom
        if progress is not None:
            progress(i + 1)
    columns = [np.array([text[k] for text in texts], np.bytes_) for k in range(len(TEXTS))]
    return _table(np.array(rows, ROW_DTYPE), columns, left_out, dicom_files)


def _scan_one(files: FileList, i: int, need_position: bool) -> tuple[int, Header]:
    name = files.name(i)
    try:
        stamp = stamp_of(files, i)  # before the header: what changes while it is read is noticed later
        with files.open(i) as stream:
            size = int(files.size[i]) if files.archive[i] >= 0 else None
            return stamp, read_header(stream, name, size=size, need_position=need_position)
    except SliceError:
        raise
    except ScanError as error:  # it could not even be opened
        raise SliceError(name, error.reason, is_dicom=False) from error


def stamp_of(files: FileList, i: int) -> int:
    """Stands for the size of a file and the time when its content was changed; of a member, those of its archive.

    Raises:
        ScanError: it is not there any more.
    """
    status = files.status(i)
    return zlib.crc32(struct.pack("<qq", status.st_size, status.st_mtime_ns))


def check_unchanged(files: FileList, headers: Headers, row: int) -> None:
    """See that a file is the one whose header was read: what the header says of its pixels holds for no other.

    To be asked after the file was opened and read, so that it holds for what was read.

    Args:
        files: entry k is the file of row k of `headers`.
        headers: the slices.
        row: which one.

    Raises:
        SliceError: it is not.
        ScanError: it is not there any more.
    """
    if stamp_of(files, row) != headers.numbers["stamp"][row]:
        raise SliceError(files.name(row), CHANGED)


def group_headers(headers: Headers) -> list[np.ndarray]:
    """Row numbers of each series, sorted by patient, study and series UID; independent of the order of the files.

    A SeriesInstanceUID that two studies share makes a series for each; `ichseq.ct.together.put_together` sees first
    to ids that differ within a study or a series.
    """
    if len(headers) == 0:
        return []
    codes = [np.unique(getattr(headers, name), return_inverse=True)[1] for name in TEXTS[:3]]
    order = np.lexsort(codes[::-1])
    changes = np.any([code[order][1:] != code[order][:-1] for code in codes], axis=0)
    return np.split(order, np.flatnonzero(changes) + 1)


def nothing_usable(files: FileList, dicom_files: int, left_out: Sequence[LeftOut]) -> ScanError:
    """The error for a source without a usable slice: what was found instead, most frequent reason first."""
    shown = ", ".join(files.sources[:3]) + (f" and {len(files.sources) - 3} more" if len(files.sources) > 3 else "")
    if not dicom_files and all(item.expected for item in left_out):
        return ScanError("", f"no DICOM file in {shown} ({counted(len(files), 'file')} looked at); check the path")
    examples = {item.reason: item.file for item in reversed(left_out)}
    reasons = Counter(item.reason for item in left_out).most_common(3)
    found = "; ".join(f"{count} x {reason} ({examples[reason]})" for reason, count in reasons)
    return ScanError("", f"no {'usable CT slice' if dicom_files else 'DICOM file'} in {shown}: {found}")
