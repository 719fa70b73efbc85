"""Makes the package's tissue maps from those of nilearn: `python -m ichseq.phantom.make_icbm152 NILEARN_WHEEL`.

nilearn's wheel (BSD 3-clause) carries the ICBM 152 2009a maps of grey matter, of white matter and the T1 template at
1 mm as uint8. Run once, when icbm152.xz was made; kept so that everyone can see how.
"""

import gzip
import lzma
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, spatial

from ichseq.files import flush
from ichseq.phantom.head import Array
from ichseq.phantom.icbm152 import (
    COARSE_ORIGIN,
    COARSE_SHAPE,
    COARSE_STEP,
    DISTANCE_STEP,
    FILE,
    FINE_ORIGIN,
    FINE_SHAPE,
    SHARE_LEVELS,
    TENTORIUM_STEP,
)

MEMBER = "nilearn/datasets/data/mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
SHAPE, ORIGIN = (189, 233, 197), (-72, -134, -98)
CLOSING_MM, CLEFT_MM, GAP_MM = 9.0, 2.5, 1.5

Mask = NDArray[np.bool_]


def main(wheel: Path) -> None:
    """Write `FILE`."""
    with zipfile.ZipFile(wheel) as archive:
        t1, grey, white = (_nifti(archive.read(MEMBER.format(name))) for name in ("t1", "gm", "wm"))
    z, y, x = np.meshgrid(
        *[np.arange(n, dtype=np.float32) + o for n, o in zip(SHAPE, ORIGIN, strict=True)], indexing="ij"
    )
    brain = t1 > 0
    # Fluid is what is neither grey nor white; sulci that differ from head to head still show as dark in T1.
    rest = np.clip(1 - grey - white, 0, 1)
    fluid = np.where(brain, np.maximum(rest, np.clip((0.70 - t1) / 0.4, 0, 1)), 1).astype(np.float32)
    cavity = _bridged(brain, np.abs(x), z)
    hull = ndimage.gaussian_filter(_hull_distance(cavity < 0), 3.0)
    ventricle = ndimage.gaussian_filter(_signed_distance(_ventricles(rest, brain, np.abs(x), y, z)), 0.7)
    tentorium = _tentorium(np.where(brain, fluid, 0))
    known = ndimage.distance_transform_edt(grey + white < 0.3, return_distances=False, return_indices=True)
    share = (grey / (grey + white + 1e-3))[tuple(known)]
    parts: list[NDArray[Any]] = [_fine(fluid), _fine(share)]
    parts += [_coarse(field / DISTANCE_STEP) for field in (ventricle, cavity - GAP_MM, hull - GAP_MM)]
    parts.append(_coarse(np.broadcast_to(tentorium / TENTORIUM_STEP, SHAPE))[:1])
    beside = FILE.with_name(FILE.name + ".partial")
    beside.write_bytes(lzma.compress(b"".join(part.tobytes() for part in parts), preset=9))
    flush(beside)
    beside.rename(FILE)


def _nifti(packed: bytes) -> Array:
    """Voxels (z, y, x) of a single-file NIfTI-1 of uint8, 0 to 1."""
    voxels = np.frombuffer(gzip.decompress(packed), np.uint8, offset=352)
    return voxels.reshape(SHAPE).astype(np.float32) / 255


def _signed_distance(mask: Mask) -> Array:
    inside, outside = ndimage.distance_transform_edt(mask), ndimage.distance_transform_edt(~mask)
    return (outside - inside).astype(np.float32)


def _bridged(brain: Mask, x: Array, z: Array) -> Array:
    """Signed distance to the brain's surface after sulci and cisterns are closed.

    Clefts between the temporal lobe and the cerebellum stay open, but for narrow ones: the petrous bones fill them.
    """
    closed = _closed(brain, CLOSING_MM)
    lateral = (x > 14) & (z < -10)
    closed = np.where(lateral, _closed(brain, CLEFT_MM), closed) | brain
    return ndimage.gaussian_filter(_signed_distance(closed), 1.5)


def _closed(mask: Mask, radius: float) -> Mask:
    margin = int(4 * CLOSING_MM)
    wide = ndimage.distance_transform_edt(~np.pad(mask, margin)) < radius
    closed: Mask = ndimage.distance_transform_edt(wide) > radius
    return closed[margin:-margin, margin:-margin, margin:-margin]


def _hull_distance(mask: Mask) -> Array:
    """Signed distance to the convex hull, from its planes."""
    planes = spatial.ConvexHull(np.argwhere(mask & ~ndimage.binary_erosion(mask))).equations.astype(np.float32)
    z, y, x = np.meshgrid(*[np.arange(n, dtype=np.float32) for n in SHAPE], indexing="ij")
    distance = np.full(SHAPE, -1e3, np.float32)
    for a, b, c, d in planes:
        np.maximum(distance, a * z + b * y + c * x + d, out=distance)
    return distance


def _ventricles(rest: Array, brain: Mask, x: Array, y: Array, z: Array) -> Mask:
    """Lateral ventricles with their horns, third and fourth ventricle, by place (mm, x outwards)."""
    label, count = ndimage.label((rest > 0.5) & (ndimage.distance_transform_edt(brain) > 8))
    sizes = ndimage.sum_labels(label > 0, label, np.arange(1, count + 1))
    found = label == np.argsort(sizes)[-2] + 1  # the largest are the cisterns and the fissure, then the laterals
    found |= (rest > 0.4) & (x <= 5) & (y > -27) & (y < 8) & (z > -13) & (z < 14)
    found |= (rest > 0.4) & (x <= np.where(z < -33, 13, 8)) & (y > -57) & (y < -34) & (z > -48) & (z < -18)
    found |= (rest > 0.3) & (x > 22) & (x < 40) & (y > -30) & (y < -2) & (z > -32) & (z < -9)
    found |= (rest > 0.25) & (x > 16) & (x < 32) & (y > -84) & (y < -54) & (z > -3) & (z < 16)
    near = ndimage.distance_transform_edt(~found) < 2.5
    return found | (near & (rest > 0.35) & (x >= 3) & (x < 40) & (y > -70) & (z > -3) & (z < 32))


def _tentorium(fluid: Array) -> Array:
    """Height (1, y, x) of the cleft between cerebrum and cerebellum: its fluid, near where a tentorium lies."""
    z = np.arange(SHAPE[0], dtype=np.float32) + ORIGIN[0]
    y, x = np.meshgrid(
        np.arange(SHAPE[1]) + ORIGIN[1], np.abs(np.arange(SHAPE[2], dtype=np.float32) + ORIGIN[2]), indexing="ij"
    )
    back = np.clip((-40 - y) / 45, 0, 1.2)
    expected = np.maximum(2 - 16 * back - x * (0.40 - 0.22 * np.clip(back, 0, 1)), -32)
    smooth = ndimage.gaussian_filter(fluid, (0.7, 1.5, 1.5))
    best = np.argmax(smooth - ((z[:, None, None] - expected) / 14) ** 2, axis=0)
    clear = np.take_along_axis(smooth, best[None], 0)[0]
    weight = np.clip(clear - 0.1, 0.02, 1) * (y < -22) + 0.02
    height = ndimage.median_filter(z[best], 9)
    return (ndimage.gaussian_filter(height * weight, 4) / ndimage.gaussian_filter(weight, 4))[None]


def _fine(share: Array) -> NDArray[np.uint8]:
    start = [round(a - b) for a, b in zip(FINE_ORIGIN, ORIGIN, strict=True)]
    part = share[tuple(slice(s, s + n) for s, n in zip(start, FINE_SHAPE, strict=True))]
    return np.rint(part * SHARE_LEVELS).astype(np.uint8)


def _coarse(field: Array) -> NDArray[np.int8]:
    start = [round(a - b) for a, b in zip(COARSE_ORIGIN, ORIGIN, strict=True)]
    part = field[tuple(slice(s, None, int(COARSE_STEP)) for s in start)]
    assert part.shape == COARSE_SHAPE
    return np.clip(np.rint(part), -127, 127).astype(np.int8)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
