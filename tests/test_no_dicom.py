"""Files that don't begin as DICOM does: read where they are slices all the same, named where slices may be in them."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dicom_files import ct_dataset, dicom_bytes, write_series

from ichseq.ct.elements import BIG_ENDIAN
from ichseq.ct.series import load_series
from ichseq.ct.streams import MAX_IMAGE_BYTES

SLICE = dicom_bytes(ct_dataset(number=9))


PACK = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}


def tar_of(content: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        info = tarfile.TarInfo("IM0001")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def zip_of(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("IM0001", content)
    return stream.getvalue()


@pytest.mark.parametrize("pack", PACK.values(), ids=PACK)
@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.1.99"])
@pytest.mark.parametrize("wrap", [None, zip_of, tar_of])
def test_a_packed_slice_is_read_among_others_whatever_it_is_called(
    pack: Callable[[bytes], bytes], syntax: str, wrap: Callable[[bytes], bytes] | None, tmp_path: Path
) -> None:
    write_series(tmp_path / "plain", range(1, 4))
    whole = dicom_bytes(ct_dataset(number=4), syntax=syntax)
    (tmp_path / "packed").write_bytes(wrap(pack(whole)) if wrap else pack(whole))
    found = load_series([tmp_path / "plain", tmp_path / "packed"])
    assert found.left_out == []
    (tmp_path / "plain" / "4").write_bytes(whole)
    (wanted,) = load_series(tmp_path / "plain")
    assert np.array_equal(found[0].hu, wanted.hu)
    assert found[0].warnings == wanted.warnings
    with found[0].open_file(3) as stream:
        assert stream.read() == whole


@pytest.mark.parametrize("pack", PACK.values(), ids=PACK)
def test_a_packed_slice_that_is_damaged_or_cut_off_is_missing(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    write_series(tmp_path, range(1, 4))
    packed = pack(dicom_bytes(ct_dataset(np.random.default_rng(0).integers(0, 2000, (64, 64)).astype(np.int16))))
    cut = bytearray(packed)
    cut[len(cut) * 3 // 4] ^= 1
    for k, data in enumerate((cut, packed[: len(packed) * 3 // 4], packed[:40], pack(b""))):
        (tmp_path / f"packed{k}").write_bytes(data)
    found = load_series(tmp_path)
    assert len(found[0]) == 3
    left_out = [*found.left_out]
    for series in found[1:]:
        whole, bad = series.readable()
        assert whole is None
        left_out += bad
    assert sorted(Path(item.file).name for item in left_out) == [f"packed{k}" for k in range(4)]
    assert not any(item.expected for item in left_out)
    assert all("get the file again" in item.reason for item in left_out)


@pytest.mark.parametrize(
    ("reason", "data"),
    [
        ("a tar inside the source; name it as a source of its own", gzip.compress(tar_of(SLICE))),
        ("a tar inside the source; name it as a source of its own", tar_of(SLICE)),
        ("a zip inside the source; name it as a source of its own", zip_of(SLICE)),
        ("packed as 7z: slices may be in it; unpack it first", b"7z\xbc\xaf\x27\x1c" + bytes(300)),
        ("packed as rar: slices may be in it; unpack it first", b"Rar!\x1a\x07\x01\x00" + bytes(300)),
        ("packed as zstd: slices may be in it; unpack it first", b"\x28\xb5\x2f\xfd" + bytes(300)),
        ("packed as compress: slices may be in it; unpack it first", b"\x1f\x9d\x90" + bytes(300)),
        ("packed as xz, twice: slices may be in it; unpack it first", gzip.compress(lzma.compress(SLICE))),
    ],
)
def test_what_may_hold_slices_and_is_not_opened_is_missing(reason: str, data: bytes, tmp_path: Path) -> None:
    write_series(tmp_path, range(1, 4))
    (tmp_path / "packed").write_bytes(data)
    (item,) = load_series(tmp_path).left_out
    assert item.reason == reason
    assert not item.expected


def test_other_packed_files_are_not(tmp_path: Path) -> None:
    write_series(tmp_path, range(1, 4))
    for k, pack in enumerate(PACK.values()):
        (tmp_path / f"t{k}").write_bytes(pack(b"slice,label\n" * 100))
    (tmp_path / "large").write_bytes(gzip.compress(bytes(MAX_IMAGE_BYTES + 1)))
    (tmp_path / "text").write_bytes(b"About DICM and DICOM files: " * 40)
    found = load_series(tmp_path)
    assert len(found.left_out) == 5
    assert {(item.reason, item.expected) for item in found.left_out} == {("not a DICOM file", True)}


def test_a_slice_whose_preamble_begins_as_a_packed_file_does_is_read_as_it_is(tmp_path: Path) -> None:
    for k, start in enumerate((gzip.compress(b""), b"BZh91AY&SY", b"PK\x03\x04", b"\xfd7zXZ\x00")):
        whole = dicom_bytes(ct_dataset(number=k))
        (tmp_path / f"{k}").write_bytes(start + whole[len(start) :])
    (series,) = load_series([tmp_path])
    assert series.hu.shape[0] == 4


@pytest.mark.parametrize("mark", [b"DICM", b""])
@pytest.mark.parametrize("before", [b"", bytes(16), b"x" * 700, bytes(132), b"x" * 5000], ids=len)
@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.1.99"])
def test_a_file_whose_preamble_is_of_another_length_or_without_its_mark_is_read(
    mark: bytes, before: bytes, syntax: str, tmp_path: Path
) -> None:
    pixels = np.arange(192, dtype=np.int16).reshape(16, 12)
    whole = dicom_bytes(ct_dataset(pixels), syntax=syntax)
    (tmp_path / "file").write_bytes(before + mark + whole[132:])
    (series,) = load_series(tmp_path)
    assert np.array_equal(series.hu[0], pixels - 1024)


@pytest.mark.parametrize("before", [b"DICM", b"x" * 50 + b"DICM", bytes(128) + b"DICM", bytes(128)], ids=len)
@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"])
def test_a_file_without_meta_is_read_behind_its_mark_or_preamble(before: bytes, syntax: str, tmp_path: Path) -> None:
    pixels = np.arange(192, dtype=np.int16).reshape(16, 12)
    (tmp_path / "file").write_bytes(before + dicom_bytes(ct_dataset(pixels), syntax=syntax, preamble=False))
    (series,) = load_series(tmp_path)
    assert np.array_equal(series.hu[0], pixels - 1024)


def test_a_big_endian_file_without_meta_is_read_or_named(tmp_path: Path) -> None:
    pixels = np.arange(192, dtype=np.int16).reshape(16, 12)
    dataset = ct_dataset(pixels, PixelData=pixels.byteswap().tobytes())
    (tmp_path / "file").write_bytes(dicom_bytes(dataset, syntax=BIG_ENDIAN, preamble=False))
    without_vr = b"\0\x08\0\0\0\0\0\x04\0\0\0\x0e" + b"\0\x08\0\x60\0\0\0\2CT" + bytes(400)
    (tmp_path / "other").write_bytes(without_vr)
    found = load_series(tmp_path)
    assert np.array_equal(found[0].hu[0], pixels - 1024)
    (item,) = found.left_out
    assert "ACR-NEMA" in item.reason
    assert not item.expected
