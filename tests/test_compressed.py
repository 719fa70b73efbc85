"""Compressed pixel data: whole ones are read however they end, cut ones are not; decoders that are there and can't."""

import struct
from pathlib import Path

import numpy as np
import pytest
from compressed_files import JPEG2000, JPEG_LS, LOSSLESS, RLE, file_of, frame_of
from dicom_files import ct_dataset, dicom_bytes

from ichseq.ct.compressed import decoder_of, missing_decoder
from ichseq.ct.elements import Refused
from ichseq.ct.series import load_series
from ichseq.errors import ScanError

EXTENDED = "1.2.840.10008.1.2.4.51"
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
    assert "12 bits; there is pillow): pip install pylibjpeg-libjpeg, or convert the file" in text


def test_the_decoders_that_are_installed_read_8_bits_of_jpeg_extended_and_say_so_of_12() -> None:
    assert missing_decoder(EXTENDED, 8) == ""
    assert "no installed decoder reads this" in missing_decoder(EXTENDED, 12)
    with pytest.raises(Refused, match="no installed decoder reads this"):
        decoder_of(EXTENDED, 12)


def test_of_several_decoders_the_one_that_raises_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    from pydicom.pixels import get_decoder

    for syntax, best, next_best in ((JPEG_LS, "pyjpegls", "gdcm"), (JPEG2000, "pylibjpeg", "pillow")):
        assert decoder_of(syntax, 16) == best
        monkeypatch.delitem(get_decoder(syntax)._available, best)
        assert decoder_of(syntax, 16) == next_best


@pytest.mark.parametrize(("pieces", "table"), [(1, True), (1, False), (3, True), (3, False), (20, False)])
@pytest.mark.parametrize("syntax", [RLE, JPEG_LS, JPEG2000, LOSSLESS])
def test_a_frame_in_pieces_is_put_together(syntax: str, pieces: int, table: bool, tmp_path: Path) -> None:
    frame, pixels, _ = frame_of(syntax)
    (tmp_path / "file").write_bytes(file_of(frame, ct_dataset(pixels), syntax, pieces=pieces, table=table))
    (series,) = load_series(tmp_path)
    assert np.array_equal(series.hu[0], pixels.astype(int) - 1024)


def test_two_frames_in_one_slice_are_refused(tmp_path: Path) -> None:
    frame, pixels, _ = frame_of(JPEG_LS)
    data = file_of(frame, ct_dataset(pixels), JPEG_LS)
    place = data.index(struct.pack("<HHL", 0xFFFE, 0xE000, 4))
    table = struct.pack("<HHLLL", 0xFFFE, 0xE000, 8, 0, len(frame) + len(frame) % 2 + 8)
    item = data[place + 12 : -8]
    (tmp_path / "file").write_bytes(data[:place] + table + item + item + data[-8:])
    (series,) = load_series(tmp_path)
    with pytest.raises(ScanError, match="the compressed pixel data are of more than one frame"):
        _ = series.hu


def test_endless_pieces_are_refused(tmp_path: Path) -> None:
    data = compressed()[1]
    place = data.index(struct.pack("<HHL", 0xFFFE, 0xE000, 4))
    (tmp_path / "file").write_bytes(data[:place] + struct.pack("<HHL", 0xFFFE, 0xE000, 0) * (1 << 17) + END)
    with pytest.raises(ScanError, match="more than 65536 pieces of compressed pixel data; refused"):
        load_series(tmp_path)
