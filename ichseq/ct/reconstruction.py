"""How a series was reconstructed, as far as its header tells: kernel, kind of picture, thickness, place.

Kernel and description are read into marks and not kept: a description is free text, in which a name may stand.
"""

import functools
import hashlib
import math
import re
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ichseq.ct.elements import NO_NUMBER, Elements, Refused, text_of

SOFT: Final = 1
"""A kernel for the brain or another soft tissue."""
SHARP: Final = 2
"""A kernel for bone or lung, whose noise and edges hide and imitate blood."""
REFORMATTED: Final = 4
"""Computed from other slices: a reformat, a mean of thin ones, or what ImageType calls a map."""
MAP: Final = 8
"""No plain picture: a map of perfusion or material, a projection, a subtraction, a rendering."""
ENHANCED: Final = 16
"""An angiography, or called one with contrast medium."""

_AS_BEFORE: Final = 8  # values of headers that are worked out once, since the next slice's are mostly the same
_NO_SERIES_NUMBER: Final = -(2**31)
RECONSTRUCTION_FIELDS: Final = (
    ("thickness", "f4"),  # mm; 0 where absent
    ("series_number", "i4"),  # _NO_SERIES_NUMBER where absent
    ("frame", "i4"),  # stands for the FrameOfReferenceUID; 0 where absent
    ("marks", "u1"),  # SOFT, SHARP, ..., added up
    ("kind", "i4"),  # stands for the ImageType; 0 where absent
    ("patient", "i4"),  # stands for the PatientID; 0 where absent
    ("acquired_s", "f4"),  # AcquisitionTime, seconds of the day; -1 where absent
    ("content_s", "f4"),  # ContentTime, likewise
)

# Siemens: one or two letters for the region, two digits that grow with sharpness (B30f, H60s, Hr38, J40s); Canon: FC,
# whose tens stand for body, head, bone and lung; Philips: letters; GE and others: words.
_BY_SHARPNESS = re.compile(r"[A-Z]{1,2}(\d\d)(?!\d)")
_SHARP_FROM: Final = 50
_CANON = re.compile(r"FC(\d)\d")
_CANON_SHARP: Final = "358"
_PHILIPS_SOFT: Final = ("A", "B", "C", "UA", "UB", "UC")
_PHILIPS_SHARP: Final = ("D", "E", "L", "EB", "EC", "YA", "YB", "YC", "YD", "YE")
_SHARP_WORDS = re.compile(r"BONE|KNOCHEN|OSSE|\bOS\b|HUESO|SHARP|EDGE|LUNG|ULTRA")
_SOFT_WORDS = re.compile(r"SOFT|STAND|\bSTD|BRAIN|SMOOTH|CEREB|HIRN|CERVEAU|ENCEPH|TISSUE|WEICH")
_MAPS = re.compile(
    r"PERFUSION|\b(CBF|CBV|MTT|TTP|TMAX|MIP|MINIP|MAXIP|MIN IP|MAX IP|MAXIMUM|MINIMUM|VRT|VNC)\b|VOLUME RENDER|"
    r"SUBTRACT|BONE ?REMOV|IODINE|MATERIAL"
)
_REFORMATS = re.compile(r"REFORMAT|\bMPR|AVERAGE|RESAMPLED|PROJECTION")
_ENHANCED = re.compile(
    r"\bCTA|\bCTV|ANGIO|ARTERI|VENOUS|CAROTI|WILLIS|\b(POST|WITH|W/|MIT|AVEC|CON)[ -]?(CONTRAST|KONTRAST|KM\b|IV\b)"
)


class Reconstruction(NamedTuple):
    """How one series was made.

    Attributes:
        thickness_mm: SliceThickness, the middle one of its slices'; NaN where the header has none.
        number: SeriesNumber; NO_NUMBER where the header has none.
        frame: stands for the FrameOfReferenceUID; 0 where the header has none. Heights compare within one frame.
        marks: SOFT, SHARP, REFORMATTED, MAP, ENHANCED, added up.
        heights_mm: float64 (n,), height of each slice's middle in the patient's axes, in the order of the slices; NaN
            where the header does not tell.
    """

    thickness_mm: float
    number: int
    frame: int
    marks: int
    heights_mm: NDArray[np.float64]

    @classmethod
    def of(cls, numbers: np.ndarray) -> "Reconstruction":
        """That of the slices of a series, in order, as rows of `ichseq.ct.scan.Headers.numbers`."""
        known = numbers["thickness"][numbers["thickness"] > 0]
        first = numbers[0]
        return cls(
            float(np.median(known)) if len(known) else math.nan,
            NO_NUMBER if first["series_number"] == _NO_SERIES_NUMBER else int(first["series_number"]),
            int(first["frame"]),
            int(np.bitwise_or.reduce(numbers["marks"])),
            _heights(numbers),
        )


def reconstruction_of(dataset: Elements, patient_id: str) -> tuple[Any, ...]:
    """The values of `RECONSTRUCTION_FIELDS`. Nothing that stands here, or does not, is a reason to refuse a slice."""
    kernel = _upper(dataset, "ConvolutionKernel").partition("\\")[0].strip()
    kinds = _upper(dataset, "ImageType")
    return (
        _thickness(_upper(dataset, "SliceThickness")),
        _number(_upper(dataset, "SeriesNumber")),
        _stand_in(_upper(dataset, "FrameOfReferenceUID")),
        _marks(kernel, _upper(dataset, "SeriesDescription"), kinds),
        _stand_in(kinds),
        _stand_in(patient_id),
        _seconds(_upper(dataset, "AcquisitionTime")),
        _seconds(_upper(dataset, "ContentTime")),
    )


@functools.lru_cache(maxsize=_AS_BEFORE)
def _marks(kernel: str, description: str, kinds: str) -> int:
    return marks_of(kernel, description, kinds.split("\\"))


def marks_of(kernel: str, description: str, kinds: list[str]) -> int:
    """The marks of a series by its kernel, its description and the values of ImageType, all in capitals."""
    of_kind = " | ".join(kinds)
    marks = _sharpness(kernel) or _sharpness_in_words(description)
    if _REFORMATS.search(of_kind) or kinds[0] == "DERIVED":
        marks |= REFORMATTED
    if _MAPS.search(of_kind):
        marks |= MAP | REFORMATTED
    if _MAPS.search(description):
        marks |= MAP
    return marks | (ENHANCED if _ENHANCED.search(description) else 0)


def _sharpness(kernel: str) -> int:
    """SOFT, SHARP, or 0 where a kernel's name does not tell."""
    if found := _CANON.match(kernel):
        return SHARP if found[1] in _CANON_SHARP else SOFT
    if found := _BY_SHARPNESS.match(kernel):
        return SHARP if int(found[1]) >= _SHARP_FROM else SOFT
    if kernel in _PHILIPS_SHARP or kernel in _PHILIPS_SOFT:
        return SHARP if kernel in _PHILIPS_SHARP else SOFT
    return _sharpness_in_words(kernel)


def _sharpness_in_words(text: str) -> int:
    if _SHARP_WORDS.search(text):  # "brain, bone window": the region is named beside the kernel
        return SHARP
    return SOFT if _SOFT_WORDS.search(text) else 0


def _upper(dataset: Elements, name: str) -> str:
    """An element's text in capitals; "" where it is absent or too long to be what it should."""
    try:
        return text_of(dataset, name).upper()
    except Refused:
        return ""


def _thickness(text: str) -> float:
    if not text:
        return 0.0
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if 0 < value < math.inf else 0.0


@functools.lru_cache(maxsize=4 * _AS_BEFORE)
def _stand_in(text: str) -> int:
    """A number that is the same for the same text, and for other texts another one, but for one case in 4e9."""
    digest = hashlib.blake2b(text.encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big", signed=True) or 1 if text else 0


def _seconds(text: str) -> float:
    """A time (PS3.5 6.2: HHMMSS.FFFFFF, or less of it) in seconds of the day; -1 where it is none."""
    if not text:
        return -1.0
    found = re.fullmatch(r"(\d\d)(?:(\d\d)(?:(\d\d(?:\.\d{1,6})?))?)?", text.replace(":", ""))
    return int(found[1]) * 3600 + int(found[2] or 0) * 60 + float(found[3] or 0) if found else -1.0


def _number(text: str) -> int:
    """An integer string, which holds 32 bits (PS3.5 6.2)."""
    if not text:
        return _NO_SERIES_NUMBER
    value = int(text) if re.fullmatch(r"[+-]?\d{1,18}", text) else _NO_SERIES_NUMBER
    return value if abs(value) < -_NO_SERIES_NUMBER else _NO_SERIES_NUMBER


def _heights(numbers: np.ndarray) -> NDArray[np.float64]:
    """Of the middle of each image: with a tilted gantry, its first pixel lies elsewhere."""
    spacing = np.where(np.isfinite(numbers["spacing"]), numbers["spacing"], 0.0)
    across = (numbers["columns"] - 1) / 2 * spacing[:, 1] * numbers["orientation"][:, 2]
    down = (numbers["rows"] - 1) / 2 * spacing[:, 0] * numbers["orientation"][:, 5]
    heights: NDArray[np.float64] = numbers["position"][:, 2] + across + down
    return heights
