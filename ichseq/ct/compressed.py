"""Compressed pixel data: whether they are whole, the frame in them, and which decoder here reads it."""

import os
import re
import struct
from collections.abc import Iterable
from typing import BinaryIO, Final, NamedTuple

from pydicom.pixels import get_decoder
from pydicom.uid import UID

from ichseq.ct.elements import quiet_pydicom, refuse
from ichseq.ct.streams import MAX_IMAGE_BYTES

_INSTALL_DECODERS: Final = "pip install 'ichseq[decoders]'"
_HEAD: Final = 8  # bytes of an item's tag and length
_CUT: Final = "truncated: the compressed pixel data end early; get the file again"
_MOST_BITS: Final = {("1.2.840.10008.1.2.4.51", "pillow"): 8, ("1.2.840.10008.1.2.4.51", "gdcm"): 8}
"""Bits that a plugin of pydicom reads at most of a transfer syntax, where another one would read more."""

_PREFERRED: Final = ("pydicom", "pyjpegls", "pylibjpeg", "pillow", "gdcm")
"""Plugins, those that raise on what is damaged before those that crash or hang. Measured on 1,600 damaged frames, with
pydicom 3.0.2: gdcm 3.2 crashes on some of JPEG Lossless and, where header and frame differ, of JPEG-LS and JPEG 2000;
pyjpegls 1.5 waits for ever for the end of a cut frame (which `check_frame` refuses); pylibjpeg and pillow raise."""

_MOST_ITEMS: Final = 1 << 16
_ITEM: Final = (0xFFFE, 0xE000)
_END: Final = (0xFFFE, 0xE0DD)


class Fragments(NamedTuple):
    """Where the pieces of a frame lie.

    Attributes:
        frames: entries of the table of offsets, 0 where it is empty.
        pieces: offset and length of each in the file.
        ended: whether the mark of their end follows.
    """

    frames: int
    pieces: list[tuple[int, int]]
    ended: bool


def find_fragments(stream: BinaryIO, offset: int, size: int) -> Fragments:
    """Walk the items of encapsulated pixel data (PS3.5 A.4) and refuse those that reach beyond the file.

    Items that end with the file are whole, though the mark of their end is missing or another one stands there.

    Raises:
        Refused: they are cut or damaged.
    """
    items: list[tuple[int, int]] = []  # the first one is a table of offsets
    while True:
        stream.seek(offset)
        head = stream.read(_HEAD)
        group, item, length = struct.unpack("<HHL", head) if len(head) == _HEAD else (0, 0, 0)
        ended = (group, item) == _END and length == 0
        if ended or (group, item) != _ITEM:
            pieces = [piece for piece in items[1:] if piece[1]]
            if ended or (pieces and size - offset <= _HEAD):
                return Fragments(items[0][1] // 4 if items else 0, pieces, ended)
            refuse("damaged: the compressed pixel data are no sequence of items" if len(head) == _HEAD else _CUT)
        items.append((offset + _HEAD, length))
        if len(items) > _MOST_ITEMS:
            refuse(f"more than {_MOST_ITEMS} pieces of compressed pixel data; refused")
        offset += _HEAD + length
        if offset > size:
            refuse(_CUT)


def read_frame(stream: BinaryIO, offset: int) -> bytes:
    """The one frame of encapsulated pixel data, put together.

    Raises:
        Refused: as for `find_fragments`; or there are several frames, or more bytes than an image can have.
    """
    found = find_fragments(stream, offset, stream.seek(0, os.SEEK_END))
    if found.frames > 1:
        refuse("the compressed pixel data are of more than one frame")
    if sum(length for _, length in found.pieces) > MAX_IMAGE_BYTES:
        refuse(f"more than {MAX_IMAGE_BYTES} bytes of compressed pixel data; refused")
    frame = bytearray()
    for place, length in found.pieces:
        stream.seek(place)
        frame += stream.read(length)
    return bytes(frame)


def decoder_of(syntax: str, bits_stored: int) -> str:
    """Name (pydicom's) of the plugin that decodes a transfer syntax here.

    One alone is asked: what it finds damaged, another one may turn into pixels, or crash on.

    Raises:
        Refused: there is none; see `missing_decoder`.
    """
    if missing := missing_decoder(syntax, bits_stored):
        refuse(missing)
    return min(_fitting(syntax, bits_stored, get_decoder(syntax).available_plugins), key=_PREFERRED.index)


def _fitting(syntax: str, bits_stored: int, plugins: Iterable[str]) -> list[str]:
    return [one for one in plugins if one in _PREFERRED and bits_stored <= _MOST_BITS.get((syntax, one), bits_stored)]


def missing_decoder(syntax: str, bits_stored: int) -> str:
    """Why a compressed transfer syntax cannot be decoded here and what to install; "" if it can be.

    Args:
        syntax: its UID.
        bits_stored: of the image: a plugin may be there and not do this precision.
    """
    with quiet_pydicom():
        name = UID(syntax).name if re.fullmatch(r"[0-9.]{1,64}", syntax) else "unknown"
        try:
            decoder = get_decoder(syntax)
        except (NotImplementedError, ValueError):
            decoder = None
    label = name if name == syntax or name == "unknown" else f"{name} ({syntax})"
    if decoder is None:
        return f"transfer syntax {label} is not one that is read; convert the file to Explicit VR Little Endian"
    if not decoder.is_available:
        return f"compressed as {label}, and no decoder is installed: {_INSTALL_DECODERS}"
    there = decoder.available_plugins
    if not _fitting(syntax, bits_stored, there):
        return (
            f"no installed decoder reads this (compressed as {label} with {bits_stored} bits; there is "
            f"{', '.join(there)}): pip install pylibjpeg-libjpeg, or convert the file (DCMTK's dcmdjpeg)"
        )
    return ""
