"""What slices show that show no skull: nothing, noise, values that are off, another part of the body.

A slice is looked at by itself (`shown_in`), all of them together tell of the series (`findings`).
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ichseq.ct.reconstruction import MAP, REFORMATTED
from ichseq.ct.skull import find_skull, largest_part

Shown = Literal["skull", "nothing", "noise", "too high", "too low", "lungs", "wide body", "something"]

AIR_HU: Final = -500
"""Air and what is mostly air lies below."""
BODY_HU: Final = -200
LUNG_HU: Final = (-950, -500)

LUNG_CM2: Final = 40.0
"""Measured: at most 9 within the body in 684 real slices of heads that show no skull (air cells, sinuses)."""

WIDE_CM2: Final = 400.0
"""Tissue in one piece beyond what a head has: at most 319 in these slices; an ellipse of 18 x 30 cm has 424."""

FULL_FRAME: Final = 0.5
BODY_FRAME: Final = 0.25
"""Shares of the image's border that are no air, and that are tissue, where the picture is cut out of a body."""

EMPTY_CM2: Final = 10.0

SMALLEST: Final = 64
"""Rows and columns from which on a picture tells what it is of."""

NOISE_HU: Final = 100.0
ALIKE: Final = 0.3
"""Correlation of neighbouring pixels below which a picture is noise whose quartiles are `NOISE_HU` apart.

Measured: 0.89 and more in 2,284 real slices, 0.85 and more in made-up ones.
"""

LOST_HU: Final = 1024
"""What RescaleIntercept takes off: missing, or taken off twice, it puts all values off by that."""
OFF_SHARE: Final = 0.25
"""Share of the slices that show a skull once that is put right; no other slice may show one as it is."""

FEW_SKULLS: Final = 0.02
OTHER_BODY: Final = 0.5
"""Share of slices with lungs or a wide body from which on a series with as few skulls is of no head."""

FEWEST_SLICES: Final = 5
"""Fewer slices may well be of a head and show no closed skull."""

_SQUARE: Final = np.ones((3, 3), bool)


class Finding(NamedTuple):
    """What a person should know of a series.

    Attributes:
        words: as a warning.
        no_head: whether the series is surely no plain picture of a head.
        explains: whether this is why no skull is seen.
    """

    words: str
    no_head: bool = False
    explains: bool = True


def shown_in(hu: NDArray[np.int16], grid: NDArray[np.float32], mm: float, *, known: bool) -> Shown:
    """What a slice without a skull shows.

    Args:
        hu: the slice, (rows, columns).
        grid: its means over blocks of pixels.
        mm: width of a block.
        known: whether that is known; if not, how large something is tells nothing.
    """
    if min(hu.shape) < SMALLEST:
        return "something"
    if _is_noise(hu):
        return "noise"
    # The gates are cheap, and a skull is looked for again where one may come out.
    if (abs(grid - LOST_HU) < -BODY_HU).mean() >= 0.05 and find_skull(grid - LOST_HU, mm):
        return "too high"
    if (grid < AIR_HU - LOST_HU).mean() >= 0.05 and find_skull(grid + LOST_HU, mm):
        return "too low"
    cell_cm2 = mm * mm / 100
    if np.ptp(grid) == 0 or ndimage.binary_opening(grid > AIR_HU, _SQUARE).sum() * cell_cm2 < EMPTY_CM2:
        return "nothing"
    if known and _shows_lungs(grid, cell_cm2):
        return "lungs"
    tissue = ndimage.binary_opening(grid > BODY_HU, _SQUARE)
    wide = known and tissue.sum() * cell_cm2 >= WIDE_CM2 and largest_part(tissue).sum() * cell_cm2 >= WIDE_CM2
    return "wide body" if wide else "something"


def findings(shown: Sequence[Shown], *, air: bool) -> Iterator[Finding]:
    """What is wrong with a series by what its slices show.

    Args:
        shown: of each slice.
        air: whether some slice holds air.
    """
    seen, slices = Counter(shown), len(shown)
    enough = slices >= FEWEST_SLICES
    if not seen["skull"] and seen["too high"] >= OFF_SHARE * slices > 0:
        yield Finding(f"values look like Hounsfield units plus {LOST_HU}: RescaleIntercept may be lost")
        return
    if not seen["skull"] and seen["too low"] >= OFF_SHARE * slices and enough:
        yield Finding(f"values look like Hounsfield units minus {LOST_HU}: RescaleIntercept may be applied twice")
        return
    if enough and seen["nothing"] == slices:
        yield Finding("the images are empty, air alone or one value", no_head=True)
        return
    if not air and (enough or seen["skull"]):
        yield Finding(f"no air is seen (nothing below {AIR_HU} HU): values may be off, or clipped", explains=False)
    if inner := _empty_within_head(shown):
        yield Finding(f"{inner} of {slices} slices are empty, though they lie within the head", explains=False)
    if seen["noise"]:
        most = seen["noise"] >= slices / 2
        yield Finding(f"{seen['noise']} of {slices} slices hold noise and no picture", most and enough, explains=most)
    other = seen["lungs"] + seen["wide body"]
    if enough and air and seen["skull"] <= FEW_SKULLS * slices and other >= OTHER_BODY * slices:
        words = "the body is wider than a head and has no skull, as in an abdomen or a pelvis"
        if seen["lungs"] >= other / 4:
            words = "lungs are seen and no skull, as in a chest or a heart"
        yield Finding(words, no_head=True)


def no_picture(marks: int) -> Finding | None:
    """Whether a series is called a map, a projection or a subtraction, by the marks of `ichseq.ct.reconstruction`.

    Surely, where its ImageType says so; a description that says so may be that of the scan that a map was made of.
    """
    if not marks & MAP:
        return None
    words = "by its header a map, a projection or a subtraction, no plain picture"
    return Finding(words, bool(marks & REFORMATTED), explains=False)


def _is_noise(hu: NDArray[np.int16]) -> bool:
    """Whether neighbouring pixels do not go together, along rows or along columns, in every fourth row.

    And most pixels vary: a slice that grazes the vertex varies in a few pixels, which go little together.
    """
    low, high = np.percentile(hu[::8, ::2], (25, 75))
    if high - low <= NOISE_HU:
        return False
    rows, below = hu[:-1:4].astype(np.float32), hu[1::4].astype(np.float32)
    mean = rows.mean()
    rows, below = rows - mean, below - mean
    along = (rows[:, 1:] * rows[:, :-1]).mean(), (rows * below).mean()
    return float(min(along)) < ALIKE * float((rows**2).mean())


def _shows_lungs(grid: NDArray[np.float32], cell_cm2: float) -> bool:
    """Whether the density of lungs is seen within the body: a pillow, which has it too, lies outside.

    Of a picture that is cut out of a body, all is within.
    """
    thin = (grid > LUNG_HU[0]) & (grid < LUNG_HU[1])
    if thin.sum() * cell_cm2 < LUNG_CM2:
        return False
    body = ndimage.binary_closing(largest_part(grid > BODY_HU), _SQUARE)
    frame = np.concatenate([grid[0], grid[-1], grid[:, 0], grid[:, -1]])
    cut_out = bool((frame > LUNG_HU[0]).mean() >= FULL_FRAME and (frame > BODY_HU).mean() >= BODY_FRAME)
    within = ndimage.binary_fill_holes(np.pad(body, 1, constant_values=cut_out))[1:-1, 1:-1]
    return bool(ndimage.binary_opening(thin & within, _SQUARE).sum() * cell_cm2 >= LUNG_CM2)


def _empty_within_head(shown: Sequence[Shown]) -> int:
    """How many empty slices lie between slices with a skull."""
    skulls = [k for k, one in enumerate(shown) if one == "skull"]
    return sum(one == "nothing" for one in shown[skulls[0] : skulls[-1]]) if skulls else 0
