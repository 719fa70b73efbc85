"""Positions and numbers that are there, but give no order."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_files import ct_dataset, dicom_bytes

from ichseq.ct.order import Order
from ichseq.ct.series import load_series
from ichseq.errors import ScanError


def write(folder: Path, count: int, **changes: Any) -> Path:
    """`count` slices of different pixels; a value of `changes` may be a list, a value for each."""
    for k in range(count):
        tags = {name: value[k] if isinstance(value, list) else value for name, value in changes.items()}
        pixels = np.random.default_rng(k).integers(0, 2000, (6, 5)).astype(np.int16)
        (folder / f"{k * 7919 % 101:03}").write_bytes(dicom_bytes(ct_dataset(pixels, number=k, **tags)))
    return folder


@pytest.mark.parametrize("place", ["0\\0\\0", "-125\\-125\\37.5"])
@pytest.mark.parametrize("stray", [0, 2])
def test_one_position_for_all_slices_is_none(place: str, stray: int, tmp_path: Path) -> None:
    places = [place] * (12 - stray) + [f"-125\\-125\\{50 + 5 * k}" for k in range(stray)]
    write(
        tmp_path, 12, ImagePositionPatient=places, InstanceNumber=list(range(1, 13)), AcquisitionNumber=list(range(12))
    )
    with pytest.raises(ScanError, match=r"12 x ImagePositionPatient is nearly always the same.*--order instance"):
        load_series(tmp_path)
    (series,) = load_series(tmp_path, order="instance")
    assert [int(uid.rpartition(".")[2]) for uid in series.sop_uids] == list(range(12))
    assert np.isnan(series.positions_mm).all()
    assert series.warnings == ["12 slices have no position"]


@pytest.mark.parametrize("numbers", [[1] * 9, [0] * 9, [1] * 8 + [2]])
@pytest.mark.parametrize("bare", [False, True])
def test_one_number_for_all_slices_is_none(numbers: list[int], bare: bool, tmp_path: Path) -> None:
    changes = {"ImagePositionPatient": None, "ImageOrientationPatient": None} if bare else {}
    write(tmp_path, 9, InstanceNumber=numbers, **changes)
    with pytest.raises(ScanError, match=r"9 x InstanceNumber is nearly always the same.*file order"):
        load_series(tmp_path, order="instance")
    assert len(load_series(tmp_path, order="file")[0]) == 9


@pytest.mark.parametrize("order", ["position", "instance"])
def test_copies_of_one_slice_are_no_useless_positions(order: Order, tmp_path: Path) -> None:
    for k in range(6):
        (tmp_path / f"{k}").write_bytes(dicom_bytes(ct_dataset(number=1, InstanceNumber=1)))
    found = load_series(tmp_path, order=order)
    assert [len(series) for series in found] == [1]
    assert all("duplicate" in item.reason for item in found.left_out)


def test_one_place_at_several_times_is_no_slice_that_is_missing(tmp_path: Path) -> None:
    """The scanner waits for contrast medium; beside it, a head."""
    times = [f"1200{k:02d}" for k in range(15)]
    (tmp_path / "wait").mkdir()
    write(tmp_path / "wait", 15, ImagePositionPatient="0\\0\\9", AcquisitionTime=times, SeriesInstanceUID="1.2.9")
    (tmp_path / "head").mkdir()
    write(tmp_path / "head", 15, AcquisitionTime=times)
    found = load_series(tmp_path)
    assert [len(series) for series in found] == [15]
    assert [(item.reason, item.expected) for item in found.left_out] == [
        ("one place at several times (contrast medium is waited for), not a series of a head", True)
    ] * 15
