"""Whether a series looks like the head of an adult without contrast medium, found while its slices are read.

Each slice is looked at by itself, on a grid of about 2 mm: bone that closes around tissue like brain is a skull. What
lies in it, and how large it is, tells the rest, with what the header says.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ichseq.ct.choice import distance_mm
from ichseq.ct.series import Series

GRID_MM: Final = 2.0
BONE_HU: Final = 200
BRAIN_HU: Final = (-10, 100)
CONTRAST_HU: Final = (100, 300)

GAP_MM: Final = 3.0
"""How far bone reaches: gaps of twice that in the skull are closed, and what is as near to bone is not looked at."""

BRAIN_AREA_CM2: Final = 25.0
BRAIN_SHARE: Final = 0.8

WIDE_SHARE: Final = 0.6
"""Of the area within the skull where that is largest; narrower slices do not tell of contrast medium."""

BRIGHT_MM2: Final = 12.0
BRIGHT_SLICES: Final = 0.95
"""Share of the wide slices that hold `BRIGHT_MM2` of contrast medium's density from which on it is taken for that.

Vessels and sinuses run through all slices, calcifications through some. Measured: 0.17 in one real exam without
contrast medium and 0.19 of 75 single slices, 0.99 in one with; in made-up heads 0 to 0.5, a donor's 0.5 to 0.91 (their
skulls are blurred), with contrast medium 0.8 to 1. So it misses some, and seldom warns for nothing.
"""

ADULT_SKULL_MM: Final = 460.0
"""Circumference of the skull below which it is taken for a child's.

With 5 mm of scalp a head of 49 cm, which is the median between the second and the third birthday (WHO child growth
standards). Measured: 492 to 531 mm in three real exams, 476 mm and more in 60 whose pixel size was assumed, 480 mm and
more in made-up heads. Older children are known by PatientAge alone.
"""

CUT_SHARE: Final = 0.5
"""Share of the widest slice's area within the skull that the first or the last slice shows before the head is taken to
be cut off there.

Measured: at most 0.17 in the first and 0.20 in the last slice of 60 real exams (24 to 40 slices), where the skull is
0.9 to 1 half way up and 0.8 to 1 two thirds up.
"""

WHOLE_SLICES: Final = 10
"""Fewer slices may well be some of a head."""

FAR: Final = 1.5
"""How many times nearer or farther than in training slices may be before a warning."""

ADULT_YEARS: Final = 16
FEWEST_SLICES: Final = 5
"""Fewer slices may well be of a head and show no closed skull."""


class Plausibility:
    """What the slices of a series show, taken in one after the other.

    Attributes:
        skulls_mm: circumference of the skull in each slice, 0 where none closes around tissue like brain.
        inside_mm2: of each slice, what is within the skull: all, and what has the density of contrast medium.
    """

    def __init__(self, series: Series, learned_mm: tuple[float, float] | None = None) -> None:
        """Begin with what the header says; `add` takes in the slices.

        Args:
            series: that is looked at.
            learned_mm: from which to which distance of slices the network has learned; None: not known.
        """
        self._far = _far_from_learned(series, learned_mm) if learned_mm else []
        self._pixel_mm = math.sqrt(series.spacing_mm[0] * series.spacing_mm[1])
        self._age_years, self._contrast = series.age_years, series.contrast
        self.skulls_mm: list[float] = []
        self.inside_mm2: list[tuple[float, float]] = []

    @property
    def bright_slices(self) -> float:
        """Share of the slices that hold what may be contrast medium.

        Where the skull is wide: it slants at the vertex and at the base, and lends its density to what lies beside it.
        """
        area, bright = np.array(self.inside_mm2 or [(0.0, 0.0)]).T
        return float((bright[area >= WIDE_SHARE * area.max()] >= BRIGHT_MM2).mean())

    def add(self, hu: NDArray[np.int16]) -> None:
        """Take in the next slice, (rows, columns) in HU."""
        known = math.isfinite(self._pixel_mm)
        factor = max(1, round(GRID_MM / self._pixel_mm) if known else max(hu.shape) // 128)
        grid, mm = _averaged(hu, factor), self._pixel_mm * factor if known else GRID_MM
        steps = max(1, round(GAP_MM / mm))
        bone = ndimage.binary_dilation(grid > BONE_HU, iterations=steps)
        filled = ndimage.binary_fill_holes(bone)
        inside = _largest(filled & ~bone)
        values = grid[inside]
        brain = (values > BRAIN_HU[0]) & (values < BRAIN_HU[1])
        if values.size * mm * mm < 100 * BRAIN_AREA_CM2 or brain.mean() < BRAIN_SHARE:
            self.skulls_mm.append(0.0)
            self.inside_mm2.append((0.0, 0.0))
            return
        bright = (values > CONTRAST_HU[0]) & (values < CONTRAST_HU[1])
        self.inside_mm2.append((values.size * mm * mm, int(bright.sum()) * mm * mm))
        parts, _ = ndimage.label(filled)
        skull = parts == parts[np.unravel_index(int(inside.argmax()), inside.shape)]
        self.skulls_mm.append(_circumference(skull) * mm - 2 * math.pi * steps * mm)

    def warnings(self) -> list[str]:
        """What a person should know who asks for bleeding in an adult's head without contrast medium."""
        found = list(self._far)
        if len(self.skulls_mm) >= FEWEST_SLICES and not any(self.skulls_mm):
            found.append("no skull around tissue like brain is seen: this may be no head")
        found += self._cut_off()
        if self._contrast:
            found.append("the header names contrast medium, which looks like blood")
        elif len(self.skulls_mm) >= FEWEST_SLICES and self.bright_slices >= BRIGHT_SLICES:
            found.append("vessels are as dense as with contrast medium, which looks like blood")
        if self._age_years < ADULT_YEARS:
            found.append(f"a child's head, by PatientAge (below {ADULT_YEARS} years)")
        elif self._is_small():
            found.append(f"a small head, perhaps a child's: the skull measures less than {ADULT_SKULL_MM / 10:.0f} cm")
        return found

    def _cut_off(self) -> list[str]:
        """Whether the head ends at the first or the last slice, which is not where heads end."""
        areas = np.array([area for area, _ in self.inside_mm2])
        if len(areas) < WHOLE_SLICES or not areas.any():
            return []
        ends = {"bottom": areas[0], "top": areas[-1]}
        return [
            f"the {end} of the head seems to be missing: the skull is wide in the {'first' if k == 0 else 'last'} slice"
            for k, (end, area) in enumerate(ends.items())
            if area >= CUT_SHARE * areas.max()
        ]

    def _is_small(self) -> bool:
        """Whether the skull is seen where it is widest, and is small there.

        Not known of a scan that is mostly of something else, or whose widest slice is its first or its last one.
        """
        skulls = np.array(self.skulls_mm)
        if not math.isfinite(self._pixel_mm) or 3 * (skulls > 0).sum() < max(len(skulls), FEWEST_SLICES):
            return False
        return bool(0 < skulls.argmax() < len(skulls) - 1 and skulls.max() < ADULT_SKULL_MM)


def _far_from_learned(series: Series, learned_mm: tuple[float, float]) -> list[str]:
    """Whether slices are much nearer, thinner, farther or thicker than what the network has learned on."""
    low, high = learned_mm
    found = []
    for mm, words in ((distance_mm(series), "apart"), (series.reconstruction.thickness_mm, "thick")):
        if mm < low / FAR or mm > high * FAR:
            found.append(f"slices {mm:.3g} mm {words}, while the network learned on {low:g} to {high:g} mm")
    return found


def _averaged(hu: NDArray[np.int16], factor: int) -> NDArray[np.float32]:
    """Means of square blocks of pixels; what is left over at the right and at the bottom is dropped."""
    rows, columns = (n // factor for n in hu.shape)
    blocks = hu[: rows * factor, : columns * factor].reshape(rows, factor, columns, factor)
    means: NDArray[np.float32] = blocks.mean((1, 3), dtype=np.float32)
    return means


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest connected part."""
    parts, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    largest: NDArray[np.bool_] = parts == sizes.argmax()
    return largest


def _circumference(mask: NDArray[np.bool_]) -> float:
    """That of the convex hull, in pixels: pi times the mean width over all directions (Cauchy)."""
    rows, columns = np.nonzero(mask)
    angles = np.arange(0, math.pi, math.pi / 18)
    places = np.outer(np.cos(angles), columns) + np.outer(np.sin(angles), rows)
    return math.pi * float((np.ptp(places, axis=1) + 1).mean())
