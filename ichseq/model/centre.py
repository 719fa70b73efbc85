"""Squares of pixels around the centre of a slice, as they are: nothing is cropped to the head or resampled.

An image that is much larger than the square is resized as a whole, each pixel the mean of the area that it covers.
The geometry of a published network (github.com/i-pan/ct-head-hemorrhage-detection).
"""

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from ichseq.windows import AIR_HU

LARGE: Final = 1.25
"""An image of more than this times the square's side, in one direction or in both, is resized: for 512, above 640."""


def is_resized(rows: int, columns: int, side: int) -> bool:
    """Whether an image is resized as a whole."""
    return max(rows, columns) > LARGE * side


def centre_box(rows: int, columns: int, side: int) -> Tensor:
    """(4,) the square as a crop box, in pixels of the image: centre x, centre y, half width, half height."""
    if is_resized(rows, columns, side):
        return torch.tensor([columns, rows, columns, rows]) / 2
    left, top = _before(columns, side), _before(rows, side)
    return torch.tensor([left + side / 2, top + side / 2, side / 2, side / 2])


def centred(slices: Tensor, side: int) -> Tensor:
    """Slices (n, K, H, W) in HU as (n, K, side, side); air beyond their edges, which is black in every window."""
    rows, columns = slices.shape[2:]
    if is_resized(rows, columns, side):
        down, across = (areas(count, side).to(slices.device) for count in (rows, columns))
        return down @ slices.float() @ across.T
    left, top = _before(columns, side), _before(rows, side)
    # Negative margins cut.
    return F.pad(slices, (-left, left + side - columns, -top, top + side - rows), value=AIR_HU)


def _before(pixels: int, side: int) -> int:
    """Pixels that are cut before the square, or minus those that it is padded with; the larger half comes after it."""
    return (pixels - side) // 2 if pixels > side else -((side - pixels) // 2)


def areas(pixels: int, side: int) -> Tensor:
    """(side, pixels): the share of each pixel in the mean over the length that a new one covers."""
    width = pixels / side
    first = torch.arange(side, dtype=torch.float64)[:, None] * width
    place = torch.arange(pixels, dtype=torch.float64)
    covered = torch.minimum(place + 1, first + width) - torch.maximum(place, first)
    return (covered.clamp(min=0) / width).float()
