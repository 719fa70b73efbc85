"""The members of an archive that may be read, zip or tar, and why others may not."""

import os
import struct
import zipfile
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np

from ichseq.ct.left_out import LeftOut
from ichseq.ct.streams import MAX_IMAGE_BYTES, MAX_MEMBER_BYTES
from ichseq.ct.tar import Member, open_tar, walk
from ichseq.errors import ScanError

ON_DISK, STORED, DEFLATED, TAR = range(4)
"""How the bytes of an `Entry` lie: a file of their own; in a zip, as they are or compressed; in a tar."""

LOCAL_HEADER: Final = struct.Struct("<4s22xHH")
"""Of a zip's member: signature, then lengths of name and extra field (APPNOTE 4.3.7)."""

ZIP_MARK: Final = b"PK\x03\x04"
_TWICE: Final = "named twice in the archive; the later one is read"


class Entry(NamedTuple):
    """A file or a member; the fields are those of `ichseq.ct.archive.FileList`."""

    name: bytes
    archive: int = -1
    offset: int = 0
    packed: int = 0
    size: int = 0
    crc: int = 0
    kind: int = ON_DISK


def shown(name: str) -> str:
    """A name as one line of valid Unicode."""
    name = os.fsencode(name).decode("utf-8", "backslashreplace")
    return name if name.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)


def _of_zip(path: str, number: int, left_out: list[LeftOut]) -> list[Entry]:
    """A zip's members by name, less those that must not be unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
    except (zipfile.BadZipFile, OSError, ValueError, struct.error, NotImplementedError, EOFError) as error:
        detail = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""
        left_out.append(LeftOut(shown(path), f"not a zip archive, or a damaged one{detail}; get it again"))
        return []
    infos.sort(key=lambda info: info.header_offset)
    begins = np.array([info.header_offset for info in infos], np.int64)
    ends = begins + np.array([LOCAL_HEADER.size + info.compress_size for info in infos], np.int64)
    if np.any(ends[:-1] > begins[1:]):
        left_out.append(LeftOut(shown(path), "its members overlap, as in a zip bomb; refused"))
        return []
    last = {info.filename: info for info in infos}  # a name that stands twice: the later one, as unzip does
    entries = []
    for info in sorted(infos, key=lambda info: (info.filename, info.header_offset)):
        reason = _TWICE if last[info.filename] is not info else ""
        reason = reason or _why_not(info)
        if reason:
            left_out.append(LeftOut(shown(f"{path}/{info.filename}"), reason))
            continue
        name = info.filename.encode("utf-8", "surrogateescape")
        kind = DEFLATED if info.compress_type == zipfile.ZIP_DEFLATED else STORED
        entries.append(Entry(name, number, info.header_offset, info.compress_size, info.file_size, info.CRC, kind))
    return entries


def _why_not(info: zipfile.ZipInfo) -> str:
    if info.flag_bits & 0x1:
        return "encrypted; unpack it with its password first"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        name = zipfile.compressor_names.get(info.compress_type, "unknown")  # type: ignore[attr-defined]
        return f"compressed by method {info.compress_type} ({name}); repack the archive with deflate"
    if reason := _too_large(info.filename.lower().endswith(".csv"), info.file_size):
        return reason
    if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
        return "damaged (stored, but its two sizes differ); get the archive again"
    return ""


def _too_large(is_table: bool, size: int) -> str:
    most = MAX_MEMBER_BYTES if is_table else MAX_IMAGE_BYTES
    return f"would unpack to {size} bytes, more than {most}; refused" if size > most else ""


def _of_tar(path: str, number: int, left_out: list[LeftOut]) -> list[Entry]:
    """A tar's members by name, as they lie before any damage; less those that are no files, or too large."""
    members: list[Member] = []
    try:
        with open_tar(path) as stream:
            members.extend(walk(stream))
    except OSError as error:
        left_out.append(LeftOut(shown(path), f"cannot be read ({error.strerror or error})"))
    except ScanError as error:
        left_out.append(LeftOut(shown(path), error.reason))
    last = {member.name: member for member in members}
    entries = []
    for member in sorted(members, key=lambda member: (member.name, member.start)):
        reason = _TWICE if last[member.name] is not member else member.reason
        reason = reason or _too_large(member.name.lower().endswith(b".csv"), member.size)
        if reason:
            name = shown(f"{path}/{os.fsdecode(member.name)}")
            left_out.append(LeftOut(name, reason, member.linked))
            continue
        entries.append(Entry(member.name, number, member.start, member.size, member.size, 0, TAR))
    return entries


MEMBERS: Final[dict[str, Callable[[str, int, list[LeftOut]], list[Entry]]]] = {"zip": _of_zip, "tar": _of_tar}
"""By the kind of archive: its members, given its path and its number; what may not be read is added to a list."""
