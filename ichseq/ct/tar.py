"""What a tar holds, and where: its headers walked one by one, its members read from their places without unpacking.

Python's tarfile is not used: it ends without a word where a header is damaged, and reads a long header whole.
A packed tar has no places to read from. It is unpacked into memory, if it is small enough for that.
"""

import io
import os
import re
from collections.abc import Iterator
from typing import BinaryIO, Final, NamedTuple

from ichseq.ct.streams import TooLarge, packing_of, unpacking
from ichseq.errors import ScanError

BLOCK: Final = 512
MAX_UNPACKED_TAR: Final = 1 << 29
"""A packed tar of more bytes is refused: it is held in memory, by every process that reads of it."""

_MAX_HEADER: Final = 1 << 16  # bytes of a member's long name or pax records: paths end at 4 kB
_ZEROS: Final = 1 << 20  # bytes looked at together where zeros follow a tar's end
_REGULAR: Final = b"0\x007"
_WITHOUT_DATA: Final = b"123456"
_SPARSE: Final = "a sparse file in a tar, which is not read; pack it anew without --sparse"
_NOT_READ: Final = {  # by the type in the header (POSIX pax, "ustar Interchange Format"; GNU tar)
    b"1": "a link to another member of the tar, which is read in its own place",
    b"2": "a symbolic link in a tar, which is not followed; pack the file that it leads to (tar --dereference)",
    b"3": "not a regular file",
    b"4": "not a regular file",
    b"6": "not a regular file",
    b"S": _SPARSE,
}
_kept: dict[tuple[str, int, int], bytes] = {}
"""The packed tar that was read last, unpacked, by path, bytes and time."""


class Member(NamedTuple):
    """A member that is no folder: where its bytes begin, how many there are, and why they are not read ("": they are).

    `linked`: it is a second name of another member, so nothing is missing.
    """

    name: bytes
    start: int
    size: int
    reason: str
    linked: bool


def is_tar(block: bytes) -> bool:
    """Whether a file's first 512 bytes are a tar's header, by its checksum."""
    if len(block) < BLOCK or not block.strip(b"\0"):
        return False
    try:
        wanted = _number(block[148:156])
    except ValueError:
        return False
    counted = block[:148] + b" " * 8 + block[156:]
    total = sum(counted)
    if wanted == total:
        return True
    return wanted == total - 256 * sum(byte > 127 for byte in counted)  # some writers summed signed bytes


def begins_as_tar(file: BinaryIO, name: str) -> bool:
    """Whether a file is a tar, packed or not, by its first bytes; it may be closed then.

    Raises:
        ScanError: it is packed and damaged.
    """
    start = file.read(BLOCK)
    if kind := packing_of(start):
        file.seek(0)
        start = unpacking(file, name, kind, MAX_UNPACKED_TAR).read(BLOCK)
    return is_tar(start)


def open_tar(path: str) -> BinaryIO:
    """A tar as a stream of its own, unpacked into memory if it is packed.

    Raises:
        OSError: it can't be opened.
        ScanError: it is packed, and damaged or too large.
    """
    file = open(path, "rb")  # noqa: SIM115 - returned, or closed below
    kind = packing_of(file.read(BLOCK))
    if kind is None:
        return file
    with file:
        status = os.fstat(file.fileno())
        key = path, status.st_size, status.st_mtime_ns
        whole = _kept.get(key)
        if whole is None:
            _kept.clear()  # before the next one comes, since two would take twice the memory
            file.seek(0)
            whole = _kept[key] = _unpacked(file, path, kind)
    return io.BytesIO(whole)


def _unpacked(file: BinaryIO, path: str, kind: str) -> bytes:
    whole = io.BytesIO()
    try:
        for piece in unpacking(file, path, kind, MAX_UNPACKED_TAR).pieces():
            whole.write(piece)
    except TooLarge as error:
        tool = {"gzip": "gunzip", "bzip2": "bunzip2", "xz": "unxz"}[kind]
        reason = f"a packed tar of more than {MAX_UNPACKED_TAR >> 20} MB; make a plain tar of it first ({tool})"
        raise ScanError(path, reason) from error
    return whole.getvalue()  # the same memory, not a copy


def walk(stream: BinaryIO) -> Iterator[Member]:
    """The members of a tar in the order in which they lie, folders aside; several archives one after the other too.

    Zeros end an archive, but a lost part of a file reads as zeros too: what stands behind them has to be a header.

    Raises:
        ScanError: without a file's name: damaged from here on, or cut off.
    """
    end = stream.seek(0, os.SEEK_END)
    place, ended, long_name, pax = 0, False, b"", dict[bytes, bytes]()
    while stream.seek(place) <= end - BLOCK:
        block = stream.read(BLOCK)
        if ended := not block.strip(b"\0"):
            place = _after_zeros(stream, place)
            continue
        place += BLOCK
        if not is_tar(block):
            raise ScanError("", f"damaged tar: no header at byte {place - BLOCK}; get the archive again")
        kind = block[156:157]
        try:
            size = _decimal(pax[b"size"]) if b"size" in pax else _number(block[124:136])
            if kind in b"xXgLK":
                data = _header(stream, _number(block[124:136]))
                place += _blocks(len(data))
                long_name = data.partition(b"\0")[0] if kind == b"L" else long_name
                pax = _pax(data) if kind in b"xX" else pax
                continue
        except ValueError:
            raise ScanError("", f"damaged tar: header at byte {place - BLOCK}; get the archive again") from None
        if kind == b"S":
            place = _after_sparse(stream, block, place)
        name = pax.get(b"path", long_name) or _name(block)
        size = 0 if kind in _WITHOUT_DATA else size
        if kind not in b"5DV" and not (kind == b"\0" and name.endswith(b"/")):
            reason = "" if kind in _REGULAR else _NOT_READ.get(kind, "a kind of member of a tar that is not read")
            if any(key.startswith(b"GNU.sparse") for key in pax):
                reason = _SPARSE
            if place + size > end:
                reason = "truncated (the tar ends early); get the archive again"
            yield Member(name.removeprefix(b"./"), place, size, reason, kind == b"1")
        place, long_name, pax = place + _blocks(size), b"", {}
    if not ended:
        raise ScanError("", "a tar without the mark of its end: members may be missing; get the archive again")


def _blocks(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _number(field: bytes) -> int:
    """A number of a header: octal digits, or, by GNU tar, binary after a byte of 128."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.partition(b"\0")[0].strip(b" ")
    if not re.fullmatch(rb"[0-7]*", digits):
        raise ValueError("no octal number")
    return int(digits or b"0", 8)


def _decimal(digits: bytes) -> int:
    if not re.fullmatch(rb"[0-9]{1,20}", digits):
        raise ValueError("no decimal number")
    return int(digits)


def _after_zeros(stream: BinaryIO, place: int) -> int:
    """The first block from here on that is not all zeros, or the end."""
    stream.seek(place)
    while data := stream.read(_ZEROS):
        if rest := data.lstrip(b"\0"):
            return place + (len(data) - len(rest)) // BLOCK * BLOCK
        place += len(data)
    return place


def _name(block: bytes) -> bytes:
    name, prefix = (field.partition(b"\0")[0] for field in (block[:100], block[345:500]))
    return prefix + b"/" + name if prefix and block[257:263] == b"ustar\0" else name


def _header(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size) if size <= _MAX_HEADER else b""
    if len(data) < size:
        raise ValueError("too long a header, or cut off")
    return data


def _pax(data: bytes) -> dict[bytes, bytes]:
    """Records of a length, a space, key=value and a line feed; the length counts all of these."""
    found: dict[bytes, bytes] = {}
    start = 0
    data = data.rstrip(b"\0")
    while start < len(data):
        space = data.index(b" ", start, start + 20)
        length = _decimal(data[start:space])
        if length <= space - start:
            raise ValueError("a record without an end")
        key, _, value = data[space + 1 : start + length - 1].partition(b"=")
        found[key] = value
        start += length
    return found


def _after_sparse(stream: BinaryIO, block: bytes, place: int) -> int:
    """Where the data of a sparse file of GNU tar begin, after the blocks that go on with its map."""
    more = block[482]
    while more and len(block := stream.read(BLOCK)) == BLOCK:
        more, place = block[504], place + BLOCK
    return place
