"""The anatomy of a donor's head, found from its Hounsfield units: inside of the skull, midline, place, ventricles.

Everything is found on a coarse grid of about 2 mm, on which these fields are smooth; sulci are cut from the Hounsfield
units themselves, at full resolution (`fluid_share`).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ichseq.errors import ScanError
from ichseq.phantom.anatomy import LATERAL_VENTRICLE, base_height, cone, ellipsoid
from ichseq.phantom.head import Array

GRID_MM = 2.0
BONE_HU, AIR_HU = 220.0, -300.0
LEAST_INSIDE_ML, LEAST_SLICES = 500.0, 12
# The inside of the standard head: half width, half length, height above the origin, and where its middle lies.
HALF_WIDTH, HALF_LENGTH, MIDDLE_Y, TOP = 68.0, 86.0, 4.0, 76.0
FOURTH_VENTRICLE, THIRD_VENTRICLE = ((0, 37, -33), (7, 5.5, 10)), ((0, 2, 2), (3, 15, 11))


@dataclass
class FoundAnatomy:
    """Fields of a donor's head on a coarse grid, float32 (Z, Y, X), and that grid.

    Attributes:
        step: distance of planes, rows and columns, mm.
        depth_mm: distance to the inner table, positive inside.
        place: (3, Z, Y, X), place in the standard head, mm.
        near_ventricle: whether a voxel lies where ventricles may be, 0 or 1.
        near_folds: whether it lies where sulci, cisterns and fissures are, and not in a scar or in pale white matter.
        pale_hu: by how many HU scars and pale white matter are darker than healthy brain.
        head: share of each voxel that belongs to the head and not to table or air.
        brain_hu: HU of the brain without its fluid, the median.
        scale: size along x, y and z against the standard head.
    """

    step: tuple[float, float, float]
    depth_mm: Array
    place: Array
    near_ventricle: Array
    near_folds: Array
    pale_hu: Array
    head: Array
    brain_hu: float
    scale: tuple[float, float, float]


def find_anatomy(hu: Array, positions_mm: NDArray[np.float64], pixel_mm: float, name: str) -> FoundAnatomy:
    """Find a head's anatomy.

    Args:
        hu: (Z, Y, X), feet to head, rows to the back, columns to the patient's left.
        positions_mm: (Z,) height of the planes.
        pixel_mm: distance of rows and columns.
        name: what to call the scan in an error.

    Raises:
        ScanError: too few slices, no skull, or a part of a head only.
    """
    if len(hu) < LEAST_SLICES:
        raise ScanError(name, f"{len(hu)} slices are too few for a donor; give a whole head, {LEAST_SLICES} or more")
    coarse, step = _coarse(hu, positions_mm, pixel_mm)
    vault = _inside_vault(coarse, step, name)
    place, scale = _place(vault, coarse, step, name)
    inside = _inside(coarse, vault, place, step)
    depth = ndimage.distance_transform_edt(inside, step) - ndimage.distance_transform_edt(~inside, step)
    brain_hu = float(np.median(coarse[(depth > 4) & (coarse > 15) & (coarse < 60)]))
    near_folds = _near_folds(place, depth, coarse, step)
    return FoundAnatomy(
        step=step,
        depth_mm=ndimage.gaussian_filter(depth, 0.6).astype(np.float32),
        place=place,
        near_ventricle=_near_ventricle(place, depth),
        near_folds=near_folds,
        pale_hu=_pale(coarse, near_folds, depth, brain_hu),
        head=_head(coarse, step),
        brain_hu=brain_hu,
        scale=scale,
    )


def _coarse(hu: Array, positions: NDArray[np.float64], pixel: float) -> tuple[Array, tuple[float, float, float]]:
    """The volume on an even grid of about 2 mm: areas averaged in the plane, planes interpolated."""
    factor = max(1, round(GRID_MM / pixel))
    planes, rows, columns = hu.shape
    cut = hu[:, : rows // factor * factor, : columns // factor * factor]
    small = cut.reshape(planes, rows // factor, factor, columns // factor, factor).mean((2, 4), dtype=np.float32)
    n = max(2, round(float(positions[-1] - positions[0]) / GRID_MM) + 1)
    wanted = np.linspace(positions[0], positions[-1], n)
    index = np.interp(wanted, positions, np.arange(planes))
    low = np.minimum(index.astype(int), planes - 2)
    share = (index - low).astype(np.float32)[:, None, None]
    even = small[low] * (1 - share) + small[low + 1] * share
    return even, (float(wanted[1] - wanted[0]), factor * pixel, factor * pixel)


def _inside_vault(hu: Array, step: tuple[float, float, float], name: str) -> NDArray[np.bool_]:
    """The inside of the vault: the largest soft part whose planes a ring of bone encloses.

    Raises:
        ScanError: no skull, or no brain in it.
    """
    bone = hu > BONE_HU
    if bone.sum() * np.prod(step) < 100_000:
        raise ScanError(name, "no skull is found in it; a donor is a CT of the head, in Hounsfield units")
    reach = max(1, round(5 / step[1]))
    ring = np.stack([ndimage.binary_fill_holes(_closed(plane, reach)) for plane in bone])
    soft = ring & ~bone & (hu > -25) & (hu < 130)
    gap = ndimage.distance_transform_edt(np.pad(soft, ((1, 1), (0, 0), (0, 0)), mode="edge"), step)[1:-1]
    inside = _grown(_largest(gap > 5, gap), ring & ~bone & (hu > -200), 5.5, step)
    if inside.sum() * np.prod(step) / 1000 < LEAST_INSIDE_ML:
        raise ScanError(name, f"less than {LEAST_INSIDE_ML:.0f} ml of brain in a skull; give a whole head, in HU")
    return inside


def _inside(hu: Array, vault: NDArray[np.bool_], place: Array, step: tuple[float, float, float]) -> NDArray[np.bool_]:
    """The inside of the whole skull: what joins the vault, as far down as the standard head's base and a little more.

    Opened by 4 mm, so that it doesn't run out through the holes of the base.
    """
    x, y, z = place
    floor, *_ = base_height(x, y)
    q = np.sqrt((x / HALF_WIDTH) ** 2 + ((y - MIDDLE_Y) / HALF_LENGTH) ** 2 + np.where(z > 0, z / TOP, z / 118) ** 2)
    room = (z > np.maximum(floor, -75) - np.where(y < -25, 3, 12)) & (q < 1.15) & (hu <= BONE_HU) & (hu > -25)
    gap = ndimage.distance_transform_edt(room | vault, step)
    parts, _ = ndimage.label((gap > 4) | (vault & (gap > 2)))
    sizes = np.bincount(parts[vault], minlength=1)
    sizes[0] = 0
    inside = _grown(parts == np.argmax(sizes), room, 4.5, step)
    return np.stack([ndimage.binary_fill_holes(plane) for plane in inside])


def _largest(mask: NDArray[np.bool_], weight: Array) -> NDArray[np.bool_]:
    """The part of a mask with the largest sum of `weight`; the mask, if it is empty."""
    parts, count = ndimage.label(mask)
    if not count:
        return mask
    return parts == 1 + int(np.argmax(ndimage.sum_labels(weight, parts, np.arange(1, count + 1))))


def _grown(core: NDArray[np.bool_], within: NDArray[np.bool_], by: float, step: tuple[float, ...]) -> NDArray[np.bool_]:
    return within & (ndimage.distance_transform_edt(~core, step) < by) if core.any() else core


def _closed(plane: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    padded = np.pad(plane, reach + 1)
    disk = np.hypot(*np.ogrid[-reach : reach + 1, -reach : reach + 1]) <= reach + 0.5
    return ndimage.binary_closing(padded, disk)[reach + 1 : -reach - 1, reach + 1 : -reach - 1]


def _place(
    inside: NDArray[np.bool_], hu: Array, step: tuple[float, float, float], name: str
) -> tuple[Array, tuple[float, float, float]]:
    """Place in the standard head, from the mirror plane and from where the inside of the vault ends.

    Raises:
        ScanError: the vertex or the base is not in the scan.
    """
    area = inside.sum((1, 2)).astype(float)
    top = int(np.flatnonzero(area)[-1])
    if area[-1] > 0.35 * area.max():
        raise ScanError(name, "the scan ends below the vertex; a donor has the whole brain")
    widest = int(np.argmax(area))
    vault = slice(max(widest - 4, 0), min(widest + 8, top + 1))
    yaw, lean, x0 = _mirror(inside[widest : top + 1], hu[widest : top + 1], step)
    z, y, x = (
        np.arange(n, dtype=np.float32) * np.float32(s) for n, s in zip(inside.shape, step, strict=True)
    )  # mm from the first voxel
    c, s = np.float32(np.cos(yaw)), np.float32(np.sin(yaw))
    up = (z - z[widest])[:, None, None]
    across: Array = x[None, None, :] - np.float32(x0) - np.float32(lean) * up
    along = y[None, :, None] - np.float32(y.mean())
    across, along = across * c + along * s, along * c - across * s + up * 0
    kept = inside[vault]
    width = float(np.percentile(np.abs(across[vault][kept]), 99.5))
    front, back = np.percentile(along[vault][kept], [0.3, 99.7])
    scale = width / HALF_WIDTH, float(back - front) / 2 / HALF_LENGTH
    scale_z = float(np.mean(scale))
    middle = (front + back) / 2
    height = float(z[top]) + step[0] / 2 - TOP * scale_z
    if height - 20 * scale_z < z[0]:
        raise ScanError(name, "the scan begins above the base of the skull; a donor has the whole brain")
    place = np.empty((3, *inside.shape), np.float32)
    place[0] = across / np.float32(scale[0])
    place[1] = (along - np.float32(middle)) / np.float32(scale[1]) + np.float32(MIDDLE_Y)
    place[2] = ((z - np.float32(height)) / np.float32(scale_z))[:, None, None]
    return place, (scale[0], scale[1], scale_z)


def _mirror(inside: NDArray[np.bool_], hu: Array, step: tuple[float, float, float]) -> tuple[float, float, float]:
    """Turn about z (radians), lean (mm to the left a mm upwards) and x (mm) of the plane that halves the head best.

    Found by comparing the inside of the vault, and the density within, with its mirror image.
    """
    weight = np.where(inside, 40 + np.clip(hu, 0, 60), 0).astype(np.float32)
    flat = weight.sum(0)
    rows, columns = np.indices(flat.shape)
    total = float(flat.sum())
    cy, cx = float((flat * rows).sum()) / total, float((flat * columns).sum()) / total
    best = (-np.inf, 0.0, 0.0)
    for yaw in np.deg2rad(np.arange(-40, 41, 2.0)):
        c, s = np.cos(yaw), np.sin(yaw)
        # Rows and columns of the head turned back by yaw about its centre.
        matrix = np.array([[c, s], [-s, c]])
        turned = ndimage.affine_transform(flat, matrix, np.array([cy, cx]) - matrix @ [cy, cx], order=1)
        for shift in np.arange(-3, 3.1, 0.5):
            centre = 2 * (cx + shift)
            mirrored = np.stack(
                [np.interp(centre - np.arange(flat.shape[1]), np.arange(flat.shape[1]), row) for row in turned[::2]]
            )
            score = -float(np.abs(turned[::2] - mirrored).sum())
            if score > best[0]:
                best = (score, float(yaw), float(shift))
    _, yaw, shift = best
    # The turn keeps the centre, so the plane passes beside it by the shift, across the turned head.
    x0 = cx * step[2] + shift * step[2] * np.cos(yaw)
    y_offset = cy - (flat.shape[0] - 1) / 2
    x0 += y_offset * step[1] * np.tan(yaw)
    planes = np.flatnonzero(inside.sum((1, 2)) > 0.3 * inside.sum((1, 2)).max())
    centres = [float((weight[k].sum(0) * np.arange(flat.shape[1])).sum() / weight[k].sum()) for k in planes]
    slope = float(np.polyfit(planes * step[0], np.array(centres) * step[2], 1)[0]) if len(planes) > 3 else 0.0
    return yaw, float(np.clip(slope, -0.3, 0.3)), float(x0)


def _near_ventricle(place: Array, depth: Array) -> Array:
    """Where ventricles may be: near those of the standard head, and deep."""
    x, y, z = place
    ax = np.abs(x)
    gap = np.full_like(x, 60)
    for start, end in LATERAL_VENTRICLE:
        gap = np.minimum(gap, cone(ax, y, z, start, end) - 5)
    gap = np.minimum(gap, ellipsoid(x, y, z, *THIRD_VENTRICLE) - 3)
    gap = np.minimum(gap, ellipsoid(x, y, z, *FOURTH_VENTRICLE) - 5)
    # Below the callosum and above the cisterns, what is deep and fluid is ventricle; so are the horns in front.
    deep = (((y - 4) / 47) ** 2 + ((z - 8) / 27) ** 2 < 1) & (ax < 30) & (depth > 24) & (z > 2)
    deep |= (ax > 3) & (ax < 24) & (y > -52) & (y < -14) & (z > -5) & (z < 14) & (depth > 18)
    return (((gap < 0) & (depth > 10)) | deep).astype(np.float32)


def _near_folds(place: Array, depth: Array, hu: Array, step: tuple[float, float, float]) -> Array:
    """Where fluid outside of the ventricles may be: near the surface, the midline, the cisterns of the base."""
    x, y, z = place
    ax = np.abs(x)
    base = (z > -40) & (z < 6) & (y < 45) & (ax < 52)
    dark = ndimage.gaussian_filter(hu, 0.8) < 20
    gap = ndimage.distance_transform_edt(dark, step)
    scar = ndimage.distance_transform_edt(~(gap > 5), step) < 7 if (gap > 5).any() else np.zeros_like(dark)
    scar &= (depth > 6) & ~((ax < 22) & base)
    return (((depth < 20) | (ax < 6) | base) & ~scar).astype(np.float32)


def _pale(hu: Array, near_folds: Array, depth: Array, brain_hu: float) -> Array:
    """By how much scars and pale white matter are too dark; nothing in fluid, of which they are no part."""
    smooth = ndimage.gaussian_filter(np.clip(hu, -20, 60), 1.2)
    pale = np.clip(brain_hu - 3 - smooth, 0, 20) * np.clip((smooth - 9) / 5, 0, 1)
    pale *= np.clip(depth / 4 - 1, 0, 1) * (1 - ndimage.uniform_filter(near_folds, 3))
    return ndimage.gaussian_filter(pale, 0.7).astype(np.float32)


def _head(hu: Array, step: tuple[float, float, float]) -> Array:
    """The head without table and head rest: the largest part denser than air, opened by 4 mm, holes filled."""
    dense = hu > AIR_HU
    gap = ndimage.distance_transform_edt(dense, step)
    near = _grown(_largest(gap > 4, gap), dense, 6.5, step)
    filled = np.stack([ndimage.binary_fill_holes(plane) for plane in near])
    return ndimage.uniform_filter(filled.astype(np.float32), 3)


def fluid_share(hu: Array, brain_hu: float, pixel_mm: float) -> Array:
    """Share of fluid in each voxel, from its HU smoothed in the plane over about 1 mm.

    Args:
        hu: (Z, Y, X).
        brain_hu: of the brain without fluid.
        pixel_mm: distance of rows and columns.
    """
    smooth = ndimage.gaussian_filter(np.clip(hu, -30, 90), (0, 0.9 / pixel_mm, 0.9 / pixel_mm))
    fluid = 7.0
    # White matter lies some 4 HU below the median and noise about it; only what is darker counts.
    return np.clip((brain_hu - 6 - smooth) / np.float32(brain_hu - 6 - fluid), 0, 1).astype(np.float32)
