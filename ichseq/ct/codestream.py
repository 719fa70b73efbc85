"""What a compressed frame says of itself, held against the DICOM header before a decoder sees the frame.

Decoders believe one of the two and write where the other one has made room: a contradiction crashes them, or gives
other pixels.
"""

import struct
from typing import Final, NamedTuple, NoReturn

from pydicom.uid import JPEG2000TransferSyntaxes, JPEGLSTransferSyntaxes, RLELossless

from ichseq.ct.elements import refuse


class Layout(NamedTuple):
    """What the DICOM header says of a frame of one grey image."""

    syntax: str
    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    signed: bool


class Stated(NamedTuple):
    """What the frame itself says."""

    rows: int
    columns: int
    components: int
    bits: int


_LOSSLESS: Final = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
_NO_CODESTREAM: Final = "damaged: its compressed pixel data are not what the transfer syntax says; get the file again"
_CUT: Final = "truncated: its compressed pixel data end early; get the file again"
_START_OF_FRAME: Final = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # C4, C8 and CC are other segments
_ALONE: Final = {0x01, *range(0xD0, 0xD9)}  # markers without a segment
_END_OF_IMAGE: Final = b"\xff\xd9"
_TILE: Final = 0xFF90  # start of a tile-part
_MOST_PARTS: Final = 1 << 17  # segments and tile-parts that are walked
_SCAN_OR_END: Final = (0xDA, 0xD9)


def check_frame(frame: bytes, layout: Layout) -> None:
    """Refuse a frame whose own header contradicts the DICOM header.

    JPEG (ITU-T T.81 B.2.2) and JPEG-LS (T.87 C.2.2) have it in the segment "start of frame", JPEG 2000 (T.800 A.5.1) in
    SIZ. RLE (PS3.5 G) states the number of segments, a byte of each pixel in each; how many pixels they hold is
    counted. A frame that ends before its end is refused too: decoders make it up, or wait for it for ever.

    The precision may differ from BitsStored, as it does in sound files of several makers, but not go beyond
    BitsAllocated; and signed pixels of JPEG, which knows no sign, need theirs to stand where BitsStored says.

    Raises:
        Refused: they contradict each other, or the frame is cut or of another kind.
    """
    if layout.syntax == RLELossless:
        _check_segments(frame, layout)
        return
    if layout.syntax in JPEG2000TransferSyntaxes:
        stated = _jpeg2000(frame)
    elif layout.syntax in JPEGLSTransferSyntaxes:
        stated = _jpeg(frame, {0xF7})
    else:
        stated = _jpeg(frame, {0xC3} if layout.syntax in _LOSSLESS else {0xC0, 0xC1, 0xC2})
    if (stated.rows, stated.columns) != (layout.rows, layout.columns):
        _contradict(f"{stated.rows} x {stated.columns} pixels", f"{layout.rows} x {layout.columns}")
    if stated.components != 1:
        _contradict(f"{stated.components} values a pixel", 1)
    is_jpeg = layout.syntax not in (*JPEG2000TransferSyntaxes, *JPEGLSTransferSyntaxes)
    # Decoders of JPEG make 16 bits at most of a pixel, those of 8 bits with loss 8, and end where more are asked for.
    room = 32 if not is_jpeg else 16 if stated.bits > 8 or layout.syntax in _LOSSLESS else 8
    if not 1 <= stated.bits <= layout.bits_allocated <= room:
        _contradict(f"{stated.bits} bits a pixel", f"{layout.bits_allocated} allocated")
    if is_jpeg and layout.signed and stated.bits < layout.bits_stored:
        _contradict(f"{stated.bits} bits a pixel", f"{layout.bits_stored} with the sign")


def _contradict(frame: str, header: str | int) -> NoReturn:
    refuse(f"its compressed pixel data contradict its header: {frame}, where it says {header}; get the file again")


def _jpeg(frame: bytes, kinds: set[int]) -> Stated:
    """What the start of frame says, if it is one of these kinds."""
    place = 2
    for _ in range(_MOST_PARTS):
        if not frame.startswith(b"\xff\xd8") or place + 4 > len(frame) or frame[place] != 0xFF:
            break
        marker, (length,) = frame[place + 1], struct.unpack_from(">H", frame, place + 2)
        if marker in _START_OF_FRAME:
            if marker not in kinds or place + 10 > len(frame):
                break
            if frame.find(_END_OF_IMAGE, place) < 0:  # these two bytes never stand in coded pixels
                refuse(_CUT)
            bits, rows, columns, components = struct.unpack_from(">BHHB", frame, place + 4)
            return Stated(rows, columns, components, bits)
        if marker in _SCAN_OR_END:
            break
        place += 1 if marker == 0xFF else 2 if marker in _ALONE else 2 + length  # FF may fill up before a marker
    refuse(_NO_CODESTREAM)


def _jpeg2000(frame: bytes) -> Stated:
    start = _codestream(frame)
    if frame[start : start + 4] != b"\xff\x4f\xff\x51" or len(frame) < start + 45:
        refuse(_NO_CODESTREAM)
    right, bottom, left, top = struct.unpack_from(">4L", frame, start + 8)
    components, bits, across, down = struct.unpack_from(">HBBB", frame, start + 40)
    if (across, down) != (1, 1):  # a component that is sampled more coarsely than the picture's grid
        refuse(_NO_CODESTREAM)
    _check_tiles(frame, start + 2)
    return Stated(bottom - top, right - left, components, (bits & 0x7F) + 1)


def _check_tiles(frame: bytes, place: int) -> None:
    """Refuse a codestream without all the bytes that its tile-parts say they have (T.800 A.4.2)."""
    tiles = 0
    for _ in range(_MOST_PARTS):
        without_mark = tiles > 0 and 0 <= len(frame) - place < 2
        if without_mark or frame[place : place + 2] == _END_OF_IMAGE:
            return
        if place + 12 > len(frame):
            refuse(_CUT)
        marker, length = struct.unpack_from(">HH", frame, place)
        if marker == _TILE:
            (length,) = struct.unpack_from(">L", frame, place + 6)  # 0: as far as the end
            place = max(place + length if length else frame.rfind(_END_OF_IMAGE), place + 12)
            tiles += 1
        elif marker < 0xFF00:
            break
        else:
            place += 2 + length
    refuse(_NO_CODESTREAM)


def _codestream(frame: bytes) -> int:
    """Where the codestream begins: some writers leave it in its file format, JP2 (T.800 I), a sequence of boxes."""
    place = 0
    while frame[4:8] == b"jP  " and place + 16 <= len(frame):
        length, kind = struct.unpack_from(">L4s", frame, place)
        head = 16 if length == 1 else 8
        if kind == b"jp2c":
            return place + head
        place += max(head, struct.unpack_from(">Q", frame, place + 8)[0] if length == 1 else length)
    return 0


def _check_segments(frame: bytes, layout: Layout) -> None:
    wanted, pixels = layout.bits_allocated // 8, layout.rows * layout.columns
    if len(frame) < 64:
        refuse(_NO_CODESTREAM)
    count, *offsets = struct.unpack_from("<16L", frame)
    if count != wanted:
        _contradict(f"{count} bytes a pixel", wanted)
    if len(frame) > 2 * (wanted * pixels + 64):  # what can't be packed takes 1 % more than its pixels
        _contradict("more pixels", f"{layout.rows} x {layout.columns}")
    ends = [*offsets[1:count], len(frame)]
    if offsets[0] != 64 or any(start > end for start, end in zip(offsets[:count], ends, strict=True)):
        refuse(_NO_CODESTREAM)
    for start, end in zip(offsets[:count], ends, strict=True):
        there = _pixels_of_segment(frame[start:end])
        # Some writers pad a segment so that it unpacks to a few bytes more; a row or a column more is no padding.
        if there < pixels or there - pixels >= min(layout.rows, layout.columns):
            _contradict(f"{there} pixels", f"{layout.rows} x {layout.columns}")


def _pixels_of_segment(segment: bytes) -> int:
    """Bytes that a segment of PackBits unpacks to (PS3.5 G.3.2)."""
    count = place = 0
    while place + 1 < len(segment):
        control = segment[place]
        if control < 128:
            count += min(control + 1, len(segment) - place - 1)
            place += control + 2
        elif control > 128:
            count += 257 - control
            place += 2
        else:
            place += 1
    return count
