"""Compressed pixel data: whole ones are read however they end, cut ones are not; decoders that are there and can't."""

import struct
from pathlib import Path

import numpy as np
import pytest
from dicom_files import ct_dataset, dicom_bytes

from ichseq.ct.compressed import missing_decoder
from ichseq.ct.series import load_series
from ichseq.errors import ScanError

RLE, EXTENDED = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.51"
END = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)


def compressed() -> tuple[np.ndarray, bytes]:
    """Pixels, and their file up to the mark of the end."""
    pixels = np.random.default_rng(0).integers(0, 2000, (16, 12)).astype(np.int16)
    data = dicom_bytes(ct_dataset(pixels), syntax=RLE)
    assert data.endswith(END)
    return pixels - 1024, data.removesuffix(END)


@pytest.mark.parametrize(
    "end",
    [b"", struct.pack("<HHL", 0xFFFE, 0xE00D, 0), struct.pack("<HHL", 0xFFFE, 0xE0DD, 4), bytes(8), b"\0", END[:5]],
    ids=["none", "of an item", "with a length", "zeros", "a byte", "half"],
)
def test_fragments_that_end_with_the_file_are_whole(end: bytes, tmp_path: Path) -> None:
    hu, data = compressed()
    (tmp_path / "file").write_bytes(data + end)
    (series,) = load_series(tmp_path)
    assert np.array_equal(series.hu[0], hu)
    assert series.warnings == ["compressed pixel data of 1 file end without their mark; they are whole"]


def test_the_mark_of_the_end_is_no_note(tmp_path: Path) -> None:
    hu, data = compressed()
    (tmp_path / "file").write_bytes(data + END)
    (series,) = load_series(tmp_path)
    assert np.array_equal(series.hu[0], hu)
    assert series.warnings == []


@pytest.mark.parametrize("cut", [1, 40, 190])
def test_fragments_that_are_cut_are_not(cut: int, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(compressed()[1][:-cut])
    with pytest.raises(ScanError, match="1 x truncated: the compressed pixel data end early"):
        load_series(tmp_path)


def test_much_of_something_else_after_the_fragments_is_damage(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(compressed()[1] + bytes(40))
    with pytest.raises(ScanError, match="1 x damaged: the compressed pixel data are no sequence of items"):
        load_series(tmp_path)


def test_a_decoder_that_is_there_and_cannot_do_this_precision_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With pillow alone, which reads 8 bits of this syntax."""
    from pydicom.pixels import get_decoder

    decoder = get_decoder(EXTENDED)
    for name in list(decoder.available_plugins):
        if name != "pillow":
            monkeypatch.delitem(decoder._available, name)
    assert missing_decoder(EXTENDED, 8) == ""
    text = missing_decoder(EXTENDED, 12)
    assert "no installed decoder reads this" in text
    assert "JPEG Extended" in text
    assert "12 bits; there is pillow): pip install 'ichseq[decoders]'" in text
