"""Compressed pixel data: whether they are whole, and whether something here can decode them."""

import re
import struct
from typing import BinaryIO, Final

from pydicom.pixels import get_decoder
from pydicom.uid import UID

from ichseq.ct.elements import quiet_pydicom, refuse

_INSTALL_DECODERS: Final = "pip install 'ichseq[decoders]'"
_HEAD: Final = 8  # bytes of an item's tag and length
_CUT: Final = "truncated: the compressed pixel data end early; get the file again"
_MOST_BITS: Final = {("1.2.840.10008.1.2.4.51", "pillow"): 8}
"""Bits that a plugin of pydicom reads at most of a transfer syntax, where another one would read more."""


_ITEM: Final = (0xFFFE, 0xE000)
_END: Final = (0xFFFE, 0xE0DD)


def check_fragments(stream: BinaryIO, offset: int, size: int) -> tuple[int, bool]:
    """Walk the items of encapsulated pixel data (PS3.5 A.4) and refuse those that reach beyond the file.

    Items that end with the file are whole, though the mark of their end is missing or another one stands there.

    Returns:
        Where the last item ends, and whether the mark of the end follows.
    """
    fragments = -1  # the first item is a table of offsets
    while True:
        stream.seek(offset)
        head = stream.read(_HEAD)
        group, item, length = struct.unpack("<HHL", head) if len(head) == _HEAD else (0, 0, 0)
        if (group, item) == _END and length == 0:
            return offset, True
        if (group, item) != _ITEM:
            if fragments >= 1 and size - offset <= _HEAD:
                return offset, False
            refuse("damaged: the compressed pixel data are no sequence of items" if len(head) == _HEAD else _CUT)
        offset += _HEAD + length
        fragments += length > 0 or fragments < 0
        if offset > size:
            refuse(_CUT)


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
    if all(bits_stored > _MOST_BITS.get((syntax, plugin), bits_stored) for plugin in there):
        return (
            f"no installed decoder reads this (compressed as {label} with {bits_stored} bits; there is "
            f"{', '.join(there)}): {_INSTALL_DECODERS}"
        )
    return ""
