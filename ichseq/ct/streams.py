"""Streams over a part of a file: a stored zip member, and deflated bytes that are unpacked only as far as read."""

import io
import zlib
from typing import BinaryIO, Final

from ichseq.errors import ScanError

MAX_MEMBER_BYTES: Final = 1 << 30
"""What unpacks to more bytes than this is refused: no table of labels is that large."""

MAX_IMAGE_BYTES: Final = 4 * 4096 * 4096 + (16 << 20)
"""The same for what is no table: the largest image that is read, of 4 bytes a pixel, and 16 MB of header."""

_CHECKED: Final = 1 << 20  # bytes that are read at a time for a checksum
_CHUNK: Final = 8192  # deflated bytes handed to zlib at a time; deflate grows at most 1032-fold, so 9 MB a step


class Window(io.RawIOBase):
    """A stretch of a file as a stream: a stored zip member.

    Args:
        base: the file; closed together with this stream.
        name: for messages.
        start: where the stretch begins.
        size: its bytes.
        crc: checksum that `check` holds them against.
    """

    def __init__(self, base: BinaryIO, name: str, *, start: int, size: int, crc: int) -> None:
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

    def fileno(self) -> int:
        return self._base.fileno()

    def check(self) -> None:
        """Hold all bytes against the checksum; where the stream stands is not changed.

        Raises:
            ScanError: they differ.
        """
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


class Inflated(io.RawIOBase):
    """Deflated bytes as a stream, unpacked only as far as it is read and never beyond a bound.

    Args:
        base: stream that stands at the first deflated byte; closed together with this one, if `closes`.
        name: for messages.
        packed: number of deflated bytes; None: to the end of `base`.
        size: number of unpacked bytes that is promised (zip); None: not known (DICOM's deflated transfer syntax).
        crc: checksum to hold the bytes against, if known.
        limit: more unpacked bytes than this are refused.
        closes: whether `base` is.
    """

    def __init__(
        self,
        base: BinaryIO,
        name: str,
        *,
        packed: int | None = None,
        size: int | None = None,
        crc: int | None = None,
        limit: int = MAX_MEMBER_BYTES,
        closes: bool = True,
    ) -> None:
        self._base, self._name, self._left, self._crc, self._closes = base, name, packed, crc, closes
        self._size, self._limit = size, limit if size is None else min(size, limit)
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self._data, self._position, self._done = bytearray(), 0, False
        self._seen, self._sum = 0, 0  # bytes unpacked, those that `check` did not keep too, and their checksum

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

    def _fill(self, wanted: int, *, keep: bool = True) -> None:
        while self._seen < wanted and not self._done:
            asked = _CHUNK if self._left is None else min(_CHUNK, self._left)
            packed = self._inflater.unconsumed_tail or self._base.read(asked)
            if self._left is not None and not self._inflater.unconsumed_tail:
                self._left -= len(packed)
            try:
                piece = self._inflater.decompress(packed, self._limit + 1 - self._seen)
            except zlib.error as error:
                raise ScanError(self._name, "damaged compressed data; get the file again") from error
            self._seen, self._sum = self._seen + len(piece), zlib.crc32(piece, self._sum)
            if keep:
                self._data += piece
            if self._seen > self._limit:
                raise ScanError(self._name, f"unpacks to more than {self._limit} bytes; refused")
            self._done = self._inflater.eof
            if not packed and not self._done:
                raise ScanError(self._name, "truncated (compressed data end early); get the file again")
            if self._done:
                self._check()

    def fileno(self) -> int:
        return self._base.fileno()

    def check(self) -> None:
        """Unpack to the end, where length and checksum are compared; what was not read before is not kept.

        Raises:
            ScanError: they differ, or the data are damaged.
        """
        self._fill(self._limit + 1, keep=False)

    def _check(self) -> None:
        short = self._size is not None and self._seen != self._size
        if short or (self._crc is not None and self._sum != self._crc):
            raise _differs(self._name)

    def close(self) -> None:
        if self._closes:
            self._base.close()
        super().close()
