"""Compressed pixel data: whether they are whole, and whether something here can decode them."""

import re
import struct
from typing import BinaryIO, Final

from pydicom.pixels import get_decoder
from pydicom.uid import UID

from ichseq.ct.elements import quiet_pydicom, refuse

_INSTALL_DECODERS: Final = "pip install 'ichseq[decoders]'"


def check_fragments(stream: BinaryIO, offset: int, size: int) -> None:
    """Walk the items of encapsulated pixel data (PS3.5 A.4) and refuse those that reach beyond the file."""
    while True:
        stream.seek(offset)
        head = stream.read(8)
        group, item, length = struct.unpack("<HHL", head) if len(head) == 8 else (0, 0, size)
        offset += 8 + length
        if offset > size:
            refuse("truncated: the compressed pixel data end early; get the file again")
        if (group, item) == (0xFFFE, 0xE0DD):
            return
        if (group, item) != (0xFFFE, 0xE000):
            refuse("damaged: the compressed pixel data are no sequence of items")


def missing_decoder(syntax: str) -> str:
    """Why a compressed transfer syntax cannot be decoded here and what to install; "" if it can be."""
    with quiet_pydicom():
        name = UID(syntax).name if re.fullmatch(r"[0-9.]{1,64}", syntax) else "unknown"
        try:
            decoder = get_decoder(syntax)
        except (NotImplementedError, ValueError):
            decoder = None
    label = name if name == syntax or name == "unknown" else f"{name} ({syntax})"
    if decoder is None:
        return f"transfer syntax {label} is not one that is read; convert the file to Explicit VR Little Endian"
    return "" if decoder.is_available else f"compressed as {label}, and no decoder is installed: {_INSTALL_DECODERS}"
