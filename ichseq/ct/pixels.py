"""Pixels of one slice: stored values to Hounsfield units."""

from typing import BinaryIO, Final

import numpy as np

from ichseq.ct.archive import FileList
from ichseq.ct.codestream import Layout, check_frame
from ichseq.ct.compressed import decoder_of, read_frame
from ichseq.ct.decoder_process import decode, dtype_of
from ichseq.ct.dicom import PACKED
from ichseq.ct.elements import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT, Refused, quiet_pydicom, read_meta
from ichseq.ct.left_out import SliceError
from ichseq.ct.scan import CHANGED, Headers, check_unchanged
from ichseq.ct.streams import Inflated, Window, unpacked
from ichseq.errors import ScanError
from ichseq.windows import AIR_HU

_INT16: Final = np.iinfo(np.int16)
_WRAPPED_FROM: Final = 3096  # air of a wrapped scan lies at 3096..4095, that is -1000..-1 HU
_AIR_FROM: Final = 3000
_BEFORE: Final = 12  # bytes of an element with explicit VR before its value: tag, VR, length
_OF_LAYOUT: Final = ("rows", "columns", "bits_allocated", "bits_stored")


def read_hu(stream: BinaryIO, name: str, image: np.void, syntax: str) -> tuple[np.ndarray, bool]:
    """Read one slice's Hounsfield units.

    Args:
        stream: the file, anywhere; pixels are read from the offset in `image`, the header is not parsed again.
        name: the file's name, for messages.
        image: a record of IMAGE_DTYPE.
        syntax: UID of the transfer syntax.

    Returns:
        int16 (rows, columns), rounded and clipped to int16, padding as air; and whether a wrapped 12-bit slice was
        repaired.

    Raises:
        SliceError: the pixels are truncated, damaged, elsewhere than the header said, or need a decoder that is not
            installed.
    """
    try:
        if image["noted"] & PACKED:
            stream.seek(0)
            stream = unpacked(stream, name)
        member = getattr(stream, "raw", None)
        if syntax == DEFLATED:
            stream = _inflate(stream, name, image)
        if syntax in (IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN):
            raw = _read_native(stream, name, image, 8 if syntax == IMPLICIT else _BEFORE)
        else:
            stream.seek(int(image["pixel_offset"]) - _BEFORE)
            _check_place(stream.read(2), name, image)
            raw = _read_compressed(stream, image, syntax)
        if isinstance(member, Window | Inflated):  # of an archive, or packed: with a checksum
            member.check()
        return to_hu(raw, image)
    except SliceError:
        raise
    except Refused as refused:
        raise SliceError(name, refused.reason) from None
    except ScanError as error:
        raise SliceError(name, error.reason) from error
    except OSError as error:
        raise SliceError(name, f"cannot be read ({error.strerror or error})") from error


def read_slice(files: FileList, headers: Headers, row: int) -> tuple[np.ndarray, bool]:
    """Read the Hounsfield units of one file; as `read_hu`.

    Args:
        files: entry k is the file of row k of `headers`.
        headers: the slices.
        row: which one.
    """
    name = files.name(row)
    try:
        try:
            with files.open(row) as stream:
                found = read_hu(stream, name, headers.numbers[row], headers.text("syntax", row))
        except ScanError:
            check_unchanged(files, headers, row)  # which is then the reason
            raise
        check_unchanged(files, headers, row)
        return found
    except SliceError:
        raise
    except ScanError as error:  # it could not be opened any more
        raise SliceError(name, error.reason) from error


def to_hu(raw: np.ndarray, image: np.void) -> tuple[np.ndarray, bool]:
    """Turn stored values into Hounsfield units; see `read_hu`.

    Padding is looked for in the stored values, before rescale (PS3.3 C.7.5.1.1.2). MONOCHROME1 needs nothing: it says
    how to display a value, not what it means.
    """
    stored = _without_unused_bits(raw, image)
    low, high = int(image["padding_low"]), int(image["padding_high"])
    padding = None
    if low <= high:
        padding = stored == low if low == high else (stored >= low) & (stored <= high)
        if stored is not raw:  # some writers pad with a value that needs more bits than BitsStored
            padding |= (raw >= low) & (raw <= high)
    slope, intercept = float(image["slope"]), float(image["intercept"])
    repaired = _is_wrapped(stored, image, padding)
    hu: np.ndarray
    if repaired:
        hu = stored.astype(np.int32)
        hu[hu >= _WRAPPED_FROM] -= 4096
    elif slope == 1 and _fits(stored, intercept):
        hu = stored.astype(np.int16)  # of the sum modulo 2**16, which is the sum
        hu += np.int64(intercept).astype(np.int16)
    else:
        with np.errstate(over="ignore", invalid="ignore"):  # an absurd slope overflows to infinity, then is clipped
            hu = np.rint(np.nan_to_num(stored.astype(np.float64) * slope + intercept, nan=AIR_HU))
    if hu.dtype != np.int16:
        hu = np.clip(hu, _INT16.min, _INT16.max).astype(np.int16)
    if padding is not None:
        hu[padding] = AIR_HU
    return hu, repaired


def _without_unused_bits(raw: np.ndarray, image: np.void) -> np.ndarray:
    """The lowest BitsStored bits, sign-extended; what stands above them is no part of the value (PS3.5 8.1.1)."""
    unused = int(image["bits_allocated"]) - int(image["bits_stored"])
    if not unused:
        return raw
    bits = int(image["bits_stored"]) - int(image["signed"])
    if raw.max() < 1 << bits and raw.min() >= (-1 << bits if image["signed"] else 0):
        return raw
    return (raw << unused) >> unused


def _fits(stored: np.ndarray, intercept: float) -> bool:
    """Whether the sum of each value and a whole intercept is an int16."""
    if stored.dtype.itemsize > 2 or intercept != int(intercept) or abs(intercept) >= 2**30:
        return False
    return _INT16.min <= int(stored.min()) + int(intercept) and int(stored.max()) + int(intercept) <= _INT16.max


def _is_wrapped(stored: np.ndarray, image: np.void, padding: np.ndarray | None) -> bool:
    """Whether a 12-bit unsigned slice holds air as 3096..4095: only if its border mostly does, since metal may too."""
    plain = image["bits_stored"] == 12 and not image["signed"] and image["slope"] == 1
    if not plain or image["intercept"] <= -100:
        return False
    edge = np.zeros(stored.shape, bool)
    edge[[0, -1], :] = edge[:, [0, -1]] = True
    if padding is not None:
        edge &= ~padding
    border = stored[edge]
    return border.size > 0 and float(np.mean(border >= _AIR_FROM)) > 0.5


def _dtype(image: np.void) -> np.dtype:
    order, kind = ">" if image["big_endian"] else "<", "i" if image["signed"] else "u"
    return np.dtype(f"{order}{kind}{int(image['bits_allocated']) // 8}")


def _inflate(stream: BinaryIO, name: str, image: np.void) -> BinaryIO:
    """The unpacked data set of a deflated file, bounded by what the image and its header can need."""
    end = int(image["pixel_offset"]) + int(image["rows"]) * int(image["columns"]) * int(image["bits_allocated"]) // 8
    stream.seek(0)
    with quiet_pydicom():
        read_meta(stream, 1 << 20)  # leaves the stream at the first deflated byte
    return Inflated(stream, name, limit=end + (16 << 20))  # type: ignore[return-value]


def _check_place(element: bytes, name: str, image: np.void) -> None:
    """See that an element of pixels still begins where it did: a file may change and keep its size and time."""
    if not element.startswith(b"\x7f\xe0" if image["big_endian"] else b"\xe0\x7f"):  # the group of its tag
        raise SliceError(name, CHANGED)


def _read_native(stream: BinaryIO, name: str, image: np.void, before: int) -> np.ndarray:
    """Stored values; `before` bytes of the element, tag and length, stand before them."""
    shape, dtype = (int(image["rows"]), int(image["columns"])), _dtype(image)
    stream.seek(int(image["pixel_offset"]) - before)
    size = shape[0] * shape[1] * dtype.itemsize
    data = stream.read(before + size)
    _check_place(data, name, image)
    if len(data) < before + size:
        raise SliceError(name, f"truncated: {len(data) - before} of {size} bytes of pixel data; get the file again")
    return np.frombuffer(data, dtype, offset=before).astype(dtype.newbyteorder("="), copy=False).reshape(shape)


def _read_compressed(stream: BinaryIO, image: np.void, syntax: str) -> np.ndarray:
    """Decode compressed pixels, if the frame says of itself what the header says; raises Refused."""
    rows, columns, allocated, stored = (int(image[name]) for name in _OF_LAYOUT)
    layout = Layout(syntax, rows, columns, allocated, stored, bool(image["signed"]))
    plugin = decoder_of(syntax, stored)
    frame = read_frame(stream, int(image["pixel_offset"]))
    check_frame(frame, layout)
    pixels = decode(frame, layout, plugin)
    return np.frombuffer(pixels, dtype_of(layout)).reshape(rows, columns)
