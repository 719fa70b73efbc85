"""What a file is that does not begin as a DICOM file does: packed slices among others would be lost without a word."""

import bz2
import lzma
import struct
import zlib
from collections.abc import Container
from typing import BinaryIO, Final

_PACKED: Final = {  # how a file begins that holds others, or another one
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!\x1a\x07": "rar",
    b"\x28\xb5\x2f\xfd": "zstd",
}
_TAR_MARK: Final = 257, b"ustar"
_LOOKED_AT: Final = 1 << 20  # packed bytes; bzip2 packs up to 900 kB as one block
_UNPACKED: Final = 512
META_MARK: Final = b"DICM\x02\x00"
"""What a file's meta begins with, and its first element's group; 128 bytes of preamble should stand before it."""


def packed_as(start: bytes, stream: BinaryIO) -> tuple[str, bool]:
    """What a file is packed as, "" for nothing known; and whether what is in it may be slices.

    Args:
        start: its first bytes, at least 132 where there are so many.
        stream: the file; where it stands is not kept.
    """
    if start.startswith(b"PK\x03\x04"):
        return "zip", True
    for mark, name in _PACKED.items():
        if start.startswith(mark):
            stream.seek(0)
            inside = _unpacked(name, stream.read(_LOOKED_AT))
            return name, inside is None or META_MARK[:4] in inside or _is_tar(inside)
    stream.seek(0)
    return ("tar", True) if _is_tar(stream.read(_UNPACKED)) else ("", False)


def _is_tar(start: bytes) -> bool:
    place, mark = _TAR_MARK
    return start[place : place + len(mark)] == mark


def _unpacked(name: str, data: bytes) -> bytes | None:
    """The first bytes of what is packed; None where that can't be known."""
    try:
        if name == "gzip":
            return zlib.decompressobj(31).decompress(data, _UNPACKED)
        if name == "bzip2":
            return bz2.BZ2Decompressor().decompress(data, _UNPACKED)
        if name == "xz":
            return lzma.LZMADecompressor(memlimit=1 << 27).decompress(data, _UNPACKED)
    except (OSError, ValueError, zlib.error, lzma.LZMAError, EOFError):
        pass
    return None


def meta_place(start: bytes) -> int:
    """Where the file's meta begins if not after 128 bytes of preamble; -1: nowhere."""
    place = start.find(META_MARK)
    return place + 4 if place >= 0 else -1


def is_big_endian(start: bytes, vrs: Container[str]) -> bool:
    """Whether a file without preamble and meta begins with an element of group 8, high byte first, with a known VR."""
    if len(start) < 8:
        return False
    group, _, vr = struct.unpack(">HH2s", start[:6])
    return group == 8 and vr.decode("latin-1") in vrs
