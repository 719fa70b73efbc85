"""Folders, zips and lists: every file listed, in one order, opened as a bounded stream."""

import inspect
import os
import pickle
import random
import struct
import sys
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from ichseq.ct import streams
from ichseq.ct.archive import list_files
from ichseq.errors import ScanError


def names_of(source: Path) -> list[str]:
    files = list_files(source)
    return [files.name(i) for i in range(len(files))]


def make_zip(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def patch(path: Path, mark: bytes, offset: int, value: bytes) -> None:
    """Overwrite bytes after every record mark: a zip that lies."""
    data = bytearray(path.read_bytes())
    at = data.find(mark)
    while at >= 0:
        data[at + offset : at + offset + len(value)] = value
        at = data.find(mark, at + 4)
    path.write_bytes(data)


CENTRAL, LOCAL = b"PK\x01\x02", b"PK\x03\x04"


def test_folder_order_depends_on_names_alone(tmp_path):
    wanted = [f"{folder}/{name}" for folder in ("a/b", "a/c", "d") for name in ("1", "10", "2")]
    for folder, shuffled in ((tmp_path / "x", random.sample(wanted, 9)), (tmp_path / "y", wanted)):
        for name in shuffled:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(name.encode())
        assert names_of(folder) == [str(folder / name) for name in wanted]
        files = list_files(folder)
        for i in range(len(files)):
            with files.open(i) as stream:
                assert files.name(i).endswith(stream.read().decode())


def test_links_in_circles_dead_links_and_pipes_do_no_harm(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file").write_bytes(b"x")
    (tmp_path / "in" / "loop").symlink_to(tmp_path)
    (tmp_path / "dead").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    files = list_files(tmp_path)
    assert [files.name(i) for i in range(len(files))] == [str(tmp_path / "in" / "file")]
    reasons = {Path(item.file).name: item.reason for item in files.left_out}
    assert reasons == {"dead": "a link that leads nowhere", "pipe": "not a regular file"}


def test_folders_may_nest_deeper_than_python_recurses(tmp_path):
    deep = tmp_path.joinpath(*["d"] * 300)
    deep.mkdir(parents=True)
    (deep / "file").write_bytes(b"x")
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 100)
    try:
        assert names_of(tmp_path) == [str(deep / "file")]
    finally:
        sys.setrecursionlimit(limit)


def test_a_name_that_is_no_unicode_is_shown_in_one_printable_line(tmp_path):
    raw = os.fsencode(tmp_path) + b"/caf\xe9\n\x1b[31m"
    with open(raw, "wb") as file:
        file.write(b"content")
    files = list_files(tmp_path)
    assert files.name(0) == f"{tmp_path}/caf\\xe9\\n\\x1b[31m"
    with files.open(0) as stream:
        assert stream.read() == b"content"


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip_members_stream_like_files(tmp_path, method):
    rng = random.Random(0)
    data = {f"d/{i}": bytes(rng.choices(range(8), k=rng.randrange(0, 90_000))) for i in range(12)}
    data["empty"] = b""
    path = make_zip(tmp_path / "scans.zip", data, method)
    path.write_bytes(b"a program that unpacks itself" + path.read_bytes())
    files = pickle.loads(pickle.dumps(list_files(path)))
    assert [files.name(i) for i in range(len(files))] == [f"{path}/{name}" for name in sorted(data)]
    for i, name in enumerate(sorted(data)):
        with files.open(i) as stream:
            assert stream.read() == data[name]
            for _ in range(5):
                at, n = rng.randrange(len(data[name]) + 10), rng.randrange(50_000)
                stream.seek(at)
                assert stream.read(n) == data[name][at : at + n]
            assert stream.seek(0, os.SEEK_END) == len(data[name])
    assert os.listdir(tmp_path) == ["scans.zip"]  # nothing unpacked


def test_what_was_named_relatively_is_opened_from_any_folder(tmp_path, monkeypatch):
    (tmp_path / "here" / "d").mkdir(parents=True)
    (tmp_path / "here" / "d" / "a").write_bytes(b"a")
    make_zip(tmp_path / "here" / "z.zip", {"b": b"b"})
    monkeypatch.chdir(tmp_path / "here")
    files = list_files(["d", "z.zip"])
    monkeypatch.chdir(tmp_path)
    files = pickle.loads(pickle.dumps(files.take([1, 0])))
    assert [files.name(i) for i in (0, 1)] == ["z.zip/b", "d/a"]
    for i, content in enumerate((b"b", b"a")):
        with files.open(i) as stream:
            assert stream.read() == content


def test_take_and_find(tmp_path):
    for name in "abc":
        (tmp_path / "f" / name).mkdir(parents=True)
        (tmp_path / "f" / name / f"{name}.csv").write_bytes(name.encode())
    one, two = (make_zip(tmp_path / f"{k}.zip", {"x/b.csv": b"z", "ab.csv": b"", "b.csv.bak": b""}) for k in (1, 2))
    files = list_files([tmp_path / "f", one, two])
    assert [files.name(i) for i in files.find("b.csv")] == [
        str(tmp_path / "f" / "b" / "b.csv"),
        f"{one}/x/b.csv",
        f"{two}/x/b.csv",
    ]
    assert files.find("missing") == []
    for chosen in ([8, 0, 4], slice(3, 9), [], [5]):
        piece = files.take(chosen)
        numbers = list(range(len(files)))[chosen] if isinstance(chosen, slice) else chosen
        assert [piece.name(i) for i in range(len(piece))] == [files.name(i) for i in numbers]
        for i in range(len(piece)):
            with piece.open(i) as got, files.open(numbers[i]) as wanted:
                assert got.read() == wanted.read()


def test_a_file_named_twice_or_inside_a_named_folder_is_listed_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("d/a", "d/e/b", "c"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "c")
    files = list_files(["d", "d/e", "d/a", "c", "./c", tmp_path / "c", "link", "d"])
    assert sorted(files.name(i) for i in range(len(files))) == ["c", "d/a", "d/e/b"]


def test_a_list_stays_flat(tmp_path):
    path = make_zip(tmp_path / "many.zip", {f"stage_2_train/ID_{i:09x}.dcm": b"" for i in range(5000)})
    assert len(pickle.dumps(list_files(path))) < 5000 * (30 + 45)  # a name of 30 bytes and 45 bytes of numbers each


def test_members_that_must_not_be_unpacked_are_left_out(tmp_path):
    locked = make_zip(tmp_path / "locked.zip", {"a": b"secret"})
    patch(locked, CENTRAL, 8, b"\x01\x00")
    large = make_zip(tmp_path / "large.zip", {"a": b"0" * 1000})
    patch(large, CENTRAL, 24, struct.pack("<L", streams.MAX_IMAGE_BYTES + 1))
    table = make_zip(tmp_path / "table.zip", {"a.csv": b"0" * 1000})  # a table of labels may be larger than an image
    patch(table, CENTRAL, 24, struct.pack("<L", streams.MAX_IMAGE_BYTES + 1))
    assert len(list_files(table)) == 1
    patch(table, CENTRAL, 24, struct.pack("<L", streams.MAX_MEMBER_BYTES + 1))
    assert "refused" in list_files(table).left_out[0].reason
    bzip = make_zip(tmp_path / "bzip.zip", {"a": b"x" * 100}, zipfile.ZIP_BZIP2)
    reasons = []
    for path in (locked, large, bzip):
        files = list_files(path)
        assert len(files) == 0
        assert files.left_out[0].file == f"{path}/a"
        reasons.append(files.left_out[0].reason)
    assert "password" in reasons[0]
    assert "refused" in reasons[1]
    assert "bzip2" in reasons[2]


def test_a_member_that_unpacks_to_more_than_it_says_is_refused_early(tmp_path):
    path = make_zip(tmp_path / "bomb.zip", {"a": bytes(300_000_000)})
    for mark, offset in ((CENTRAL, 24), (LOCAL, 22)):
        patch(path, mark, offset, struct.pack("<L", 1000))
    files = list_files(path)
    tracemalloc.start()
    with files.open(0) as stream, pytest.raises(ScanError, match=r"bomb.zip/a: unpacks to more than 1000 bytes"):
        stream.read()
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_what_is_checked_and_not_read_takes_no_memory(tmp_path):
    path = make_zip(tmp_path / "zeros.zip", {"a": bytes(60_000_000)})
    with list_files(path).open(0) as stream:
        assert stream.read(1000) == bytes(1000)
        tracemalloc.start()
        stream.raw.check()
        assert tracemalloc.get_traced_memory()[1] < 40_000_000
        tracemalloc.stop()
        with pytest.raises(ValueError, match="not kept"):
            stream.read()
    patch(path, CENTRAL, 16, b"\0\0\0\0")  # another checksum
    with list_files(path).open(0) as stream, pytest.raises(ScanError, match=r"zeros\.zip/a: damaged"):
        stream.raw.check()


def test_overlapping_members_are_refused(tmp_path):
    path = make_zip(tmp_path / "overlap.zip", {"a": b"x" * 50, "b": b"y" * 50}, zipfile.ZIP_STORED)
    patch(path, CENTRAL, 42, struct.pack("<L", 0))  # both entries now point at the first member
    files = list_files(path)
    assert len(files) == 0
    assert "overlap" in files.left_out[0].reason


def test_a_name_twice_in_a_zip_is_read_once(tmp_path):
    path = tmp_path / "twice.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", b"old")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a", b"new")
    files = list_files(path)
    with files.open(0) as stream:
        assert (len(files), stream.read()) == (1, b"new")
    assert "twice" in files.left_out[0].reason


def test_damage_inside_an_archive_is_named(tmp_path):
    content = bytes(random.Random(1).choices(range(8), k=20_000))
    path = make_zip(tmp_path / "damaged.zip", {"a": content})
    data = bytearray(path.read_bytes())
    data[2000] ^= 0xFF
    path.write_bytes(data)
    files = list_files(path)
    with files.open(0) as stream, pytest.raises(ScanError, match=r"damaged.zip/a: (damaged|truncated|unpacks)"):
        stream.read()
    path.write_bytes(path.read_bytes()[:-30])
    assert "not a zip archive" in list_files(path).left_out[0].reason


def test_a_flipped_bit_that_still_unpacks_is_noticed(tmp_path):
    path = tmp_path / "rot.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=0) as archive:
        archive.writestr("a", bytes(1000))
    data = bytearray(path.read_bytes())
    data[500] ^= 1
    path.write_bytes(data)
    files = list_files(path)
    with files.open(0) as stream, pytest.raises(ScanError, match="length or checksum differs"):
        stream.read()


def test_a_flipped_bit_of_a_stored_member_is_noticed(tmp_path):
    path = make_zip(tmp_path / "rot.zip", {"a": bytes(3 << 20), "b": b"sound"}, zipfile.ZIP_STORED)
    files = list_files(path)
    for i in range(2):
        with files.open(i) as stream:
            assert stream.read(3) == (bytes(3), b"sou")[i]
            stream.raw.check()
            assert stream.read() == (bytes((3 << 20) - 3), b"nd")[i]
    data = bytearray(path.read_bytes())
    data[2 << 20] ^= 1
    path.write_bytes(data)
    with files.open(1) as stream:
        stream.raw.check()
    with files.open(0) as stream, pytest.raises(ScanError, match=r"rot\.zip/a: damaged .length or checksum differs"):
        stream.raw.check()


@pytest.mark.parametrize(("source", "message"), [("missing", "no such file or folder"), ([], "no source given")])
def test_nothing_to_list(tmp_path, source, message):
    with pytest.raises(ScanError, match=message):
        list_files(source if source == [] else tmp_path / source)
