"""Headers and their files: a file that changes between header and pixels is noticed, wherever it lies."""

import gzip
import io
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from dicom_files import ct_dataset, dicom_bytes, write_series

from ichseq.ct.archive import list_files
from ichseq.ct.left_out import SliceError
from ichseq.ct.scan import CHANGED, check_unchanged, scan_headers
from ichseq.ct.series import load_series
from ichseq.errors import ScanError

IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN, RLE = (f"1.2.840.10008.1.2{end}" for end in ("", ".1", ".1.99", ".2", ".5"))

FOLDERS = ("folder", "packed files")


def noise(number: int) -> np.ndarray:
    return np.random.default_rng(number + 100).integers(0, 2000, (16, 12)).astype(np.int16)


def write_scan(path: Path, kind: str, syntax: str, *, noisy: bool) -> None:
    """Three slices, in a folder or in an archive; those of noise have the same headers."""
    pixels = noise if noisy else lambda number: None
    slices = {f"{n}": dicom_bytes(ct_dataset(pixels(n), number=n), syntax=syntax) for n in (1, 2, 3)}
    if kind in FOLDERS:
        path.mkdir(exist_ok=True)
        for name, data in slices.items():
            (path / name).write_bytes(gzip.compress(data) if kind == "packed files" else data)
        return
    if kind in ("tar", "tar.gz"):
        with tarfile.open(path, "w:gz" if kind == "tar.gz" else "w") as archive:
            for name, data in slices.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        return
    method = zipfile.ZIP_DEFLATED if kind == "deflated zip" else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", method) as zipped:
        for name, data in slices.items():
            zipped.writestr(name, data)


@pytest.mark.parametrize("kind", [*FOLDERS, "stored zip", "deflated zip", "tar", "tar.gz"])
@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN, RLE])
def test_a_source_that_is_replaced_by_noise_is_no_picture(tmp_path: Path, kind: str, syntax: str) -> None:
    source = tmp_path / "scan"
    write_scan(source, kind, syntax, noisy=False)
    (series,) = load_series(source)
    before = series.read()  # as often as one likes, while nothing changes
    assert np.array_equal(series.read(), before)
    os.utime(source / "1" if kind in FOLDERS else source, ns=(1, 1))  # so that no clock is too coarse to tell
    write_scan(source, kind, syntax, noisy=True)
    whole, lost = series.readable()
    assert whole is None
    assert [(item.file, item.reason, item.expected) for item in lost] == [
        (file, CHANGED, False) for file in series.files
    ]
    with pytest.raises(ScanError, match="changed since its header was read"):
        series.open_file(1)
    (again,) = load_series(source)
    assert not np.array_equal(again.read(), before)


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG_ENDIAN, RLE])
def test_pixels_elsewhere_are_noticed_though_size_and_time_are_the_same(tmp_path: Path, syntax: str) -> None:
    path = tmp_path / "slice"
    path.write_bytes(dicom_bytes(ct_dataset(), syntax=syntax))
    (series,) = load_series(path)
    status = path.stat()
    longer = dicom_bytes(ct_dataset(SeriesDescription="four"), syntax=syntax)
    path.write_bytes(longer[: status.st_size])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(SliceError, match="changed since its header was read"):
        series.read()


def test_a_file_that_changes_after_it_was_opened_is_noticed(tmp_path: Path) -> None:
    paths = write_series(tmp_path)
    files = list_files(tmp_path)
    headers = scan_headers(files)
    with files.open(0) as stream:
        check_unchanged(files, headers, 0)
        for path in paths:
            with open(path, "r+b") as file:
                file.seek(-4, os.SEEK_END)
                file.write(b"abcd")
            os.utime(path, ns=(1, 1))
        stream.read()
        with pytest.raises(SliceError, match=f"{files.name(0)}: changed"):
            check_unchanged(files, headers, 0)
