"""Whether a series looks like the head of an adult without contrast medium, found while its slices are read.

Each slice is looked at by itself, on a grid of about 2 mm: bone that closes around tissue like brain is a skull. What
lies in it, and how large it is, tells the rest, with what the header says.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ichseq.ct.choice import distance_mm
from ichseq.ct.content import AIR_HU, FEWEST_SLICES, Finding, Shown, findings, no_picture, shown_in
from ichseq.ct.series import Series
from ichseq.ct.skull import GRID_MM, averaged, find_skull

CONTRAST_HU: Final = (100, 300)

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
        called = no_picture(series.reconstruction.marks)
        self._by_header = [called] if called else []
        self._shown: list[Shown] = []
        self._air = False

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
        grid, mm = averaged(hu, factor), self._pixel_mm * factor if known else GRID_MM
        self._air |= bool(grid.min() < AIR_HU)
        skull = find_skull(grid, mm)
        self._shown.append("skull" if skull else shown_in(hu, grid, mm, known=known))
        if skull is None:
            self.skulls_mm.append(0.0)
            self.inside_mm2.append((0.0, 0.0))
            return
        bright = (skull.values > CONTRAST_HU[0]) & (skull.values < CONTRAST_HU[1])
        self.inside_mm2.append((skull.values.size * mm * mm, int(bright.sum()) * mm * mm))
        self.skulls_mm.append(_circumference(skull.mask) * mm - 2 * math.pi * skull.reach_mm)

    def no_head(self) -> str:
        """Why the series is surely no plain picture of a head; "" where it may be one."""
        return next((one.words for one in self._findings() if one.no_head), "")

    def warnings(self) -> list[str]:
        """What a person should know who asks for bleeding in an adult's head without contrast medium."""
        content = self._findings()
        found = [*self._far, *(one.words for one in content)]
        no_skull = len(self.skulls_mm) >= FEWEST_SLICES and not any(self.skulls_mm)
        if no_skull and not any(one.explains for one in content):
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

    def _findings(self) -> list[Finding]:
        return [*self._by_header, *findings(self._shown, air=self._air)]

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


def _circumference(mask: NDArray[np.bool_]) -> float:
    """That of the convex hull, in pixels: pi times the mean width over all directions (Cauchy)."""
    rows, columns = np.nonzero(mask)
    angles = np.arange(0, math.pi, math.pi / 18)
    places = np.outer(np.cos(angles), columns) + np.outer(np.sin(angles), rows)
    return math.pi * float((np.ptp(places, axis=1) + 1).mean())
