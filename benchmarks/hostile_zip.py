"""Hostile cases of zip archives: bombs, overlaps, wrong sizes and checksums, encryption, names, cuts."""

import io
import random
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from hostile_child import REFUSED, SILENT, TAKEN, rng_of, writing_only
from hostile_dicom import one_head, small_network

from ichseq import api, load_series

Members = dict[str, bytes]
_MEGABYTE = 1 << 20


def plain(members: Members, *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A sound archive."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def packed(members: dict[str, tuple[bytes, int, bytes]]) -> bytes:
    """An archive of deflated members.

    Args:
        members: by name, what they begin with, how many megabytes of zeros follow, and what the directory says they
            are; where that is empty, the truth.
    """
    stream, claimed = io.BytesIO(), []
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, (start, zeros, instead) in members.items():
            packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
            data = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH)
            megabyte = packer.compress(b"\0" * _MEGABYTE) + packer.flush(zlib.Z_FULL_FLUSH)  # stands for itself
            data += megabyte * zeros + packer.flush()
            archive.writestr(name, data)
            crc = zlib.crc32(instead or start)
            for _ in range(0 if instead else zeros):
                crc = zlib.crc32(b"\0" * _MEGABYTE, crc)
            claimed.append((crc, len(data), len(instead) or len(start) + zeros * _MEGABYTE))
    whole = bytearray(stream.getvalue())
    for place, (crc, size, full) in zip(_directory(whole), claimed, strict=True):
        struct.pack_into("<H4xLLL", whole, place + 10, zipfile.ZIP_DEFLATED, crc, size, full)
    return bytes(whole)


def bomb(members: Members, rng: random.Random) -> bytes:
    """Members that unpack to much more than they are packed."""
    return packed({"a": (b"", rng.choice((60, 90, 1000)), b""), **{n: (m, 0, b"") for n, m in members.items()}})


def image_bomb(members: Members, rng: random.Random) -> bytes:
    """Slices that go on, as zeros, to the most that a member may have."""
    return packed({name: (content, 79, b"") for name, content in members.items()})


def table_bomb(members: Members, rng: random.Random) -> bytes:
    """A table of labels that is large."""
    return plain({**members, "stage_2_train.csv": b"ID,Label\n" + b"ID_a_any,0\n" * (rng.choice((1, 8)) * _MEGABYTE)})


def overlapping(members: Members, rng: random.Random) -> bytes:
    """All entries of the directory name the same member's bytes."""
    data = bytearray(plain(members))
    for place in _directory(data):
        struct.pack_into("<L", data, place + 42, 0)
    return bytes(data)


def quoted(members: Members, rng: random.Random) -> bytes:
    """Members that lie inside another, as in the densest bombs."""
    data = bytearray(plain(members, method=zipfile.ZIP_STORED))
    first = _directory(data)[0]
    size = struct.unpack_from("<L", data, first + 20)[0]
    struct.pack_into("<LL", data, first + 20, size * 2, size * 2)
    return bytes(data)


def wrong_sizes(members: Members, rng: random.Random) -> bytes:
    """Sizes in the directory that the members do not have."""
    data = bytearray(plain(members, method=rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))))
    for place in _directory(data):
        size = rng.choice((0, 1, 100, 0x7FFFFFFF, 0xFFFFFFFE, 4 << 20))
        struct.pack_into("<L", data, place + rng.choice((20, 24)), size)
    return bytes(data)


def wrong_checksum(members: Members, rng: random.Random) -> bytes:
    """A checksum in the directory that the bytes do not have."""
    data = bytearray(plain(members, method=rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))))
    struct.pack_into("<L", data, rng.choice(_directory(data)) + 16, rng.getrandbits(32))
    return bytes(data)


def changed_pixels(members: Members, rng: random.Random) -> bytes:
    """A stored member with a bit changed."""
    data = bytearray(plain(members, method=zipfile.ZIP_STORED))
    place = rng.choice(_directory(data))
    start = struct.unpack_from("<L", data, place + 42)[0]
    data[start + 1500 + rng.randrange(4000)] ^= 1 << rng.randrange(8)
    return bytes(data)


def changed_packed(members: Members, rng: random.Random) -> bytes:
    """Deflated members with bits changed."""
    data = bytearray(plain(members))
    end = _directory(data)[0]
    for _ in range(rng.randint(1, 5)):
        data[rng.randrange(60, end)] ^= 1 << rng.randrange(8)
    return bytes(data)


def encrypted(members: Members, rng: random.Random) -> bytes:
    """Members with the mark of encryption."""
    data = bytearray(plain(members))
    for place in _directory(data):
        data[place + 8] |= 1
    return bytes(data)


def other_method(members: Members, rng: random.Random) -> bytes:
    """Members packed another way."""
    return plain(members, method=rng.choice((zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)))


def unknown_method(members: Members, rng: random.Random) -> bytes:
    """Members packed in a way that does not exist."""
    data = bytearray(plain(members))
    for place in _directory(data):
        struct.pack_into("<H", data, place + 10, rng.choice((1, 6, 9, 93, 99, 0xFFFF)))
    return bytes(data)


def names(members: Members, rng: random.Random) -> bytes:
    """Names that lead elsewhere, or hold what a terminal or a spreadsheet would run."""
    hostile = ("../../outside", "/etc/passwd", "C:\\Windows\\x", "a\0b", "\x1b[31mred", "=1+1", "a" * 5000, "x/" * 900,
               "\u202egnp.exe", "line\nbreak", ".", "..", "con", "~/x")  # fmt: skip
    return plain({rng.choice(hostile) + f"/{name}": content for name, content in members.items()})


def twice(members: Members, rng: random.Random) -> bytes:
    """A name that stands twice, with other content."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.comment = b"c" * 65535
            archive.writestr(zipfile.ZipInfo(name), rng.randbytes(100))
            archive.writestr(zipfile.ZipInfo(name), content)
    return stream.getvalue()


def nested(members: Members, rng: random.Random) -> bytes:
    """Archives in archives."""
    inner = plain(members)
    for k in range(rng.choice((1, 20))):
        inner = plain({f"{k}.zip": inner, **(members if k == 0 else {})})
    return inner


def many(members: Members, rng: random.Random) -> bytes:
    """Thousands of empty members."""
    return plain({**members, **{f"{k}": b"" for k in range(5_000)}})


def cut_short(members: Members, rng: random.Random) -> bytes:
    """The beginning, or the end."""
    data = plain(members)
    place = rng.randrange(len(data))
    return data[:place] if rng.random() < 0.5 else data[place:]


def before_and_after(members: Members, rng: random.Random) -> bytes:
    """Other bytes before it, as of a program that unpacks itself."""
    return rng.randbytes(rng.choice((1, 1000))) + plain(members)


def wrong_directory(members: Members, rng: random.Random) -> bytes:
    """Noise where the directory says what lies where."""
    data = bytearray(plain(members))
    start = _directory(data)[0]
    for _ in range(rng.randint(1, 10)):
        data[rng.randrange(start, len(data))] = rng.randrange(256)
    return bytes(data)


def endless(members: Members, rng: random.Random) -> bytes:
    """Members that say they are a slice and unpack to a gigabyte."""
    return packed({name: (content, 1024, content) for name, content in members.items()})


def mixed(members: Members, rng: random.Random) -> bytes:
    """Folders, links and what no slice is."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for k, (name, content) in enumerate(members.items()):
            info = zipfile.ZipInfo(f"{name}-{k}")
            info.external_attr = rng.choice((0o120777, 0o060644, 0o010644)) << 16
            archive.writestr(info, rng.choice((b"/etc/passwd", content)))
            archive.writestr(name, content)
    return stream.getvalue()


def _directory(data: bytes | bytearray) -> list[int]:
    """Where the entries of the directory stand."""
    end = data.rfind(b"PK\x05\x06")
    count, place = struct.unpack_from("<H4xL", data, end + 10)
    found = []
    for _ in range(count):
        found.append(place)
        place += 46 + sum(struct.unpack_from("<HHH", data, place + 28))
    return found


BUILDERS: tuple[Callable[[Members, random.Random], bytes], ...] = (
    bomb, image_bomb, table_bomb, overlapping, quoted, wrong_sizes, wrong_checksum, changed_pixels, changed_packed,
    encrypted, other_method, unknown_method, names, twice, nested, many, cut_short, before_and_after, wrong_directory,
    endless, mixed,
)  # fmt: skip


class Zips:
    """Archives, read by predict and by prepare."""

    ground = "zip"

    @staticmethod
    def make(work: Path, seed: int) -> None:
        (work / "sound").mkdir()
        for k, path in enumerate(one_head(work, seed)):
            shutil.copy(path, work / "sound" / f"{k}.dcm")
        shutil.rmtree(work / "raw")

    def __init__(self, work: Path, seed: int) -> None:
        self.work, self.seed, self.model = work, seed, small_network()
        self.members = {path.name: path.read_bytes() for path in sorted((work / "sound").iterdir())}
        self.truth = self._pixels(work / "sound")
        if self._tried(plain(self.members)) != TAKEN:  # also imports what is no case's memory
            raise SystemExit("a sound archive is refused")

    def __call__(self, number: int) -> str:
        rng = rng_of(self.seed, "zip", number)
        return self._tried(BUILDERS[number % len(BUILDERS)](self.members, rng))

    def _tried(self, content: bytes) -> str:
        place = self.work / "case"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        (place / "hostile.zip").write_bytes(content)
        with writing_only(place / "out"):
            found = self._pixels(place / "hostile.zip")
            if any(self.truth.get(uid) != pixels for uid, pixels in found.items()):
                return SILENT
            table = place / "out" / "table.csv"
            outcome = api.predict_scans(self.model, place / "hostile.zip", out=table, progress=False)
            outcome.remarks()
            api.prepare(place / "hostile.zip", place / "out" / "set", folds=1, workers=1, progress=False).text()
        return REFUSED if any(not item.expected for item in outcome.left_out) else TAKEN

    def _pixels(self, source: Path) -> dict[str, bytes]:
        """What each image of a source shows."""
        found = {}
        for series in load_series(source):
            read, _ = series.readable()
            if read is not None:
                found |= {uid: read.hu[k].tobytes() for k, uid in enumerate(read.sop_uids)}
        return found
