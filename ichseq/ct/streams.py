"""Streams over a part of a file: a member of an archive, and packed bytes that are unpacked only as far as read."""

import bz2
import io
import lzma
import os
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Final

from ichseq.errors import ScanError

try:  # zlib's functions, two to three times as fast; required where there are wheels of it
    from isal import isal_zlib as zlib
except ImportError:
    import zlib  # type: ignore[no-redef]

MAX_MEMBER_BYTES: Final = 1 << 30
"""What unpacks to more bytes than this is refused: no table of labels is that large."""

MAX_IMAGE_BYTES: Final = 4 * 4096 * 4096 + (16 << 20)
"""The same for what is no table: the largest image that is read, of 4 bytes a pixel, and 16 MB of header."""

_CHECKED: Final = 1 << 20  # bytes that are read at a time for a checksum
_CHUNK: Final = 8192  # packed bytes read at a time
_STEP: Final = 1 << 20  # bytes unpacked at a time, since 8 kB of xz may hold 50 MB
_XZ_MEMORY: Final = 1 << 27  # the largest of xz's presets takes 65 MB to unpack
_UNPACKERS: Final[dict[str, Callable[[], Any]]] = {
    "deflate": lambda: zlib.decompressobj(-zlib.MAX_WBITS),
    "gzip": lambda: zlib.decompressobj(zlib.MAX_WBITS | 16),
    "bzip2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY),
}
PACKINGS: Final = {"gzip": b"\x1f\x8b\x08", "bzip2": b"BZh", "xz": b"\xfd7zXZ\x00"}
"""How files begin that are packed and can be read all the same."""

# OSError is bz2's word for it; isal's stub declares its error as an instance, hence the comment for mypy.
_DAMAGE: Final[tuple[type[Exception], ...]] = (zlib.error, lzma.LZMAError, OSError, ValueError)  # type: ignore[assignment]
_MARK: Final = max(len(mark) for mark in PACKINGS.values())


class Window(io.RawIOBase):
    """A stretch of a file as a stream: a member of a tar, or a stored one of a zip.

    Args:
        base: the file; closed together with this stream.
        name: for messages.
        start: where the stretch begins.
        size: its bytes.
        crc: checksum that `check` holds them against; None: a tar has none, and `check` looks whether all are there.
    """

    def __init__(self, base: BinaryIO, name: str, *, start: int, size: int, crc: int | None) -> None:
        self._base, self._name, self._start, self._size, self._crc = base, name, start, size, crc
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = max(0, offset + (0, self._position, self._size)[whence])
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        self._base.seek(self._start + self._position)
        data = self._base.read(max(0, min(len(buffer), self._size - self._position)))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def check(self) -> None:
        """Hold all bytes against the checksum; where the stream stands is not changed.

        Raises:
            ScanError: they differ.
        """
        if self._crc is None:
            if self._base.seek(0, 2) < self._start + self._size:
                raise _differs(self._name)
            return
        self._base.seek(self._start)
        left, crc = self._size, 0
        while left and (data := self._base.read(min(left, _CHECKED))):
            left, crc = left - len(data), zlib.crc32(data, crc)
        if left or crc != self._crc:
            raise _differs(self._name)

    def close(self) -> None:
        self._base.close()
        super().close()


def _differs(name: str) -> ScanError:
    return ScanError(name, "damaged (length or checksum differs from the archive's); get it again")


class TooLarge(ScanError):
    """Packed bytes hold more than the bound."""

    def __init__(self, file: str, limit: int) -> None:
        super().__init__(file, f"unpacks to more than {limit} bytes; refused")


class Inflated(io.RawIOBase):
    """Packed bytes as a stream, unpacked only as far as it is read and never beyond a bound.

    Args:
        base: stream that stands at the first packed byte; closed together with this one.
        name: for messages.
        kind: how they are packed: "deflate" (raw, as in a zip), or a key of `PACKINGS`, which may follow each other.
        packed: number of packed bytes; None: to the end of `base`.
        size: number of unpacked bytes that is promised (zip); None: not known (DICOM's deflated transfer syntax).
        crc: checksum to hold the bytes against, if known; files of `PACKINGS` have their own, which is compared too.
        limit: more unpacked bytes than this are refused.
    """

    def __init__(
        self,
        base: BinaryIO,
        name: str,
        *,
        kind: str = "deflate",
        packed: int | None = None,
        size: int | None = None,
        crc: int | None = None,
        limit: int = MAX_MEMBER_BYTES,
    ) -> None:
        self._base, self._name, self._kind, self._left, self._crc = base, name, kind, packed, crc
        self._size, self._limit = size, limit if size is None else min(size, limit)
        self._unpacker, self._packed = _UNPACKERS[kind](), b""  # packed bytes that were read and not yet unpacked
        self._data, self._position, self._done = bytearray(), 0, False
        self._seen, self._sum = 0, 0  # bytes unpacked, those that were not kept too, and their checksum

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence == 2:
            self._fill(self._limit + 1)
        self._position = max(0, offset + (0, self._position, len(self._data))[whence])
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        wanted = self._position + len(buffer)
        if self._seen > len(self._data) and wanted > len(self._data):
            raise ValueError("read after the rest was checked, which is not kept")
        self._fill(wanted)
        data = self._data[self._position : self._position + len(buffer)]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def pieces(self) -> Iterator[bytes]:
        """What is not unpacked yet, piece by piece, without keeping it; at the end length and checksum are compared.

        Raises:
            ScanError: they differ, the data are damaged, or more than the bound.
        """
        while not self._done:
            yield self._unpack()

    def check(self) -> None:
        """Unpack to the end, as `pieces`; what was not read before is not kept."""
        for _ in self.pieces():
            pass

    def _fill(self, wanted: int) -> None:
        while self._seen < wanted and not self._done:
            self._data += self._unpack()

    def _unpack(self) -> bytes:
        """The next piece, which may be empty."""
        if self._seen > self._limit:
            raise TooLarge(self._name, self._limit)
        asked = not self._packed and getattr(self._unpacker, "needs_input", True)  # zlib's objects always need some
        packed = self._read() if asked else self._packed
        try:
            piece: bytes = self._unpacker.decompress(packed, min(_STEP, self._limit + 1 - self._seen))
        except _DAMAGE as error:
            raise ScanError(self._name, "damaged compressed data; get the file again") from error
        self._packed = getattr(self._unpacker, "unconsumed_tail", b"")  # the others keep it themselves
        self._seen += len(piece)
        if self._crc is not None:
            self._sum = zlib.crc32(piece, self._sum)
        if self._seen > self._limit:
            raise TooLarge(self._name, self._limit)
        if self._unpacker.eof:
            self._done = not self._goes_on()
        elif asked and not packed and not piece:
            if self._left == 0 and self._size is None:  # it is the bound that ends them
                raise TooLarge(self._name, self._limit)
            raise ScanError(self._name, "truncated (compressed data end early); get the file again")
        if self._done and (
            (self._size is not None and self._seen != self._size) or (self._crc is not None and self._sum != self._crc)
        ):
            raise _differs(self._name)
        return piece

    def _read(self) -> bytes:
        packed = self._base.read(_CHUNK if self._left is None else min(_CHUNK, self._left))
        if self._left is not None:
            self._left -= len(packed)
        return packed

    def _goes_on(self) -> bool:
        """Whether another packed part follows the one that has ended, as `cat a.gz b.gz` and pbzip2 make them."""
        if self._kind not in PACKINGS:
            return False
        rest: bytes = self._unpacker.unused_data.lstrip(b"\0")
        while len(rest) < _MARK and (more := self._read()):
            rest = (rest + more).lstrip(b"\0")
        if not rest.startswith(PACKINGS[self._kind]):
            return False
        self._unpacker, self._packed = _UNPACKERS[self._kind](), rest
        return True

    def close(self) -> None:
        self._base.close()
        super().close()


def size_of(stream: BinaryIO) -> int:
    """Bytes of a file; the stream stays where it stands, and what it has read ahead stays with it, if it is on disk."""
    try:
        return os.fstat(stream.fileno()).st_size
    except io.UnsupportedOperation:
        place = stream.tell()
        size = stream.seek(0, os.SEEK_END)
        stream.seek(place)
        return size


def packing_of(start: bytes) -> str | None:
    """The key of `PACKINGS` that a file's first bytes begin as; None: none, or a DICOM file whose preamble does."""
    if start[128:132] == b"DICM":
        return None
    return next((kind for kind, mark in PACKINGS.items() if start.startswith(mark)), None)


def unpacked(stream: BinaryIO, name: str) -> BinaryIO:
    """A file, or what it holds, if it is packed by gzip, bzip2 or xz: no more than an image can be.

    Args:
        stream: the file, at its beginning; if it is packed, it closes with the stream returned.
        name: for messages.

    Returns:
        The same stream if the file is not packed, else one whose `raw` is `Inflated`.
    """
    kind = packing_of(stream.read(132))
    stream.seek(0)
    return stream if kind is None else io.BufferedReader(unpacking(stream, name, kind, MAX_IMAGE_BYTES))


def unpacking(stream: BinaryIO, name: str, kind: str, limit: int) -> Inflated:
    """What a packed file holds, within a bound that counts for its packed bytes too; arguments as for `Inflated`."""
    packed = limit + (limit >> 6)  # what can't be packed grows by less than a hundredth
    return Inflated(stream, name, kind=kind, packed=packed, limit=limit)
