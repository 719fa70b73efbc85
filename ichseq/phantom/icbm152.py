"""Tissue maps of 152 people averaged (ICBM 152, 2009a, nonlinear, symmetric), reduced to what a drawn head needs.

The maps lie in the package as one compressed file, made by `make_icbm152.py`; NOTICE.icbm152 beside it states where
they come from and on which terms. They are symmetric: one half is kept, x counts from the median plane outwards.
"""

import lzma
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ichseq.errors import DataError
from ichseq.phantom.head import Array

FILE = Path(__file__).parent / "icbm152.xz"
FINE_SHAPE, COARSE_SHAPE, FLOOR_SHAPE = (156, 186, 74), (95, 117, 50), (117, 50)
FINE_ORIGIN, COARSE_ORIGIN = (-72.0, -110.0, 0.0), (-72.0, -134.0, 0.0)
COARSE_STEP = 2.0
SHARE_LEVELS, DISTANCE_STEP, TENTORIUM_STEP = 31, 0.5, 0.5
SCALE = 0.95
"""A head of the atlas is larger than life: this much smaller it fills the standard head of `anatomy.py`."""


@dataclass(frozen=True)
class Maps:
    """The atlas: shares (1 mm, uint8 in steps of 1 / SHARE_LEVELS) and distances (2 mm, int8 in DISTANCE_STEP mm).

    Attributes:
        fluid: how much of a voxel is fluid, sulci and ventricles alike, 1 outside of the brain.
        grey: share of grey matter in what is brain.
        ventricle: signed distance to the ventricles, negative inside.
        cavity: to the surface under which the brain lies (bridged over sulci and cisterns), negative inside.
        hull: to the convex hull of that surface, negative inside.
        tentorium: height z of the tentorium over (y, x) on the grid of the distances, in TENTORIUM_STEP mm.
    """

    fluid: NDArray[np.uint8]
    grey: NDArray[np.uint8]
    ventricle: NDArray[np.int8]
    cavity: NDArray[np.int8]
    hull: NDArray[np.int8]
    tentorium: NDArray[np.int8]


@lru_cache(maxsize=1)
def load_maps() -> Maps:
    """The maps of the package.

    Raises:
        DataError: the file is missing or damaged.
    """
    shapes = [FINE_SHAPE] * 2 + [COARSE_SHAPE] * 3 + [FLOOR_SHAPE]
    sizes = [int(np.prod(shape)) for shape in shapes]
    try:
        raw = lzma.decompress(FILE.read_bytes())
    except (OSError, lzma.LZMAError) as error:
        raise DataError(f"{FILE}: cannot be read ({error}); install ichseq again") from error
    if len(raw) != sum(sizes):
        raise DataError(f"{FILE}: holds {len(raw)} bytes where {sum(sizes)} are expected; install ichseq again")
    parts: list[NDArray[Any]] = []
    for shape, end in zip(shapes, np.cumsum(sizes), strict=True):
        kind = np.uint8 if len(parts) < 2 else np.int8
        parts.append(np.frombuffer(raw, kind, int(np.prod(shape)), int(end) - int(np.prod(shape))).reshape(shape))
    return Maps(*parts)


def atlas_points(x: Array, y: Array, z: Array) -> Array:
    """Points of the standard head (mm; x left, y back, z up) in the atlas: (3, ...): z, y forward, |x|."""
    return np.stack([(z + 2) / SCALE, (4 - y) / SCALE - 17, np.abs(x) / SCALE]).astype(np.float32)


def sample_share(share: NDArray[np.uint8], points: Array) -> Array:
    """A share (0 to 1) of the atlas at points (3, ...) from `atlas_points`."""
    index = points - np.array(FINE_ORIGIN, np.float32).reshape(3, *[1] * (points.ndim - 1))
    value = ndimage.map_coordinates(share, index, np.float32, order=1, mode="nearest", prefilter=False)
    return value * np.float32(1 / SHARE_LEVELS)


def sample_distance(distance: NDArray[np.int8], points: Array) -> Array:
    """A signed distance of the atlas, in mm of the standard head, at points (3, ...) from `atlas_points`."""
    index = points - np.array(COARSE_ORIGIN, np.float32).reshape(3, *[1] * (points.ndim - 1))
    index *= np.float32(1 / COARSE_STEP)
    value = ndimage.map_coordinates(distance, index, np.float32, order=1, mode="nearest", prefilter=False)
    return value * np.float32(DISTANCE_STEP * SCALE)


def above_tentorium(points: Array) -> Array:
    """Height above the tentorium and its continuation, mm of the standard head, at points from `atlas_points`."""
    index = (points[1:] - np.array(COARSE_ORIGIN[1:], np.float32).reshape(2, *[1] * (points.ndim - 1))) / COARSE_STEP
    height = ndimage.map_coordinates(load_maps().tentorium, index, np.float32, order=1, mode="nearest")
    return (points[0] - height * np.float32(TENTORIUM_STEP)) * np.float32(0.9 * SCALE)
