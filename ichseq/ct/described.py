"""How a series is called in its header, who made the scanner, and when it was acquired: read when it is asked for.

A description is free text, in which a name may stand, so no `Series` holds one. A prepared set keeps the manufacturer,
as one of a list, and nothing else of it.
"""

import re
from typing import Final, NamedTuple

from pydicom.charset import convert_encodings, decode_bytes

from ichseq.ct.elements import DEFLATED, MAX_VALUE_BYTES, TAGS, Elements, quiet_pydicom, read_elements, read_meta
from ichseq.ct.series import Series
from ichseq.ct.streams import MAX_IMAGE_BYTES, Inflated

_READ: Final = 1 << 20  # no element of a header that is read lies further in
_CHARSET, _DATE, _DATE_AND_TIME, _MANUFACTURER = 0x00080005, 0x00080022, 0x0008002A, 0x00080070

MANUFACTURERS: Final = {
    "GE": ("ge", "general electric", "imatron"),
    "Siemens": ("siemens",),
    "Philips": ("philips", "marconi", "picker"),
    "Canon": ("canon", "toshiba"),
    "Neusoft": ("neusoft", "nms"),
    "United Imaging": ("uih", "united imaging"),
    "Fujifilm": ("fujifilm", "hitachi"),
    "Samsung": ("samsung", "neurologica"),
}
"""Manufacturers of CT scanners, and how the element begins in their files; one that was bought counts as its owner."""

OTHER: Final = "other"


class Described(NamedTuple):
    """What the header of a series' first slice says; "" where it says nothing.

    Attributes:
        description: SeriesDescription.
        kernel: ConvolutionKernel.
        manufacturer: a key of `MANUFACTURERS`, or "other", so that no free text is kept where this is.
        date: AcquisitionDate, as 2019-03-01.
        time: AcquisitionTime, as 12:34:56.
    """

    description: str = ""
    kernel: str = ""
    manufacturer: str = ""
    date: str = ""
    time: str = ""


def described(series: Series) -> Described:
    """Read how a series is called; nothing is known of one whose first file can't be read again."""
    try:
        with series.open_file(0) as stream, quiet_pydicom():
            _, syntax = read_meta(stream, _READ)
            if syntax == DEFLATED:
                stream = Inflated(stream, series.files[0], limit=MAX_IMAGE_BYTES)  # type: ignore[assignment]
            header = read_elements(stream, syntax, (_CHARSET, _DATE, _DATE_AND_TIME, _MANUFACTURER))[2]
            when = _text(header, _DATE_AND_TIME)  # holds both, where the others are absent
            return Described(
                _text(header, TAGS["SeriesDescription"]),
                _text(header, TAGS["ConvolutionKernel"]),
                manufacturer_of(_text(header, _MANUFACTURER)),
                _in_parts(_text(header, _DATE) or when, r"(\d{4})\.?(\d\d)\.?(\d\d)", "-"),
                _in_parts(_text(header, TAGS["AcquisitionTime"]) or when[8:], r"(\d\d):?(\d\d):?(\d\d)", ":"),
            )
    except Exception:  # the parser fails in many ways on bytes that have changed; the answer stands without a name
        return Described()


def manufacturer_of(text: str) -> str:
    """Whom a Manufacturer means: a key of `MANUFACTURERS`, "other", or "" where it says nothing."""
    words = " ".join(text.casefold().replace("_", " ").split())
    for name, beginnings in MANUFACTURERS.items():
        if any(re.match(rf"{re.escape(one)}\b", words) for one in beginnings):
            return name
    return OTHER if words else ""


def _text(header: Elements, tag: int) -> str:
    """An element's text in the file's character set; "" where it is absent, or too long to be what it should."""
    value, charset = (getattr(header.get(one), "value", None) for one in (tag, _CHARSET))
    if not isinstance(value, bytes) or len(value) > MAX_VALUE_BYTES:
        return ""
    names = charset.decode("ascii", "replace").strip(" \0").split("\\") if isinstance(charset, bytes) else []
    try:
        text = decode_bytes(value, convert_encodings(names), set(b"\r\n\t\f")) if names else value.decode("utf-8")
    except (LookupError, UnicodeError):
        text = value.decode("latin-1")
    return text.strip(" \0")


def _in_parts(text: str, pattern: str, between: str) -> str:
    found = re.match(pattern, text)
    return between.join(found.groups()) if found else ""
