"""A made-up head as smooth fields in millimetres, from which any plane can be cut.

The frame is the standard head's: x to the patient's left, y to the back, z up, the origin between the thalami. Every
field is smooth enough for a grid of 2 mm: a signed distance (negative inside) or a weight. The sharp borders appear
when tissue.py cuts the fields at full resolution.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ichseq.phantom.head import LATTICE_POINTS, LATTICE_STEP, Array, Head

Fields = dict[str, Array]

FAR = np.float32(60.0)

# The lateral ventricle of one side as a chain of cones: (x, y, z, radius) in mm, front to back, then the temporal horn.
LATERAL_VENTRICLE = (
    ((11, -35, 8, 3.6), (5.5, -17, 13, 4.4)),
    ((5.5, -17, 13, 4.4), (7.5, 2, 21, 5.2)),
    ((7.5, 2, 21, 5.2), (16, 24, 19, 6.0)),
    ((16, 24, 19, 6.0), (24, 36, 7, 6.4)),
    ((24, 36, 7, 6.4), (21, 54, 3, 2.6)),
    ((24, 36, 7, 6.4), (31, 16, -9, 2.8)),
    ((31, 16, -9, 2.8), (31, -4, -14, 1.8)),
)
# Deep grey nuclei of one side: centre and radii in mm (thalamus, putamen with pallidum, head of the caudate).
NUCLEI = (((9.5, 11, 8), (8, 14, 10)), ((24, -6, 4), (7, 17, 12)), ((13, -24, 12), (5, 8, 9)))


def ramp(t: Array) -> Array:
    """Smooth step from 0 at t <= 0 to 1 at t >= 1."""
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


def ellipsoid(x: Array, y: Array, z: Array, centre: tuple[float, ...], radii: tuple[float, ...]) -> Array:
    """About the signed distance to an ellipsoid, mm."""
    norm = ((x - centre[0]) / radii[0]) ** 2 + ((y - centre[1]) / radii[1]) ** 2 + ((z - centre[2]) / radii[2]) ** 2
    return (np.sqrt(norm) - 1) * np.float32(min(radii))


def cone(x: Array, y: Array, z: Array, start: tuple[float, ...], end: tuple[float, ...]) -> Array:
    """Signed distance to a round cone between two points given as (x, y, z, radius), mm."""
    ax, ay, az, ra = start
    bx, by, bz = end[0] - ax, end[1] - ay, end[2] - az
    px, py, pz = x - ax, y - ay, z - az
    t = np.clip((px * bx + py * by + pz * bz) / (bx * bx + by * by + bz * bz), 0, 1)
    gap = (px - t * bx) ** 2 + (py - t * by) ** 2 + (pz - t * bz) ** 2
    return np.sqrt(gap) - (ra + t * (end[3] - ra))


def vault(head: Head, x: Array, y: Array, z: Array) -> tuple[Array, Array]:
    """Distance to the inner table of the vault, measured along the ray from the centre (mm), and the share q of that
    ray at which the point lies (1 on the table).
    """
    back = (y - 4) / 86
    side = (x / (68 * (1 + 0.075 * back - 0.055 * back * back))) ** 2
    length = back * back
    up = np.where(z > 0, z / 76, z / 118)
    q = np.sqrt(0.5 * (side + length) + 0.5 * np.sqrt(side * side + length * length) + up * up) + 1e-3
    r = np.sqrt(x * x + (y - 4) ** 2 + z * z)
    return r * (1 - 1 / q) + head.shape_waves(x, y, z), q


def base_height(x: Array, y: Array) -> tuple[Array, Array, Array]:
    """Height z of the floor of the skull's inside, the thickness of its bone, and how far behind the petrous ridge."""
    ax = np.abs(x)
    wing = y + 14 + 0.5 * ax
    ridge = y - 2 - 0.55 * ax
    middle, lateral = np.exp(-((ax / 13) ** 2)), ramp((ax - 11) / 9)
    front = -21 - 7 * np.exp(-((ax / 8) ** 2)) + 6 * np.exp(-(((ax - 29) / 15) ** 2) - ((y + 55) / 22) ** 2)
    centre = -26 - 19 * lateral
    back = -63 + 0.0085 * (ax * ax + (y - 42) ** 2)
    behind = ramp((ridge + 4) / (10 + 18 * middle))
    floor = centre + (back - centre) * behind
    floor += 19 * np.exp(-((ridge / 6.5) ** 2)) * lateral
    floor = front + (floor - front) * ramp((wing + 5) / 10) + 5 * np.exp(-((wing / 7) ** 2)) * lateral
    canal = np.sqrt(x * x + (y - 38) ** 2)
    floor -= 45 * ramp((19 - canal) / 7)
    bone = 4.5 + 24 * np.exp(-((ridge / 10) ** 2)) * lateral + 18 * middle * np.exp(-(((y - 6) / 16) ** 2))
    bone += 3 * ramp((ridge - 10) / 15) + 9 * np.exp(-((wing / 9) ** 2)) * lateral
    return floor, bone, ridge


def head_fields(head: Head, x: Array, y: Array, z: Array, shift: Array | None = None) -> Fields:
    """All fields of the inside of the skull at points of the standard head (float32, one shape, mm).

    Args:
        head: the head.
        x: to the patient's left.
        y: to the back.
        z: up.
        shift: how far the brain at each point was pushed to the left (midline shift), or None.
    """
    d_vault, q = vault(head, x, y, z)
    floor, base_bone, ridge = base_height(x, y)
    below = (floor - z) * 0.75
    cavity = np.maximum(d_vault, below)
    bone = np.maximum(
        -cavity, d_vault - head.skull_thickness - head.skull_waves(x, y, z) - 2.5 * np.maximum(y / 90, -0.5)
    )
    bone = np.maximum(bone, below - 0.75 * base_bone)
    brain_x = x if shift is None else x - shift
    fields: Fields = {"vault": d_vault, "cavity": cavity, "bone": bone, "below": below}
    fields["middle"] = brain_x - head.falx_bend(x, y, z)
    # No fissure and no falx inside this ellipse of the median plane: there lie the callosum and the deep structures.
    fields["callosum"] = np.minimum((np.sqrt(((y - 4) / 47) ** 2 + ((z - 8) / 27) ** 2) - 1) * 30, 15)
    tent = 5 - 0.4 * np.abs(x) - 0.2 * np.maximum(y - 34, 0)
    fields["tent"] = np.minimum((z - np.maximum(tent, -25)) * 0.9, 12)
    if fields["tent"].min() < 12:
        notch = (1 - np.sqrt((x / 19) ** 2 + ((y - 4) / 30) ** 2)) * 19
        fields["tent_edge"], fields["ridge"] = np.maximum(notch, -ridge - 2), ridge
    else:
        fields["tent_edge"] = fields["ridge"] = np.full_like(x, FAR)
    fields["tissue"] = head.tissue_waves(x, y, z)
    inside = np.flatnonzero(cavity < 6)
    fields["q"] = q
    folds = _in_part(inside, FAR, lambda *p: _sulci(head, *p), brain_x, y, z, q)
    # Folds that come from the vault fade above the floor of the skull, where they would run on to the middle.
    fields["sulcus"] = folds * (1 + 0.07 * np.clip(below - d_vault - 8, 0, 40))
    deep = np.flatnonzero((cavity < 3) & (np.abs(x) < 50) & (np.abs(y) < 75) & (z < 45))
    ventricle, grey, cistern = _in_part3(deep, head, brain_x, y, z)
    fields |= {"ventricle": ventricle, "grey": grey, "cistern": cistern, "spots": _spots(head, x, y, z)}
    return fields


def _in_part(index: NDArray[np.intp], fill: np.float32, function: Callable[..., Array], *points: Array) -> Array:
    out = np.full(points[0].shape, fill, np.float32)
    if index.size:
        out.reshape(-1)[index] = function(*(p.reshape(-1)[index] for p in points))
    return out


def _in_part3(index: NDArray[np.intp], head: Head, *points: Array) -> tuple[Array, ...]:
    outs = tuple(np.full(points[0].shape, FAR, np.float32) for _ in range(3))
    if index.size:
        part = [p.reshape(-1)[index] for p in points]
        for out, value in zip(outs, _deep(head, *part), strict=True):
            out.reshape(-1)[index] = value
    return outs


def _sulci(head: Head, x: Array, y: Array, z: Array, q: Array) -> Array:
    """Sulcal noise read at the point pushed most of the way out to the surface, so that sulci run inwards."""
    out = np.maximum(q, 0.3) ** np.float32(-0.75)
    points = np.stack([x * out, (y - 4) * out, z * out]) / np.float32(LATTICE_STEP) + np.float32(LATTICE_POINTS / 2)
    return ndimage.map_coordinates(head.sulci, points, order=1, mode="nearest", output=np.float32)


def _deep(head: Head, x: Array, y: Array, z: Array) -> tuple[Array, Array, Array]:
    """Signed distances (mm) to ventricles, deep grey matter and basal cisterns (with the insular cleft)."""
    ax = np.abs(x)
    size = head.ventricle_size
    ventricle = np.full_like(x, FAR)
    for start, end in LATERAL_VENTRICLE:
        ventricle = np.minimum(ventricle, cone(ax, y, z, start, end))
    ventricle += np.float32(4.5 * (1 - size) + 0.4)
    ventricle = np.maximum(ventricle, 0.9 - ax)
    third = ellipsoid(x, y, z, (0, 2, 2), (1.6 + 1.8 * (size - 0.6), 15, 11))
    fourth = ellipsoid(x, y, z, (0, 37, -33), (7 * size, 5.5 * size, 10))
    ventricle = np.minimum(ventricle, np.minimum(third, fourth))
    grey = np.full_like(x, FAR)
    for centre, radii in NUCLEI:
        grey = np.minimum(grey, ellipsoid(ax, y, z, centre, radii))
    cistern = _cisterns(head, x, ax, y, z)
    return ventricle, grey, cistern


def _cisterns(head: Head, x: Array, ax: Array, y: Array, z: Array) -> Array:
    wide = 0.5 + head.atrophy
    stem = ellipsoid(x, y, z, (0, 9, -11), (17, 14, 16))
    stem = np.minimum(stem, ellipsoid(x, y, z, (0, 16, -33), (17, 13, 14)))
    stem = np.minimum(stem, cone(x, y, z, (0, 21, -42, 9), (0, 38, -80, 6)))
    ambient = 2.2 * wide * np.clip(1 - np.abs(z + 9) / 11, 0, 1) * ramp((y + 4) / 8)
    pontine = 4.5 * wide * ramp((14 - y) / 8) * ramp((-14 - z) / 5)
    canal = 14 * ramp((-50 - z) / 12)
    room = ambient + pontine + canal
    around = np.maximum(-stem, stem - room)
    around[room < 0.3] = FAR
    angle = np.arctan2(x, -(y + 8))
    star = np.sqrt(x * x + (y + 8) ** 2) - (9 + 2 * wide + 4.5 * np.cos(5 * angle))
    star = np.maximum(star, np.abs(z + 18) - 6)
    star = np.maximum(star, -stem)
    wave = 2.5 * head.tissue_waves(1.5 * x, 1.5 * y, 1.5 * z)
    insula = np.abs(ax - 42 + 0.009 * (y + 5) ** 2 + wave) - 1.5 * wide
    insula = insula + 0.3 * np.maximum(np.maximum(np.abs(y + 6) - 13, np.abs(z - 2) - 9), 0)
    sylvian = np.abs(y + 15 - 0.75 * (z + 4) - 0.3 * (ax - 40) + 2 * wave) * 0.8 - wide * (0.9 + 0.05 * (ax - 40))
    sylvian = sylvian + np.maximum(np.maximum(43 - ax, 0.4 * np.abs(z - 2) - 5), 0)
    magna = ellipsoid(x, y, z, (0, 62, -50), (9, 9, 9)) - wide
    quadrigeminal = ellipsoid(x, y, z, (0, 26, -3), (9 + 2 * wide, 3 + wide, 6))
    cistern = np.minimum(np.minimum(around, star), np.minimum(insula, sylvian))
    return np.minimum(cistern, np.minimum(magna, quadrigeminal))


def _spots(head: Head, x: Array, y: Array, z: Array) -> Array:
    """HU that small dense spots add (a sum of Gaussians cut off at four radii)."""
    total = np.zeros_like(x)
    low, high = float(z.min()), float(z.max())
    for spot in head.spots:
        reach = 3.5 * spot.radius
        if low - reach < spot.centre[2] < high + reach:
            gap = (x - spot.centre[0]) ** 2 + (y - spot.centre[1]) ** 2 + (z - spot.centre[2]) ** 2
            near = np.flatnonzero(gap < reach * reach)
            flat = total.reshape(-1)
            flat[near] += spot.hu * np.exp(gap.reshape(-1)[near] / np.float32(-2 * spot.radius**2))
    return total
