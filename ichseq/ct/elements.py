"""Elements of a DICOM file as bytes: which are read, how they are decoded, and how pydicom's warnings are kept private.

pydicom parses; the values are decoded here, from the bytes, since pydicom's own conversion prints a value that it
doubts, and a header holds patient data.

`pydicom.config.settings.reading_validation_mode = IGNORE` does not replace this. Measured with pydicom 3.0.2 on 1,553
headers, with a name in one element each (private ones too) or with 1 to 5 bytes changed: a line in a log or a warning
of 1,331 in the default mode, of 127 in that mode, and of 124 with the bytes decoded here, in either mode; those left
print the value of SpecificCharacterSet, which is converted even where it is not asked for. Decoders of pixels warn
alike in both modes (59 of 300 damaged files). The mode is also one for all threads of the process.
"""

import logging
import math
import os
import re
import struct
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, Final, NoReturn

import numpy as np
import pydicom.pixels  # for its loggers, which have to exist before they can be filtered
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.values import converters

from ichseq.ct.no_dicom import is_acr_nema, is_big_endian, meta_place, packed_as

IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN = (f"1.2.840.10008.1.2{end}" for end in ("", ".1", ".1.99", ".2"))
TAGS: Final = {
    "ImageType": 0x00080008,
    "SOPClassUID": 0x00080016,
    "SOPInstanceUID": 0x00080018,
    "AcquisitionTime": 0x00080032,
    "ContentTime": 0x00080033,
    "Modality": 0x00080060,
    "SeriesDescription": 0x0008103E,
    "PatientID": 0x00100020,
    "PatientAge": 0x00101010,
    "ContrastBolusAgent": 0x00180010,
    "SliceThickness": 0x00180050,
    "ConvolutionKernel": 0x00181210,
    "StudyInstanceUID": 0x0020000D,
    "SeriesInstanceUID": 0x0020000E,
    "SeriesNumber": 0x00200011,
    "AcquisitionNumber": 0x00200012,
    "InstanceNumber": 0x00200013,
    "ImagePositionPatient": 0x00200032,
    "ImageOrientationPatient": 0x00200037,
    "FrameOfReferenceUID": 0x00200052,
    "SamplesPerPixel": 0x00280002,
    "PhotometricInterpretation": 0x00280004,
    "NumberOfFrames": 0x00280008,
    "Rows": 0x00280010,
    "Columns": 0x00280011,
    "PixelSpacing": 0x00280030,
    "BitsAllocated": 0x00280100,
    "BitsStored": 0x00280101,
    "HighBit": 0x00280102,
    "PixelRepresentation": 0x00280103,
    "PixelPaddingValue": 0x00280120,
    "PixelPaddingRangeLimit": 0x00280121,
    "RescaleIntercept": 0x00281052,
    "RescaleSlope": 0x00281053,
    "RescaleType": 0x00281054,
    "MediaStorageSOPClassUID": 0x00020002,
    "MediaStorageSOPInstanceUID": 0x00020003,
    "TransferSyntaxUID": 0x00020010,
    "ImplementationVersionName": 0x00020013,
}
PIXEL_TAGS: Final = (0x7FE00010, 0x7FE00009, 0x7FE00008)
_ALL_PIXEL_TAGS: Final = frozenset(PIXEL_TAGS)  # a look-up by hash, where pydicom's tags compare slowly
Elements = dict[int, Any]
"""Elements of a data set as pydicom reads them, their values still bytes, by the number of their tag."""

_PREAMBLE: Final = 128
_META_WITHIN: Final = 8192  # bytes from the beginning in which a misplaced meta is looked for
UNDEFINED: Final = 0xFFFFFFFF
MAX_VALUE_BYTES: Final = 1024
"""No value that is read here may be longer: the standard allows 64 characters, and a few values to most elements."""

NO_NUMBER: Final = int(np.iinfo(np.int64).min)
"""Stands for an integer that the header lacks."""


class Refused(Exception):
    """A file is out, for this reason; the reader that knows its name makes a SliceError of it."""

    def __init__(self, reason: str, *, expected: bool = False, is_dicom: bool = True) -> None:
        super().__init__(reason)
        self.reason, self.expected, self.is_dicom = reason, expected, is_dicom


def refuse(reason: str, *, expected: bool = False) -> NoReturn:
    """Raise Refused."""
    raise Refused(reason, expected=expected)


class _Note:
    """Whether pydicom has warned of anything but an invalid UID."""

    seen = False


class _Privacy(logging.Filter):
    """Keeps pydicom's log lines, which print values, out of every log while a thread reads."""

    def __init__(self) -> None:
        super().__init__()
        self.of_thread = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        note = getattr(self.of_thread, "note", None)
        if note is not None and record.levelno >= logging.WARNING and "VR UI" not in record.getMessage():
            note.seen = True
        return note is None


_PRIVACY: Final = _Privacy()
for _name in list(logging.root.manager.loggerDict):
    if _name.partition(".")[0] == pydicom.__name__:  # a logger's filter does not see the records of those below it
        logging.getLogger(_name).addFilter(_PRIVACY)
_LOCK = threading.RLock()  # warnings.catch_warnings is global state


@contextmanager
def quiet_pydicom() -> Iterator[_Note]:
    """Catch pydicom's warnings, which print header values; other modules' warnings pass. Notes if there were any."""
    note = _Note()
    with _LOCK:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            _PRIVACY.of_thread.note = note
            try:
                yield note
            finally:
                _PRIVACY.of_thread.note = None
        for warning in caught:
            if re.search(r"[\\/](pydicom|ichseq)[\\/]", warning.filename):
                note.seen = note.seen or "VR UI" not in str(warning.message)
            else:
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def read_meta(stream: BinaryIO, size: int) -> tuple[Elements, str]:
    """The file meta and the transfer syntax; "" where the file doesn't say. `stream` then stands at the data set."""
    start = stream.read(_PREAMBLE + 4)
    if start[_PREAMBLE:] != b"DICM":
        if is_big_endian(start, converters) and not _looks_like_dicom(start, size):
            stream.seek(0)
            return {}, BIG_ENDIAN
        if not _looks_like_dicom(start, size):
            _skip_to_meta(stream, start)
        else:
            stream.seek(0)
    meta = _by_number(read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag.group != 2))
    return meta, text_of(meta, "TransferSyntaxUID")


def _skip_to_meta(stream: BinaryIO, start: bytes) -> None:
    """Go to where the meta begins, if that is not far; refuses what is no DICOM file, by what it is."""
    if packed := packed_as(start, stream):
        raise Refused(packed, is_dicom=False)
    stream.seek(0)
    head = stream.read(_META_WITHIN)
    if is_acr_nema(head):
        refuse("big-endian without value representations (ACR-NEMA), which is not read; convert it to DICOM first")
    place = meta_place(head)
    if place < 0 and not any(head[:_PREAMBLE]) and _looks_like_dicom(head[_PREAMBLE:], _PREAMBLE * 8):
        place = _PREAMBLE  # a preamble, and neither mark nor meta
    if place < 0:
        raise Refused("not a DICOM file", expected=True, is_dicom=False)
    stream.seek(place)


def _looks_like_dicom(start: bytes, size: int) -> bool:
    """Whether bytes without preamble begin with an element of group 2 or 8, as PS3.10's predecessors do."""
    if len(start) < 12:
        return False
    group, _, vr, length = struct.unpack("<HH2sH", start[:8])
    implicit_length = struct.unpack("<L", start[4:8])[0]
    explicit = vr.decode("latin-1") in converters and length < size
    return group in (2, 8) and (explicit or implicit_length < min(size, 4096))


def read_elements(
    stream: BinaryIO, syntax: str, more: Sequence[int] = ()
) -> tuple[str, tuple[int, int, int] | None, Elements]:
    """The elements wanted, up to the pixel data; the latter's (tag, offset of its value, length), if there are any.

    `more` are tags that are wanted beside those of `TAGS`.
    """
    element: tuple[int, int, int] | None = None

    def at_pixels(tag: int, vr: str | None, length: int) -> bool:
        nonlocal element
        if tag not in _ALL_PIXEL_TAGS:
            return False
        element = int(tag), stream.tell(), length
        return True

    if not syntax:  # no file meta: explicit if the first element has a known VR, as pydicom guesses
        first = stream.read(6)
        stream.seek(-len(first), os.SEEK_CUR)
        syntax = EXPLICIT if first[4:6].decode("latin-1") in converters else IMPLICIT
    dataset = read_dataset(
        stream,
        syntax == IMPLICIT,
        syntax != BIG_ENDIAN,
        stop_when=at_pixels,
        defer_size=MAX_VALUE_BYTES,  # a longer value is not even read
        specific_tags=[*TAGS.values(), *more],
    )
    return syntax, element, _by_number(dataset)


def _by_number(dataset: Dataset) -> Elements:
    return {int(element.tag): element for element in dataset.values()}


def _bytes(dataset: Elements, name: str) -> bytes:
    element = dataset.get(TAGS[name])
    if element is None:
        return b""
    if getattr(element, "length", 0) > MAX_VALUE_BYTES:
        refuse(f"{name} is {getattr(element, 'length', 0)} bytes long, more than {MAX_VALUE_BYTES}")
    return element.value if isinstance(element.value, bytes) else b""


def text_of(dataset: Elements, name: str) -> str:
    """An element's text without padding; "" where absent or empty."""
    value = _bytes(dataset, name)
    try:
        return value.decode("utf-8").strip(" \0")
    except UnicodeDecodeError:
        return value.decode("latin-1").strip(" \0")


def floats_of(dataset: Elements, name: str, count: int) -> tuple[float, ...] | None:
    """Decimal strings as finite numbers; None where absent or empty."""
    text = text_of(dataset, name)
    if not text:
        return None
    try:
        values = tuple(float(part) for part in text.split("\\"))
    except ValueError:
        values = ()
    if len(values) != count or not all(math.isfinite(value) for value in values):
        refuse(f"{name} is not {count} finite number{'s' if count > 1 else ''}")
    return values


def integer_of(dataset: Elements, name: str) -> int:
    """An integer string; NO_NUMBER where absent or no integer."""
    text = text_of(dataset, name)
    return int(text) if re.fullmatch(r"[+-]?\d{1,18}", text) else NO_NUMBER


def short_of(dataset: Elements, name: str, *, signed: bool = False) -> int | None:
    """A two-byte integer, read in the signedness asked for whatever the file calls it; None where absent."""
    value = _bytes(dataset, name)
    if len(value) != 2:
        return None
    little = bool(getattr(dataset[TAGS[name]], "is_little_endian", True))
    return int.from_bytes(value, "little" if little else "big", signed=signed)
