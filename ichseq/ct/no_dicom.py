"""What a file is that does not begin as a DICOM file does: packed slices among others would be lost without a word."""

import re
from collections.abc import Container
from typing import BinaryIO, Final

from ichseq.ct.streams import packing_of
from ichseq.ct.tar import BLOCK, is_tar

_PACKED: Final = {  # how a file begins that holds others, or another one, and is not opened
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!\x1a\x07": "rar",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x1f\x9d": "compress",
}
_META: Final = re.compile(rb"DICM(?=[\x02\x08]\x00)|(?=\x02\x00\x00\x00UL\x04\x00)")
"""The mark before a file's meta (PS3.10 7.1) with the group of an element behind it, or the meta's first element."""


def packed_as(start: bytes, stream: BinaryIO) -> str:
    """Why slices may be in a file that is not read, and what to do; "" if it is nothing known.

    Args:
        start: its first bytes, at least 132 where there are so many; of a packed file, those that it holds.
        stream: the file; where it stands is not kept.
    """
    stream.seek(0)
    archive = "zip" if start.startswith(b"PK\x03\x04") else "tar" if is_tar(stream.read(BLOCK)) else ""
    if archive:
        return f"a {archive} inside the source; name it as a source of its own"
    name = next((name for mark, name in _PACKED.items() if start.startswith(mark)), "")
    if not name and (again := packing_of(start)):
        name = f"{again}, twice"
    return f"packed as {name}: slices may be in it; unpack it first" if name else ""


def meta_place(head: bytes) -> int:
    """Where the file's meta begins if not after 128 bytes of preamble and its mark; -1: nowhere."""
    found = _META.search(head)
    return found.end() if found else -1


def is_big_endian(start: bytes, vrs: Container[str]) -> bool:
    """Whether a file without preamble and meta begins with an element of group 8, high byte first, with a known VR."""
    return start.startswith(b"\0\x08") and start[4:6].decode("latin-1") in vrs


def is_acr_nema(head: bytes) -> bool:
    """Whether a file begins with two elements of group 8, high byte first and without VR, as files before DICOM may."""
    second = 8 + int.from_bytes(head[4:8], "big")
    return head.startswith(b"\0\x08") and head[second : second + 2] == b"\0\x08"
