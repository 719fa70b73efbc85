"""The skull in a slice, on a grid of about 2 mm: bone that closes around tissue like brain."""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

GRID_MM: Final = 2.0
BONE_HU: Final = 200
BRAIN_HU: Final = (-10, 100)

GAP_MM: Final = 3.0
"""How far bone reaches: gaps of twice that in the skull are closed, and what is as near to bone is not looked at."""

BRAIN_AREA_CM2: Final = 25.0
BRAIN_SHARE: Final = 0.8


class Skull(NamedTuple):
    """A skull on the grid.

    Attributes:
        values: HU of what is within it.
        mask: bool (rows, columns), with the bone, which reaches `reach_mm` too far.
        reach_mm: how far bone was dilated.
    """

    values: NDArray[np.float32]
    mask: NDArray[np.bool_]
    reach_mm: float


def find_skull(grid: NDArray[np.float32], mm: float) -> Skull | None:
    """The skull in a slice (rows, columns) in HU, each cell `mm` wide; None where none closes around brain."""
    steps = max(1, round(GAP_MM / mm))
    bone = ndimage.binary_dilation(grid > BONE_HU, iterations=steps)
    filled = ndimage.binary_fill_holes(bone)
    inside = largest_part(filled & ~bone)
    values = grid[inside]
    brain = (values > BRAIN_HU[0]) & (values < BRAIN_HU[1])
    if values.size * mm * mm < 100 * BRAIN_AREA_CM2 or brain.mean() < BRAIN_SHARE:
        return None
    parts, _ = ndimage.label(filled)
    return Skull(values, parts == parts[np.unravel_index(int(inside.argmax()), inside.shape)], steps * mm)


def averaged(hu: NDArray[np.int16], factor: int) -> NDArray[np.float32]:
    """Means of square blocks of pixels; what is left over at the right and at the bottom is dropped."""
    rows, columns = (n // factor for n in hu.shape)
    blocks = hu[: rows * factor, : columns * factor].reshape(rows, factor, columns, factor)
    means: NDArray[np.float32] = blocks.mean((1, 3), dtype=np.float32)
    return means


def largest_part(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest connected part."""
    parts, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    largest: NDArray[np.bool_] = parts == sizes.argmax()
    return largest
