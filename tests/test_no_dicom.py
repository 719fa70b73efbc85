"""Files that don't begin as DICOM does: read where they are slices all the same, named where slices may be in them."""

import bz2
import gzip
import io
import lzma
import tarfile
from pathlib import Path

import numpy as np
import pytest
from dicom_files import ct_dataset, dicom_bytes, write_series

from ichseq.ct.elements import BIG_ENDIAN
from ichseq.ct.series import load_series

SLICE = dicom_bytes(ct_dataset(number=9))


def tar_of(content: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        info = tarfile.TarInfo("IM0001")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("gzip", gzip.compress(SLICE)),
        ("gzip", gzip.compress(tar_of(SLICE))),
        ("bzip2", bz2.compress(SLICE)),
        ("xz", lzma.compress(SLICE)),
        ("tar", tar_of(SLICE)),
        ("7z", b"7z\xbc\xaf\x27\x1c" + bytes(300)),
        ("rar", b"Rar!\x1a\x07\x01\x00" + bytes(300)),
        ("gzip", gzip.compress(SLICE)[:20] + b"damaged" * 20),
    ],
)
def test_packed_slices_among_others_are_missing(name: str, data: bytes, tmp_path: Path) -> None:
    write_series(tmp_path, range(1, 4))
    (tmp_path / "packed").write_bytes(data)
    (item,) = load_series(tmp_path).left_out
    assert item.reason == f"packed as {name}: slices may be in it; unpack it first"
    assert not item.expected


def test_other_packed_files_are_not(tmp_path: Path) -> None:
    write_series(tmp_path, range(1, 4))
    for k, pack in enumerate((gzip.compress, bz2.compress, lzma.compress)):
        (tmp_path / f"t{k}").write_bytes(pack(b"slice,label\n" * 100))
    (tmp_path / "text").write_bytes(b"About DICM and DICOM files: " * 40)
    found = load_series(tmp_path)
    assert [item.expected for item in found.left_out] == [True] * 4
    assert {item.reason for item in found.left_out if "text" not in item.file} == {
        f"packed as {name}: of something else than DICOM files" for name in ("gzip", "bzip2", "xz")
    }


@pytest.mark.parametrize("before", [b"", bytes(16), b"x" * 700], ids=len)
@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.1.99"])
def test_a_file_whose_preamble_is_of_another_length_is_read(before: bytes, syntax: str, tmp_path: Path) -> None:
    pixels = np.arange(192, dtype=np.int16).reshape(16, 12)
    whole = dicom_bytes(ct_dataset(pixels), syntax=syntax)
    (tmp_path / "file").write_bytes(before + whole[128:])
    (series,) = load_series(tmp_path)
    assert np.array_equal(series.hu[0], pixels - 1024)


def test_a_big_endian_file_without_meta_is_read(tmp_path: Path) -> None:
    pixels = np.arange(192, dtype=np.int16).reshape(16, 12)
    dataset = ct_dataset(pixels, PixelData=pixels.byteswap().tobytes())
    (tmp_path / "file").write_bytes(dicom_bytes(dataset, syntax=BIG_ENDIAN, preamble=False))
    (series,) = load_series(tmp_path)
    assert np.array_equal(series.hu[0], pixels - 1024)
