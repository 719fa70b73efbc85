"""What is no CT image is known by its SOP class, and is nothing that is missing."""

from pathlib import Path
from typing import Any

import pytest
from dicom_files import CT_IMAGE, ct_dataset, dicom_bytes, write_series

from ichseq.ct.kinds import what_else
from ichseq.ct.series import load_series

_PIXELS = ["Rows", "Columns", "PixelData", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"]
_PLACE = ["RescaleSlope", "RescaleIntercept", "ImagePositionPatient", "ImageOrientationPatient"]
BARE: dict[str, Any] = dict.fromkeys([*_PIXELS, *_PLACE])


@pytest.mark.parametrize(
    ("sop_class", "changes", "words"),
    [
        ("1.2.840.10008.5.1.4.1.1.104.1", BARE, "a document"),
        ("1.2.840.10008.5.1.4.1.1.66", BARE, "raw data"),
        ("1.2.840.10008.5.1.4.1.1.66.4", {"NumberOfFrames": 7}, "a segmentation"),
        ("1.2.840.10008.5.1.4.1.1.66.1", BARE, "a registration"),
        ("1.2.840.10008.5.1.4.1.1.11.1", BARE, "a presentation state"),
        ("1.2.840.10008.5.1.4.1.1.88.67", BARE, "a dose report"),
        ("1.2.840.10008.5.1.4.1.1.481.3", BARE, "of radiotherapy"),
        ("1.2.840.10008.5.1.4.1.1.9.1.1", BARE, "a waveform"),
        ("1.2.840.10008.5.1.4.1.1.7.2", {"NumberOfFrames": 3}, "a secondary capture"),
        ("1.2.840.10008.5.1.4.1.1.4", {}, "another SOP class"),
        ("1.3.12.2.1107.5.9.1", BARE, "manufacturer's own"),
        ("1.2.840.10008.5.1.4.38.1", BARE, "no image"),
    ],
)
@pytest.mark.parametrize("in_meta_alone", [False, True])
def test_no_image_is_left_out_whatever_modality_says(
    sop_class: str, changes: dict[str, Any], words: str, in_meta_alone: bool, tmp_path: Path
) -> None:
    write_series(tmp_path, range(1, 4))
    own = {} if in_meta_alone else {"SOPClassUID": sop_class}
    other = ct_dataset(number=9, **changes | own)
    (tmp_path / "other").write_bytes(dicom_bytes(other, sop_class=sop_class))
    found = load_series(tmp_path)
    assert [len(series) for series in found] == [3]
    (item,) = found.left_out
    assert words in item.reason
    assert item.expected


def test_images_of_ct_and_of_a_manufacturers_class_go_on() -> None:
    for sop_class in ("", CT_IMAGE, f"{CT_IMAGE}.1", "1.3.46.670589.33.1"):
        assert what_else(sop_class, has_rows=True) == ""
