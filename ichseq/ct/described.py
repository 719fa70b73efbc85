"""How a series is called in its header, and when it was acquired: read from one file when it is asked for, never kept.

A description is free text, in which a name may stand, so no `Series` holds one.
"""

import re
from typing import Final, NamedTuple

from pydicom.charset import convert_encodings, decode_bytes

from ichseq.ct.elements import DEFLATED, TAGS, Elements, Refused, quiet_pydicom, read_elements, read_meta, text_of
from ichseq.ct.series import Series
from ichseq.ct.streams import MAX_IMAGE_BYTES, Inflated

_READ: Final = 1 << 20  # no element of a header that is read lies further in


class Described(NamedTuple):
    """What the header of a series' first slice says; "" where it says nothing.

    Attributes:
        description: SeriesDescription.
        kernel: ConvolutionKernel.
        date: AcquisitionDate, as 2019-03-01.
        time: AcquisitionTime, as 12:34:56.
    """

    description: str = ""
    kernel: str = ""
    date: str = ""
    time: str = ""


def described(series: Series) -> Described:
    """Read how a series is called; nothing is known of one whose first file can't be read again."""
    try:
        with series.open_file(0) as stream, quiet_pydicom():
            _, syntax = read_meta(stream, _READ)
            if syntax == DEFLATED:
                stream = Inflated(stream, series.files[0], limit=MAX_IMAGE_BYTES)  # type: ignore[assignment]
            header = read_elements(stream, syntax)[2]
            when = _text(header, "AcquisitionDateTime")  # holds both, where the others are absent
            return Described(
                _text(header, "SeriesDescription"),
                _text(header, "ConvolutionKernel"),
                _in_parts(_text(header, "AcquisitionDate") or when, r"(\d{4})\.?(\d\d)\.?(\d\d)", "-"),
                _in_parts(_text(header, "AcquisitionTime") or when[8:], r"(\d\d):?(\d\d):?(\d\d)", ":"),
            )
    except Exception:  # the parser fails in many ways on bytes that have changed; the answer stands without a name
        return Described()


def _text(header: Elements, name: str) -> str:
    """An element's text in the file's character set."""
    try:
        charset = text_of(header, "SpecificCharacterSet")
        element = header.get(TAGS[name])
        text = text_of(header, name)  # refuses what is too long
        if not charset or element is None or not isinstance(element.value, bytes):
            return text
        return decode_bytes(element.value, convert_encodings(charset.split("\\")), set(b"\r\n\t\f")).strip(" \0")
    except (Refused, LookupError, UnicodeError):
        return ""


def _in_parts(text: str, pattern: str, between: str) -> str:
    found = re.match(pattern, text)
    return between.join(found.groups()) if found else ""
