"""The store: one compressed file a series, Hounsfield units as int16, any slice decoded without its neighbours.

A file is a blosc2 NDArray (.b2nd) of shape (slices, rows, columns), one chunk a slice. Beside the pixels it keeps a
checksum of every slice, so that damage is an error and never a picture. A file is data: it is opened without anything
in it being run, and what it says of itself is checked before memory is taken for it.
"""

import hashlib
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import blosc2
import numpy as np

from ichseq.documents import sealed, unsealed
from ichseq.errors import DataError, counted
from ichseq.files import replacing
from ichseq.windows import HU_RANGE

CODEC: Final = "blosc2-zstd1-shuffle-3"
"""Names how a file is written; goes up with every change of it, so that older files are noticed."""

_BLOCK_BYTES: Final = 256 * 1024  # packs and decodes quickest of 64 KB to a whole slice, on a GE head CT
blosc2.set_releasegil(True)  # so that threads decode side by side, and the loop that trains need not wait
_CPARAMS: Final = {
    "codec": blosc2.Codec.ZSTD,  # LZ4 takes half the time, and 1.3 times the bytes (121 KB a slice of a GE head CT)
    "clevel": 1,
    "splitmode": blosc2.SplitMode.ALWAYS_SPLIT,  # the high bytes by themselves: a tenth quicker
    "filters": [blosc2.Filter.SHUFFLE],
    "filters_meta": [0],
    "typesize": 2,
    "nthreads": 1,
}
_META: Final = "ichseq"
_THREADS: Final = "BLOSC_NTHREADS"
_ENVIRONMENT = threading.Lock()  # it is one for all threads
_MOST_PIXELS: Final = 4096 * 4096  # of a slice; no scan of more is read either
_TABLE: Final = 256  # columns of the table that a checksum sums
_DAMAGED: Final = "prepare the set again: remove this file and run `ichseq prepare`, which does only what is missing"


@dataclass(frozen=True)
class Stored:
    """What a file says of itself.

    Attributes:
        shape: (slices, rows, columns).
        sums: uint64 (slices,), the checksum of each slice.
        notes: what the writer added, plain values.
    """

    shape: tuple[int, int, int]
    sums: np.ndarray
    notes: dict[str, Any]


@dataclass(frozen=True)
class Expected:
    """What a set's index says of a series' file.

    Attributes:
        shape: (slices, rows, columns).
        sums: uint64 (slices,), the checksum of each slice.
    """

    shape: tuple[int, int, int]
    sums: np.ndarray


def is_range(low: int, high: int) -> bool:
    """Whether a store may keep a range in HU: `windows.HU_RANGE` or a wider one, within int16.

    Its least value stands for no slice (`ichseq.geometry.NO_SLICE_HU`).
    """
    return -32768 < low <= HU_RANGE[0] and HU_RANGE[1] <= high <= 32767


def write_series(
    path: Path,
    hu: np.ndarray | Iterable[np.ndarray],
    *,
    hu_range: tuple[int, int] = HU_RANGE,
    notes: dict[str, Any] | None = None,
) -> Stored:
    """Write a series, clipped to a range; the same values and notes give the same bytes.

    The file appears whole or not at all. Only the compressed slices and one block are in memory.

    Args:
        path: the file to write; its folder is made.
        hu: integer (n, rows, columns) in HU, or an iterable of such blocks, one after the other.
        hu_range: in HU, that is kept.
        notes: plain values to keep in the file; looked at after the last block, so reading may add to them.

    Raises:
        DataError: the file cannot be written (read-only or full disk).
    """
    content, stored = pack_series(hu, hu_range=hu_range, notes=notes)
    write_whole(path, content)
    return stored


def pack_series(
    hu: np.ndarray | Iterable[np.ndarray],
    *,
    hu_range: tuple[int, int] = HU_RANGE,
    notes: dict[str, Any] | None = None,
) -> tuple[bytes, Stored]:
    """The bytes that `write_series` writes, and what they will say of themselves."""
    chunks: list[bytes] = []
    sums: list[np.ndarray] = []
    shape: tuple[int, ...] = ()
    for block in [hu] if isinstance(hu, np.ndarray) else hu:
        if shape and block.shape[1:] != shape:
            raise ValueError(f"blocks of {shape} and {block.shape[1:]} pixels in one series")
        shape = block.shape[1:]
        for one in block:
            clipped = np.ascontiguousarray(np.clip(one, *hu_range).astype(np.int16, copy=False))
            chunks.append(blosc2.compress2(clipped, blocksize=_block_rows(shape) * shape[1] * 2, **_CPARAMS))
            sums.append(_checksums(clipped[None]))
    if not chunks:
        raise ValueError("a series without slices is not stored")
    rows, columns = shape
    stored = Stored((len(chunks), rows, columns), np.concatenate(sums), dict(notes or {}))
    with _without_threads():
        array = blosc2.uninit(
            (len(chunks), rows, columns),
            dtype=np.int16,
            chunks=(1, rows, columns),
            blocks=(1, _block_rows(shape), columns),
            cparams=_CPARAMS,
            dparams={"nthreads": 1},
            contiguous=True,  # else each chunk is copied once more at the end
        )
        for i, chunk in enumerate(chunks):
            array.schunk.update_chunk(i, chunk)
        meta = {"codec": CODEC, "sums": stored.sums.tobytes().hex(), "notes": stored.notes}
        array.schunk.vlmeta[_META] = sealed(meta)
        return array.to_cframe(), stored


@contextmanager
def _without_threads() -> Iterator[None]:
    """Keep blosc2 from starting threads for every chunk that a file gets.

    It packs the offsets of the chunks, some hundred bytes, with threads of its own, whatever cparams say; waiting for
    them costs more than compressing the chunk on a busy machine. Only this variable keeps it from that.
    """
    with _ENVIRONMENT:
        before = os.environ.get(_THREADS)
        os.environ[_THREADS] = "1"
        try:
            yield
        finally:
            if before is None:
                del os.environ[_THREADS]
            else:
                os.environ[_THREADS] = before


def _block_rows(shape: tuple[int, ...]) -> int:
    """Rows of a block, a divisor of the slice's: a chunk is then the slice's bytes and decodes straight into place."""
    rows, columns = shape
    fits = [k for k in range(1, rows + 1) if rows % k == 0 and k * columns * 2 <= _BLOCK_BYTES]
    return fits[-1] if fits and fits[-1] * columns * 2 >= _BLOCK_BYTES // 8 else rows


def read_slices(
    path: Path,
    start: int = 0,
    stop: int | None = None,
    *,
    out: np.ndarray | None = None,
    expected: Expected | None = None,
) -> np.ndarray:
    """Decode slices of a series; no other slice is touched. Safe from several threads at once.

    Args:
        path: the series' file.
        start: first slice.
        stop: slice after the last one; None: to the end.
        out: contiguous int16 array to decode into, (slices asked for, rows, columns); None: a new one.
        expected: what the index says of the whole series; None: not compared.

    Returns:
        int16 (slices asked for, rows, columns) in HU.

    Raises:
        DataError: the file is missing, damaged or of another version, or not the one that is expected.
    """
    array, stored = _open(path)
    if expected is not None and stored.shape != expected.shape:
        raise DataError(
            f"{path}: holds {_shape_text(stored.shape)}, and the set's index says {_shape_text(expected.shape)}; run "
            "`ichseq prepare` again"
        )
    wanted = range(stored.shape[0])[start:stop]
    if out is None:
        out = np.empty((len(wanted), *stored.shape[1:]), np.int16)
    elif out.shape != (len(wanted), *stored.shape[1:]) or out.dtype != np.int16 or not out.flags.c_contiguous:
        raise ValueError(f"{path}: out must be contiguous int16 {(len(wanted), *stored.shape[1:])}, not {out.shape}")
    try:
        for k, i in enumerate(wanted):
            # not schunk.decompress_chunk, which holds the interpreter's lock while it decodes
            blosc2.decompress2(array.schunk.get_chunk(i), dst=out[k], nthreads=1)
    except Exception as error:  # blosc2 raises RuntimeError, ValueError and others on damaged bytes
        raise DataError(f"{path}: damaged ({type(error).__name__} while decoding it); {_DAMAGED}") from error
    sums = _checksums(out)
    if not np.array_equal(sums, stored.sums[start:stop]):
        raise DataError(f"{path}: damaged (the checksum of a slice differs); {_DAMAGED}")
    if expected is not None and not np.array_equal(sums, expected.sums[start:stop]):
        raise DataError(f"{path}: holds other slices than the set's index says; {_DAMAGED}")
    return out


def _shape_text(shape: tuple[int, int, int]) -> str:
    return f"{counted(shape[0], 'slice')} of {shape[1]} x {shape[2]}"


def read_stored(path: Path) -> Stored:
    """Shape, checksums and notes of a series' file, without decoding it; raises as `read_slices` does."""
    return _open(path)[1]


def write_whole(path: Path, data: bytes) -> None:
    """Write a file, and its folder, so that it is there whole or not at all (`ichseq.files.replacing`).

    Raises:
        DataError: it cannot be written; what stood there before is untouched.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, several_writers=True) as beside:  # a scheduler may give one task to two workers
            beside.write_bytes(data)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror or error}); check the disk's free space and permissions"
        ) from error


def _open(path: Path) -> tuple[blosc2.NDArray, Stored]:
    try:
        array = blosc2.open(str(path), mode="r", dparams={"nthreads": 1}, deserialize="safe")
        meta = array.schunk.vlmeta[_META]
        codec, sound = meta["codec"], _is_ours(array)
    except Exception as error:  # blosc2 raises RuntimeError, KeyError and others, according to the damage
        if not os.path.exists(path):
            raise DataError(f"{path}: missing; run `ichseq prepare` again, which does only what is missing") from error
        raise DataError(f"{path}: damaged or not a series of the store; {_DAMAGED}") from error
    if codec != CODEC:
        raise DataError(f"{path}: written as {codec}, this version reads {CODEC}; prepare the set again")
    try:
        content = unsealed(meta)
        sums, notes = np.frombuffer(bytes.fromhex(content["sums"]), np.uint64), dict(content["notes"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged (what it says of itself is not as it was written); {_DAMAGED}") from error
    if not sound or len(sums) != array.shape[0]:
        raise DataError(f"{path}: damaged (its parts do not fit together); {_DAMAGED}")
    n, rows, columns = (int(size) for size in array.shape)
    return array, Stored((n, rows, columns), sums, notes)


def _is_ours(array: Any) -> bool:
    """Whether what was opened has the type, the layout and the compression that `pack_series` gives, within bounds."""
    if not isinstance(array, blosc2.NDArray) or len(array.shape) != 3 or array.dtype != np.int16:
        return False
    n, rows, columns = array.shape
    chunks, how = array.schunk, array.schunk.cparams
    return (
        0 < rows * columns <= _MOST_PIXELS
        and chunks.nchunks == n
        and chunks.chunksize == 2 * rows * columns
        and how.codec == _CPARAMS["codec"]
        and {kind for kind in how.filters if kind != blosc2.Filter.NOFILTER} == set(_CPARAMS["filters"])
    )


def _checksums(hu: np.ndarray) -> np.ndarray:
    """Uint64 (n,): a hash of each slice's sums over rows and over columns of a table of its 64-bit words.

    No word can change, and no two trade places, without a row or a column that shows it. A quarter of the time of
    CRC-32 of the whole, 7 % of decoding.
    """
    return np.array([_checksum(one.reshape(-1)) for one in hu], np.uint64)


def _checksum(pixels: np.ndarray) -> int:
    whole = len(pixels) // (4 * _TABLE) * 4 * _TABLE
    table = np.ascontiguousarray(pixels[:whole]).view(np.uint64).reshape(-1, _TABLE)
    digest = hashlib.blake2b(digest_size=8)
    for part in (table.sum(axis=1, dtype=np.uint64), table.sum(axis=0, dtype=np.uint64), pixels[whole:]):
        digest.update(part.tobytes())
    return int.from_bytes(digest.digest(), "little")
