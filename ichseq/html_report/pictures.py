"""The pictures of a report: a file a slice with all windows side by side, key slices, and heat maps to lay over them.

A page that is opened from disk may draw a picture into a canvas and not read it back, so windows are computed here.
OpenCV comes in when a picture is encoded.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ichseq.windows import WINDOWS

VIEWER_WINDOWS: Final = {name: WINDOWS[name] for name in ("brain", "subdural", "bone")}
"""Name -> (centre, width) in HU, in the order in which they stand side by side."""

SIDE: Final = 512
"""Pixels of the longer side of a slice's picture at most."""

KEY_SIDE: Final = 256
HEAT_SIDE: Final = 192
CLEAR: Final = 0.3
"""Share of the strongest evidence up to which a heat map shows nothing."""

QUALITY: Final = 80  # of WebP: 28 real slices of 512 x 512 in three windows take 1.0 MB

Bytes = NDArray[np.uint8]


def size_within(shape: tuple[int, int], side: int) -> tuple[int, int]:
    """(rows, columns) of an image made to fit into a square; never larger than it is."""
    scale = min(1.0, side / max(shape))
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def slice_picture(hu: NDArray[np.int16]) -> bytes:
    """WebP of a slice (rows, columns) in every window of `VIEWER_WINDOWS`, side by side."""
    small = _resized(hu.astype(np.float32), SIDE)
    return _webp(np.concatenate([_grey(small, *window) for window in VIEWER_WINDOWS.values()], axis=1))


def key_picture(hu: NDArray[np.int16]) -> bytes:
    """WebP of a slice in the brain window, small."""
    return _webp(_grey(_resized(hu.astype(np.float32), KEY_SIDE), *VIEWER_WINDOWS["brain"]))


def small_heat(heat: NDArray[np.float32]) -> NDArray[np.float32]:
    """A heat map (rows, columns) as small as its picture."""
    return _resized(heat, HEAT_SIDE)


def heat_picture(maps: Sequence[NDArray[np.float32]]) -> bytes:
    """WebP with transparency of heat maps (rows, columns) side by side: 0 is clear, 1 is full."""
    return _webp(np.concatenate([_coloured(one) for one in maps], axis=1))


def _grey(hu: NDArray[np.float32], centre: float, width: float) -> Bytes:
    grey: Bytes = np.rint(np.clip((hu - (centre - width / 2)) / width, 0, 1) * 255).astype(np.uint8)
    return grey


def _coloured(heat: NDArray[np.float32]) -> Bytes:
    """Blue, green, red and opacity: clear up to `CLEAR` of the strongest place, then red to an opaque orange.

    The backbone's maps are coarse and fade slowly: without a clear part the whole head would be coloured.
    """
    share = np.clip((heat - CLEAR) / (1 - CLEAR), 0, 1)
    channels = (np.zeros_like(share), 40 + 150 * share, np.full_like(share, 255), 255 * share**0.7)
    coloured: Bytes = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    return coloured


def _resized(image: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    import cv2

    rows, columns = size_within((image.shape[0], image.shape[1]), side)
    if (rows, columns) == image.shape:
        return image
    return np.asarray(cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA), dtype=np.float32)


def _webp(image: Bytes) -> bytes:
    import cv2

    return cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, QUALITY])[1].tobytes()
