"""Tars: members where they lie, whoever packed them; nothing is lost without a word, and headers are bounded."""

import bz2
import gzip
import io
import lzma
import os
import pickle
import random
import subprocess
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dicom_files import ct_dataset, dicom_bytes, write_series

from ichseq.ct import tar
from ichseq.ct.archive import FileList, list_files
from ichseq.ct.left_out import LeftOut
from ichseq.ct.series import load_series
from ichseq.ct.streams import MAX_IMAGE_BYTES
from ichseq.errors import ScanError

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
PACK: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


def tar_of(members: dict[str, bytes], form: int = tarfile.GNU_FORMAT, **kept: object) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in kept.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def content_of(files: FileList) -> dict[str, bytes]:
    found = {}
    for i in range(len(files)):
        with files.open(i) as stream:
            found[files.name(i)] = stream.read()
            stream.raw.check()  # type: ignore[attr-defined]
    return found


def left_out_of(data: bytes, path: Path) -> list[LeftOut]:
    path.write_bytes(data)
    return list_files(path).left_out


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_members_stream_like_files(tmp_path: Path, form: int) -> None:
    rng = random.Random(0)
    long, foreign = ("d" * 90 + "/") * (2 if form == tarfile.USTAR_FORMAT else 20), "caf\xe9"
    names = ["b", "./a/b", "empty", long + "file", foreign, *(f"d/{i}" for i in range(12))]
    data = {name: bytes(rng.choices(range(8), k=rng.randrange(0, 90_000))) for name in names}
    data["empty"] = b""
    path = tmp_path / "scans"
    path.write_bytes(tar_of(data, form))
    files = pickle.loads(pickle.dumps(list_files(path)))
    wanted = {f"{path}/{name.removeprefix('./')}": value for name, value in data.items()}
    assert content_of(files) == wanted
    assert [files.name(i) for i in range(len(files))] == sorted(wanted)
    for i in range(len(files)):
        with files.open(i) as stream:
            whole = wanted[files.name(i)]
            for _ in range(5):
                place, n = rng.randrange(len(whole) + 10), rng.randrange(50_000)
                stream.seek(place)
                assert stream.read(n) == whole[place : place + n]
            assert stream.seek(0, os.SEEK_END) == len(whole)
    assert os.listdir(tmp_path) == ["scans"]  # nothing unpacked


@pytest.mark.parametrize("form", ["gnu", "pax", "ustar", "v7", "oldgnu"])
def test_what_gnu_tar_writes_is_listed(tmp_path: Path, form: str) -> None:
    paths = write_series(tmp_path / "scans" / "inner", range(1, 5))
    (tmp_path / "scans" / "again").hardlink_to(paths[0])
    command = ["tar", f"--format={form}", "-cf", "s.tar", "-C", str(tmp_path / "scans"), "."]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True)
    if done.returncode or b"GNU" not in subprocess.run(["tar", "--version"], check=True, capture_output=True).stdout:
        pytest.skip("no GNU tar")
    found, plain = load_series(tmp_path / "s.tar"), load_series(tmp_path / "scans" / "inner")
    assert np.array_equal(found[0].hu, plain[0].hu)
    assert [item.expected for item in found.left_out] == [True]


@pytest.mark.parametrize("pack", PACK.values(), ids=PACK)
def test_a_packed_tar_is_read_from_memory(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    members = {f"d/{k}": dicom_bytes(ct_dataset(number=k)) for k in range(4)}
    path, other = tmp_path / "packed", tmp_path / "other"
    path.write_bytes(pack(tar_of(members)))
    other.write_bytes(pack(tar_of({"x": b"x"})))
    files = pickle.loads(pickle.dumps(list_files([path, other])))
    for _ in range(2):  # the one is unpacked again after the other
        assert content_of(files) == {**{f"{path}/{name}": data for name, data in members.items()}, f"{other}/x": b"x"}
    path.write_bytes(pack(tar_of({name: data[:-1] + b"?" for name, data in members.items()})))
    assert {data[-1:] for name, data in content_of(files).items() if name.startswith(str(path))} == {b"?"}


def test_a_packed_tar_that_is_too_large_or_damaged_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar, "MAX_UNPACKED_TAR", 10 << 20)
    noise = random.Random(0).randbytes(20_000_000)
    for content in (bytes(200_000_000), noise):
        bomb = gzip.compress(tar_of({"a": content}), 1)
        tracemalloc.start()
        (item,) = left_out_of(bomb, tmp_path / "a.tgz")
        assert tracemalloc.get_traced_memory()[1] < 25 << 20
        tracemalloc.stop()
        assert item.reason == "a packed tar of more than 10 MB; make a plain tar of it first (gunzip)"
    packed = bz2.compress(tar_of({"a": noise[:2_000_000]}))
    (item,) = left_out_of(packed[:-500_000], tmp_path / "a.tbz")
    assert item.reason.startswith("truncated")
    assert not item.expected


def test_a_tar_in_a_folder_is_opened_by_its_name(tmp_path: Path) -> None:
    write_series(tmp_path / "plain", range(1, 4))
    (tmp_path / "plain" / "more.tar").write_bytes(tar_of({"4": dicom_bytes(ct_dataset(number=4))}))
    (tmp_path / "plain" / "code.tar").write_bytes(tar_of({"setup.py": b"import setuptools\n" * 20}))
    found = load_series(tmp_path / "plain")
    assert found[0].files[3] == f"{tmp_path}/plain/more.tar/4"
    assert [(item.file, item.expected) for item in found.left_out] == [(f"{tmp_path}/plain/code.tar/setup.py", True)]


def test_members_that_are_no_files_are_left_out_with_their_reasons(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, kind in (
            ("/etc/link", tarfile.SYMTYPE),
            ("../hard", tarfile.LNKTYPE),
            ("pipe", tarfile.FIFOTYPE),
            ("disk", tarfile.BLKTYPE),
            ("sparse", tarfile.GNUTYPE_SPARSE),
            ("later", b"Z"),
            ("folder", tarfile.DIRTYPE),
            ("folder/file", tarfile.REGTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "folder/file"
            archive.addfile(info)
        info = tarfile.TarInfo("sparser")
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
        archive.format = tarfile.PAX_FORMAT
        archive.addfile(info)
    path = tmp_path / "a.tar"
    left_out = left_out_of(stream.getvalue(), path)
    assert [list_files(path).name(0)] == [f"{path}/folder/file"]
    assert {item.file.removeprefix(f"{path}/"): item.expected for item in left_out} == {
        "/etc/link": False, "../hard": True, "pipe": False, "disk": False, "sparse": False, "later": False,
        "sparser": False,
    }  # fmt: skip
    assert {item.reason for item in left_out if "sparse" in item.file} == {tar._SPARSE}
    large = tarfile.TarInfo("large")
    large.size = MAX_IMAGE_BYTES + 1
    with open(tmp_path / "b.tar", "wb") as file:
        file.write(large.tobuf())
        file.truncate(512 + (MAX_IMAGE_BYTES + 512) // 512 * 512 + 1024)
    (item,) = list_files(tmp_path / "b.tar").left_out
    assert "refused" in item.reason


def test_of_a_name_that_stands_twice_the_later_is_read(tmp_path: Path) -> None:
    first, second = tar_of({"a": b"old", "b": b"b"}), tar_of({"./a": b"new"})
    (tmp_path / "a.tar").write_bytes(first + second)  # as `cat` and `tar --append` leave it
    files = list_files(tmp_path / "a.tar")
    assert list(content_of(files).values()) == [b"new", b"b"]
    assert "twice" in files.left_out[0].reason


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_damage_never_loses_a_member_without_a_word(tmp_path: Path, form: int) -> None:
    """Every bit of the headers flipped; every cut, and every block zeroed."""
    members = {f"{'long/' * 40}{k}" if k == 2 else str(k): bytes([k]) * 700 for k in range(1, 5)}
    if form == tarfile.USTAR_FORMAT:
        members = {name[-100:]: data for name, data in members.items()}
    whole = tar_of(members, form, mtime=1.5)
    path = tmp_path / "a.tar"
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 1536
    damaged: list[bytes] = [whole[:k] for k in range(0, end - 1024, 300)]
    damaged += [whole[:k] + bytes(512) + whole[k + 512 :] for k in range(0, end - 1024, 512)]
    for k in range(0, (end - 1024) * 8, 61):
        flipped = bytearray(whole)
        flipped[k // 8] ^= 1 << k % 8
        damaged.append(bytes(flipped))
    for data in damaged:
        path.write_bytes(data)
        files = list_files(path)
        if not files.left_out:  # then it was a content or a long name, of which a tar has no checksum
            assert [len(one) for one in content_of(files).values()] == [700] * 4


def test_a_tar_that_was_cut_after_it_was_listed(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    whole = tar_of({"a": bytes(2000)})
    path.write_bytes(whole)
    files = list_files(path)
    path.write_bytes(whole[:1000])
    with files.open(0) as stream, pytest.raises(ScanError, match=r"a\.tar/a: damaged"):
        stream.raw.check()  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XGLTYPE])
def test_a_header_without_bound_is_refused_unread(tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo("header")
    info.type, info.size = kind, 300_000_000
    path = tmp_path / "a.tar"
    with open(path, "wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.truncate(512 + 300_000_256 + 1024)
    tracemalloc.start()
    (item,) = list_files(path).left_out
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()
    assert item.reason == "damaged tar: header at byte 0; get the archive again"


@pytest.mark.parametrize(
    "records", [b"9 size=-5\n", b"0 a=b\n", b"-4 a=b\n", b"99999999999999999999999 a=b\n", b"no number", b"5" * 3000]
)
def test_records_that_make_no_sense_end_the_listing_with_a_reason(tmp_path: Path, records: bytes) -> None:
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, len(records)
    header = info.tobuf() + records + bytes(-len(records) % 512)
    (item,) = left_out_of(header + tar_of({"a": b"x"}), tmp_path / "a.tar")
    assert item.reason.startswith("damaged tar: header at byte")
