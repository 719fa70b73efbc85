"""Volumes read between their voxels, fast: by OpenCV, plane by plane."""

import cv2
import numpy as np
from numpy.typing import NDArray

from ichseq.phantom.head import Array

# OpenCV reads images of fewer than 32,768 rows.
TALLEST = 32_000


def resized(planes: Array, rows: int, columns: int, *, area: bool = False) -> Array:
    """Planes (Z, Y, X) at another size, float32, linear or by area."""
    how = cv2.INTER_AREA if area else cv2.INTER_LINEAR
    out = np.empty((len(planes), rows, columns), np.float32)
    for plane, to in zip(planes, out, strict=True):
        cv2.resize(np.ascontiguousarray(plane, np.float32), (columns, rows), dst=to, interpolation=how)
    return out


def interpolated(volume: NDArray[np.generic], points: Array, fill: float | None = None) -> Array:
    """A volume (z, y, x) at points (3, Z, Y, X) in voxels, linear, float32.

    Args:
        volume: of any type of number.
        points: z, y and x of each point.
        fill: what lies beside the planes; None: their border goes on. Above and below, the last plane always does.
    """
    depth, height, width = volume.shape
    z, y, x = (np.asarray(p, np.float32) for p in points)
    low = np.clip(np.floor(z), 0, max(depth - 2, 0))
    share = np.clip(z - low, 0, 1)
    inner = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
    out = np.empty(z.shape, np.float32)
    # Planes stand on top of each other in one tall image, so that one call reads every pixel in the plane it needs.
    step = max(1, TALLEST // height - 1)
    for first in range(0, max(depth - 1, 1), step):
        tall = np.ascontiguousarray(volume[first : first + step + 1], np.float32).reshape(-1, width)
        mine = (low >= first) & (low < first + step)
        for index in np.flatnonzero(mine.any(axis=(1, 2))):
            rows = (low[index] - first) * height + inner[0][index]
            below = cv2.remap(tall, inner[1][index], rows, cv2.INTER_LINEAR)
            above = cv2.remap(tall, inner[1][index], rows + min(height, len(tall) - height), cv2.INTER_LINEAR)
            value = below + share[index] * (above - below)
            np.copyto(out[index], value, where=mine[index])
    if fill is not None:
        out[(y != inner[0]) | (x != inner[1])] = fill
    return out
