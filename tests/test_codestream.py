"""What a compressed frame says of itself against the DICOM header: sound ones pass, contradictions and cuts don't."""

import struct
from pathlib import Path

import numpy as np
import pytest
from compressed_files import BASELINE, JPEG2000, JPEG_LS, LOSSLESS, RLE, file_of, frame_of
from dicom_files import ct_dataset

from ichseq.ct.codestream import Layout, check_frame
from ichseq.ct.elements import Refused
from ichseq.ct.series import load_series
from ichseq.errors import ScanError

CODECS = [RLE, JPEG_LS, JPEG2000, LOSSLESS, BASELINE]


@pytest.fixture(scope="module", params=CODECS)
def sound(request: pytest.FixtureRequest) -> tuple[bytes, Layout]:
    frame, _, layout = frame_of(request.param)
    return frame, layout


def test_a_sound_frame_passes(sound: tuple[bytes, Layout]) -> None:
    check_frame(*sound)


@pytest.mark.parametrize(
    ("rows", "columns"), [(47, 36), (49, 36), (48, 35), (48, 37), (96, 36), (48, 72), (24, 36), (48, 4096), (1, 1)]
)
def test_other_rows_or_columns_are_a_contradiction_that_names_both(
    sound: tuple[bytes, Layout], rows: int, columns: int
) -> None:
    frame, layout = sound
    there = "(1728|more) pixels" if layout.syntax == RLE else "48 x 36 pixels"
    with pytest.raises(Refused, match=f"contradict its header: {there}, where it says {rows} x {columns}; get"):
        check_frame(frame, layout._replace(rows=rows, columns=columns))


def test_rows_and_columns_exchanged_are_a_contradiction(sound: tuple[bytes, Layout]) -> None:
    frame, layout = sound
    if layout.syntax == RLE:
        pytest.skip("a frame of RLE says how many pixels it has, not how they lie")
    with pytest.raises(Refused, match="48 x 36 pixels, where it says 36 x 48"):
        check_frame(frame, layout._replace(rows=36, columns=48))


def test_more_bits_than_the_header_has_room_for_are_a_contradiction() -> None:
    for syntax in (RLE, JPEG_LS, JPEG2000, LOSSLESS):
        frame, _, layout = frame_of(syntax)
        with pytest.raises(Refused, match=r"bits a pixel, where it says 8 allocated|2 bytes a pixel, where it says 1"):
            check_frame(frame, layout._replace(bits_allocated=8, bits_stored=8))
    for syntax in (JPEG_LS, JPEG2000):  # whose precision differs from BitsStored in sound files of several makers
        frame, _, layout = frame_of(syntax)
        for bits in (10, 12, 16):
            check_frame(frame, layout._replace(bits_stored=bits))


def test_jpeg_of_fewer_bits_than_its_decoders_can_make_is_a_contradiction() -> None:
    frame, _, layout = frame_of(LOSSLESS)
    with pytest.raises(Refused, match="16 bits a pixel, where it says 32 allocated"):
        check_frame(frame, layout._replace(bits_allocated=32, bits_stored=16))
    frame_of_8, _, layout_of_8 = frame_of(BASELINE)
    with pytest.raises(Refused, match="8 bits a pixel, where it says 16 allocated"):
        check_frame(frame_of_8, layout_of_8._replace(bits_allocated=16))
    place = frame.index(b"\xff\xc3") + 4
    short = frame[:place] + b"\x0c" + frame[place + 1 :]
    check_frame(short, layout._replace(bits_stored=16))
    with pytest.raises(Refused, match="12 bits a pixel, where it says 16 with the sign"):
        check_frame(short, layout._replace(bits_stored=16, signed=True))


def test_several_values_a_pixel_are_a_contradiction() -> None:
    frame, _, layout = frame_of(JPEG_LS)
    place = frame.index(b"\xff\xf7") + 9
    with pytest.raises(Refused, match="3 values a pixel, where it says 1"):
        check_frame(frame[:place] + b"\x03" + frame[place + 1 :], layout)


def test_a_frame_of_another_codec_is_refused(sound: tuple[bytes, Layout]) -> None:
    frame, layout = sound
    for other in CODECS:
        if other != layout.syntax:
            with pytest.raises(Refused, match=r"not what the transfer syntax says|contradict its header"):
                check_frame(frame, layout._replace(syntax=other))


def test_a_cut_frame_is_refused_wherever_it_is_cut(sound: tuple[bytes, Layout]) -> None:
    frame, layout = sound
    whole = len(frame.rstrip(b"\0"))
    if layout.syntax == JPEG2000:
        whole -= 2  # all tile-parts are there without the mark of the end
    for length in range(whole):
        with pytest.raises(Refused):
            check_frame(frame[:length], layout)


def test_what_is_endless_is_refused_before_it_is_walked() -> None:
    for syntax, start, endless in (
        (LOSSLESS, 2, b"\xff"),
        (LOSSLESS, 2, b"\xff\xd0"),
        (JPEG2000, 51, b"\xff\x64\0\0"),
        (RLE, 64, b"\x80"),
    ):
        frame, _, layout = frame_of(syntax)
        with pytest.raises(Refused, match=r"not what the transfer syntax says|: more pixels, where it says 48 x 36"):
            check_frame(frame[:start] + endless * (1 << 25), layout)


def test_changed_bytes_pass_or_are_refused_and_nothing_else(sound: tuple[bytes, Layout]) -> None:
    frame, layout = sound
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(1000):
        changed = bytearray(frame)
        for place in rng.integers(0, min(len(frame), 120), rng.integers(1, 4)):
            changed[place] = rng.integers(256)
        try:
            check_frame(bytes(changed), layout)
        except Refused:
            refused += 1
    assert 0 < refused < 1000


def test_jpeg_2000_in_its_file_format_and_jpeg_with_other_segments_first_pass() -> None:
    frame, _, layout = frame_of(JPEG2000)
    signature = struct.pack(">L4s4s", 12, b"jP  ", b"\r\n\x87\n")
    for box in (struct.pack(">L4s", 0, b"jp2c"), struct.pack(">L4sQ", 1, b"jp2c", len(frame) + 16)):
        check_frame(signature + struct.pack(">L4s8x", 16, b"ftyp") + box + frame, layout)
    frame, _, layout = frame_of(LOSSLESS)
    check_frame(frame[:2] + b"\xff\xe0\0\4JF" + b"\xff\xff\xfe\0\2" + frame[2:], layout)


def test_rle_segments_that_are_padded_pass() -> None:
    frame, _, layout = frame_of(RLE)
    check_frame(frame + b"\0\0" * 4, layout)  # unpacks to 4 bytes more
    with pytest.raises(Refused, match="1768 pixels, where it says 48 x 36"):
        check_frame(frame + b"\0\0" * 40, layout)


@pytest.mark.parametrize("syntax", CODECS)
def test_wrong_rows_in_a_file_give_no_pixels(syntax: str, tmp_path: Path) -> None:
    frame, pixels, layout = frame_of(syntax)
    for rows, name in ((48, "right"), (47, "wrong")):
        dataset = ct_dataset(pixels, BitsStored=layout.bits_stored, Rows=rows)
        (tmp_path / name).write_bytes(file_of(frame, dataset, syntax))
    (series,) = load_series(tmp_path / "right")
    assert np.abs(series.hu[0] - (pixels.astype(int) - 1024)).max() <= (20 if syntax == BASELINE else 0)
    (series,) = load_series(tmp_path / "wrong")
    with pytest.raises(ScanError, match=r"wrong: its compressed .* where it says 47 x 36; get the file again"):
        _ = series.hu
