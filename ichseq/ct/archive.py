"""Where scans lie: folders, archives and lists of files, as one flat list of byte streams.

A `FileList` is a handful of flat numpy arrays, so a million files cost some tens of megabytes, pickle quickly and are
shared between workers by joblib. What an archive holds is found once, by `list_files`; a worker opens a member from its
offset alone, and nothing is ever unpacked to disk.
"""

import io
import os
import stat
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ichseq.ct.left_out import LeftOut
from ichseq.ct.members import DEFLATED, LOCAL_HEADER, MEMBERS, TAR, ZIP_MARK, Entry, shown
from ichseq.ct.streams import Inflated, Window
from ichseq.ct.tar import begins_as_tar, open_tar
from ichseq.errors import ScanError

Source = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class FileList:
    """Files and members of archives in a fixed order, flat: entry i is described by element i of each array.

    Attributes:
        sources: the sources as the user named them.
        folder: absolute path of the folder that relative names start from, since a worker may stand elsewhere.
        archives: paths of the archives.
        archive: int32 (n,), index into `archives`, or -1 for a file on disk.
        names: uint8, all names one after the other (bytes as the file system has them; UTF-8 in archives).
        ends: int64 (n,), where name i ends in `names`.
        offset, packed, size: int64 (n,), where a member's header (zip) or its bytes (tar) begin, its compressed and
            unpacked bytes; 0 for a file on disk.
        crc: uint32 (n,), the checksum of a zip's member.
        kind: uint8 (n,), how it lies there: ON_DISK, STORED, DEFLATED or TAR of `ichseq.ct.members`.
        left_out: what the listing could not take, with reasons.
    """

    sources: tuple[str, ...]
    folder: str
    archives: tuple[str, ...]
    archive: np.ndarray
    names: np.ndarray
    ends: np.ndarray
    offset: np.ndarray
    packed: np.ndarray
    size: np.ndarray
    crc: np.ndarray
    kind: np.ndarray
    left_out: list[LeftOut] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ends)

    def _raw_name(self, i: int) -> bytes:
        start = int(self.ends[i - 1]) if i > 0 else 0
        return self.names[start : int(self.ends[i])].tobytes()

    def name(self, i: int) -> str:
        """The name shown to the user: a path as given, or "archive.zip/member"; always valid Unicode, one line."""
        name = self._raw_name(i).decode("utf-8", "backslashreplace")
        if self.archive[i] >= 0:
            name = f"{shown(self.archives[self.archive[i]])}/{name}"
        return shown(name)

    def find(self, basename: str) -> list[int]:
        """Entries whose last path component is `basename`, such as "stage_2_train.csv"."""
        wanted = os.fsencode(basename)
        blob = self.names.tobytes()
        found, start = [], blob.find(wanted)
        while start >= 0:  # searched in the whole blob: a loop over a million names would take seconds
            i = int(np.searchsorted(self.ends, start, side="right"))
            if self._raw_name(i).rpartition(b"/")[2] == wanted and int(self.ends[i]) == start + len(wanted):
                found.append(i)
            start = blob.find(wanted, start + 1)
        return found

    def take(self, entries: Sequence[int] | np.ndarray | slice) -> "FileList":
        """The entries given, in that order, as a list of their own; `left_out` stays behind."""
        chosen = np.arange(len(self))[entries]
        names = [self._raw_name(int(i)) for i in chosen]
        used, archive = np.unique(self.archive[chosen], return_inverse=True)
        first = int(len(used) > 0 and used[0] < 0)  # -1, "on disk", comes first where it occurs
        blob, ends = _pack(names)
        return FileList(
            sources=self.sources,
            folder=self.folder,
            archives=tuple(self.archives[int(i)] for i in used[first:]),
            archive=(archive.reshape(-1) - first).astype(np.int32),
            names=blob,
            ends=ends,
            offset=self.offset[chosen],
            packed=self.packed[chosen],
            size=self.size[chosen],
            crc=self.crc[chosen],
            kind=self.kind[chosen],
        )

    def archive_paths(self) -> list[str]:
        """Where the archives are, for a process that may stand in another folder than the one that listed them."""
        return [os.path.join(self.folder, path) for path in self.archives]

    def status(self, i: int) -> os.stat_result:
        """Size and times of entry i's file, or of the archive that it lies in, as they are now.

        Raises:
            ScanError: there is no such file any more.
        """
        name = self.archives[self.archive[i]] if self.archive[i] >= 0 else os.fsdecode(self._raw_name(i))
        try:
            return os.stat(os.path.join(self.folder, name))
        except OSError as error:
            raise ScanError(self.name(i), f"cannot be opened ({error.strerror or error}); check the file") from error

    def open(self, i: int) -> BinaryIO:
        """Open entry i as a seekable, buffered stream of its unpacked bytes; the caller closes it.

        Raises:
            ScanError: the file cannot be opened. Damage inside a compressed member shows as ScanError while reading; of
                a stored one, by `check` of the stream's `raw`.
        """
        try:
            if self.archive[i] < 0:
                return open(os.path.join(self.folder, os.fsdecode(self._raw_name(i))), "rb")
            return self._open_member(i)
        except OSError as error:
            raise ScanError(self.name(i), f"cannot be opened ({error.strerror or error}); check the file") from error

    def _open_member(self, i: int) -> BinaryIO:
        path, name = os.path.join(self.folder, self.archives[self.archive[i]]), self.name(i)
        start, size, crc = int(self.offset[i]), int(self.size[i]), int(self.crc[i])
        if self.kind[i] == TAR:
            return io.BufferedReader(Window(open_tar(path), name, start=start, size=size, crc=None))
        base = open(path, "rb")  # noqa: SIM115 - the stream returned closes it
        try:
            base.seek(start)
            header = base.read(LOCAL_HEADER.size)
            if len(header) < LOCAL_HEADER.size or not header.startswith(ZIP_MARK):
                raise ScanError(name, "damaged archive (no member at its offset); download it again")
            _, name_length, extra_length = LOCAL_HEADER.unpack(header)
            start += LOCAL_HEADER.size + name_length + extra_length
            if self.kind[i] == DEFLATED:
                base.seek(start)
                return io.BufferedReader(Inflated(base, name, packed=int(self.packed[i]), size=size, crc=crc))
            return io.BufferedReader(Window(base, name, start=start, size=size, crc=crc))
        except BaseException:
            base.close()
            raise


def _pack(names: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    return np.frombuffer(b"".join(names), np.uint8), np.cumsum([len(name) for name in names], dtype=np.int64)


def list_files(source: Source) -> FileList:
    """List every file of a source, in an order that depends on names alone.

    Folders are walked in depth (links followed, each folder once); a zip's or tar's members are listed without
    unpacking. A tar packed by gzip, bzip2 or xz is unpacked into memory. Of the archives that lie in folders, those
    whose name ends in .tar are opened; name others as sources. What cannot be listed stands in `left_out`. A file that
    is a source and lies in a folder that is one too, or is named twice, is listed once.

    Args:
        source: a folder, a zip, a tar, a file, or a list of any of these.

    Raises:
        ScanError: a path does not exist, or no path is given.
    """
    sources = [source] if isinstance(source, str | Path) else list(source)
    if not sources:
        raise ScanError("", "no source given; name a folder, a .zip or .tar archive or a DICOM file")
    entries: list[Entry] = []
    archives: list[str] = []
    left_out: list[LeftOut] = []
    seen: set[_Identity] = set()
    named = _by_identity(sources)

    def add(path: str, kind: str) -> None:
        if kind:
            entries.extend(MEMBERS[kind](path, len(archives), left_out))
            archives.append(path)
        else:
            entries.append(Entry(os.fsencode(path)))

    for path, status in named.values():
        if stat.S_ISDIR(status.st_mode):
            for file in _walk(path, seen, named, left_out):
                add(file, "tar" if file.lower().endswith(".tar") else "")
        elif not stat.S_ISREG(status.st_mode):
            left_out.append(LeftOut(shown(path), "not a regular file"))
        else:
            add(path, _kind(path))
    names, ends = _pack([entry.name for entry in entries])
    return FileList(
        sources=tuple(shown(os.fspath(item)) for item in sources),
        folder=os.getcwd() if any(not os.path.isabs(item) for item in sources) else "",
        archives=tuple(archives),
        archive=np.fromiter((entry.archive for entry in entries), np.int32, len(entries)),
        names=names,
        ends=ends,
        offset=np.fromiter((entry.offset for entry in entries), np.int64, len(entries)),
        packed=np.fromiter((entry.packed for entry in entries), np.int64, len(entries)),
        size=np.fromiter((entry.size for entry in entries), np.int64, len(entries)),
        crc=np.fromiter((entry.crc for entry in entries), np.uint32, len(entries)),
        kind=np.fromiter((entry.kind for entry in entries), np.uint8, len(entries)),
        left_out=left_out,
    )


_Identity = tuple[int, int]  # device and inode, the same whatever a file is called


def _by_identity(sources: Sequence[str | Path]) -> dict[_Identity, tuple[str, os.stat_result]]:
    """The sources, each once however it is spelled."""
    found: dict[_Identity, tuple[str, os.stat_result]] = {}
    for path in dict.fromkeys(os.path.normpath(os.fspath(item)) for item in sources):
        if not os.path.exists(path):
            raise ScanError(shown(path), "no such file or folder; check the path")
        status = os.stat(path)
        found.setdefault((status.st_dev, status.st_ino), (path, status))
    return found


def _walk(folder: str, seen: set[_Identity], named: Container[_Identity], left_out: list[LeftOut]) -> Iterator[str]:
    """Files below a folder, sorted by name, less those that are sources themselves.

    A folder met before (a link back, say) is not entered again.
    """
    waiting = [folder]  # paths, the next one last; a stack, since folders may nest deeper than Python recurses
    while waiting:
        path = waiting.pop()
        try:
            status = os.stat(path)
            identity = status.st_dev, status.st_ino
            if stat.S_ISREG(status.st_mode):
                if identity not in named:
                    yield path
            elif not stat.S_ISDIR(status.st_mode):  # a pipe would block, a device never end
                left_out.append(LeftOut(shown(path), "not a regular file"))
            elif identity not in seen:
                seen.add(identity)
                waiting += [os.path.join(path, name) for name in sorted(os.listdir(path), reverse=True)]
        except OSError as error:
            reason = "a link that leads nowhere" if os.path.islink(path) else f"cannot be read ({error.strerror})"
            left_out.append(LeftOut(shown(path), reason))


def _kind(path: str) -> str:
    """What archive a file is, by its name or its first bytes: "zip", "tar", or "" for none."""
    if path.lower().endswith((".zip", ".tar")):
        return path.lower()[-3:]
    try:
        with open(path, "rb") as file:
            if file.peek(len(ZIP_MARK)).startswith(ZIP_MARK):
                return "zip"
            return "tar" if begins_as_tar(file, path) else ""
    except (OSError, ScanError):
        return ""  # reading it again names the reason
