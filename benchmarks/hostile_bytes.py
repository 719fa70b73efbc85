"""How bytes are changed: at random, and where an element of a DICOM file has its length, its VR and its value."""

import io
import random
import struct
from collections.abc import Callable
from typing import NamedTuple

from pydicom.filereader import data_element_generator

LONG_VRS = ("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV")
_VRS = (*LONG_VRS, "AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "PN", "SH", "SS", "US", "XX",
        "\0\0", "\xff\xff")  # fmt: skip
_LENGTHS = (0, 1, 3, 255, 65535, 65534, 1 << 20, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)
_VALUES = (b"", b"0", b"-", b"NaN", b"inf\\-inf\\inf", b"1e308\\1e308\\1e308", b"-1e400", b"1e-320\\0", b"9" * 18,
           b"9" * 400, b"0\\0\\0", b"0\\0\\0\\0\\0\\0", b"1\\0\\0\\0\\1\\0", b"1\\2\\3\\4\\5\\6\\7", b"\xff\xff",
           b"\0\0", b"\x01\0", b"\0\x80", b"=cmd|' /C calc'!A0", b"@SUM(A1)", b"\x1b[2J\x1b[31m", b"\r\n\t\0",
           b"../../../../x", b"/etc/passwd", b"%s%s%n", b"\xc3\x28\xa0\xa1", b"\xe2\x80\xae", b"1.2.840.10008.1.2.4.70",
           b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.5.1.4.1.1.2.1", b"CT", b"MR\\CT", b"A" * 1025, b"1_0\\ 2\\+3",
           "４２".encode(), b"0x10", b"\xff\xff\xff\xff")  # fmt: skip


class Element(NamedTuple):
    """An element of explicit or implicit VR.

    Attributes:
        start: where its tag stands.
        length_place: where its length stands.
        length_size: bytes of that.
        value: where its value begins.
        length: bytes of the value.
    """

    start: int
    length_place: int
    length_size: int
    value: int
    length: int


class Body(NamedTuple):
    """A DICOM data set's bytes, with the places of its elements; those of its pixel data last."""

    data: bytes
    elements: list[Element]
    implicit: bool
    little: bool


def parsed(data: bytes, *, implicit: bool, little: bool) -> Body:
    """The elements of a sound data set."""
    found = []
    stream = io.BytesIO(data)
    for one in data_element_generator(stream, implicit, little, defer_size=1):
        value, length = int(getattr(one, "value_tell", 0)), int(getattr(one, "length", 0) or 0)
        short = not implicit and str(one.VR) not in LONG_VRS
        size = 2 if short else 4
        head = 8 if implicit or short else 12
        if value:
            found.append(Element(value - head, value - size, size, value, length))
    return Body(data, found, implicit, little)


# ---- anything --------------------------------------------------------------------------------------------------------


def flipped(data: bytes, rng: random.Random, *, most: int = 8) -> bytes:
    """With some bits changed."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, most)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def overwritten(data: bytes, rng: random.Random) -> bytes:
    """With a stretch of noise, zeros or ones."""
    start, length = rng.randrange(len(data)), rng.choice((1, 2, 4, 16, 200))
    noise = rng.choice((rng.randbytes(length), b"\0" * length, b"\xff" * length))
    return data[:start] + noise + data[start + length :]


def cut(data: bytes, rng: random.Random) -> bytes:
    """Its beginning, or without a stretch of it."""
    start = rng.randrange(len(data))
    return data[:start] if rng.random() < 0.5 else data[:start] + data[start + rng.choice((1, 2, 8, 100)) :]


def repeated(data: bytes, rng: random.Random) -> bytes:
    """With a stretch twice, or something between."""
    start, length = rng.randrange(len(data)), rng.choice((1, 2, 8, 64, 1000))
    more = data[start : start + length] if rng.random() < 0.5 else rng.randbytes(length)
    return data[:start] + more + data[start:]


ANYHOW: tuple[Callable[[bytes, random.Random], bytes], ...] = (flipped, overwritten, cut, repeated)

# ---- elements --------------------------------------------------------------------------------------------------------


def _written(body: Body, place: int, size: int, number: int) -> bytes:
    packed = struct.pack(("<" if body.little else ">") + ("H" if size == 2 else "L"), number & (256**size - 1))
    return body.data[:place] + packed + body.data[place + size :]


def other_length(body: Body, rng: random.Random) -> bytes:
    """An element's length says something else."""
    one = rng.choice(body.elements)
    number = rng.choice((*_LENGTHS, one.length + rng.choice((-2, -1, 1, 2, 100)), rng.getrandbits(32)))
    return _written(body, one.length_place, one.length_size, number)


def other_vr(body: Body, rng: random.Random) -> bytes:
    """An element is of another kind; of implicit VR, another tag."""
    one = rng.choice(body.elements)
    place = one.start if body.implicit else one.start + 4
    new = rng.randbytes(2) if body.implicit else rng.choice(_VRS).encode("latin-1")
    return body.data[:place] + new + body.data[place + 2 :]


def other_value(body: Body, rng: random.Random) -> bytes:
    """An element has a value that it should not have, with a length that belongs to it."""
    one = rng.choice(body.elements[:-1] or body.elements)
    value = rng.choice((*_VALUES, rng.randbytes(rng.randrange(1, 12))))
    value += b" " * (len(value) % 2)
    before = _written(body, one.length_place, one.length_size, len(value))
    return before[: one.value] + value + before[one.value + one.length :]


def swapped(body: Body, rng: random.Random) -> bytes:
    """Two elements trade places."""
    if len(body.elements) < 2:
        return body.data
    first, second = sorted(rng.sample(range(len(body.elements)), 2))
    one, other = ((body.elements[k].start, body.elements[k].value + body.elements[k].length) for k in (first, second))
    data = body.data
    return (
        data[: one[0]] + data[other[0] : other[1]] + data[one[1] : other[0]] + data[one[0] : one[1]] + data[other[1] :]
    )


def nested(body: Body, rng: random.Random) -> bytes:
    """A sequence in a sequence, many deep, their ends there or not."""
    depth, mark = rng.choice((1, 2, 10, 100, 900, 1100, 5000)), "<" if body.little else ">"
    length = rng.choice((0xFFFFFFFF, 0xFFFFFFFF, 0x10000000))
    tag = rng.choice(((0x0008, 0x1140), (0x0009, 0x1001), (0x0040, 0x0275)))
    vr = b"" if body.implicit else rng.choice((b"SQ\0\0", b"SQ\0\0", b"UN\0\0"))
    item = struct.pack(mark + "HHL", 0xFFFE, 0xE000, length)
    opened = (struct.pack(mark + "HH", *tag) + vr + struct.pack(mark + "L", length) + item) * depth
    ends = struct.pack(mark + "HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0) * (depth if rng.random() < 0.5 else 0)
    place = rng.choice(body.elements).start
    return body.data[:place] + opened + ends + body.data[place:]


def huge(body: Body, rng: random.Random) -> bytes:
    """An element that is large, or thousands that are small."""
    place, mark = rng.choice(body.elements).start, "<" if body.little else ">"
    tag = rng.choice(((0x0010, 0x0010), (0x0008, 0x103E), (0x0009, 0x1001), (0x0020, 0x000E)))
    head = struct.pack(mark + "HH", *tag)
    if rng.random() < 0.5:
        number = rng.choice((1 << 16, 2 << 20))
        more = head + (b"" if body.implicit else b"UT\0\0") + struct.pack(mark + "L", number) + b"A" * number
    else:
        small = b"" if body.implicit else b"SH"
        one = struct.pack(mark + "HH", 0x0009, 0x1000) + small + struct.pack(mark + ("L" if body.implicit else "H"), 0)
        more = one * rng.choice((1000, 20_000))
    return body.data[:place] + more + body.data[place:]


ELEMENTS: tuple[Callable[[Body, random.Random], bytes], ...] = (
    other_length, other_vr, other_value, other_value, swapped, nested, huge
)  # fmt: skip
