"""A head drawn from the tissue maps of `icbm152.py`, with skull, face and scalp around it, as a `HeadVolume`.

Plane by plane: fields that are smooth (skin, bone, where a point lies in the atlas) on a grid of 2 mm, the tissue of
the brain at full resolution.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ichseq.phantom.anatomy import FAR, Fields, base_height, cone, ellipsoid, ramp
from ichseq.phantom.drawn_brain import brain_fields, draw_brain
from ichseq.phantom.drawn_face import add_outside
from ichseq.phantom.head import Array
from ichseq.phantom.icbm152 import above_tentorium, atlas_points, load_maps, sample_distance
from ichseq.phantom.person import Person
from ichseq.phantom.scanner import Pose, upsampling
from ichseq.phantom.tissue import AIR, FAT, MUSCLE, SKIN, soft
from ichseq.phantom.volume import HeadVolume

COARSE_STEP = 2.3
# How far below the inner table the blur of scanner and pixels makes the brain as white as bone.
EDGE_MM = 0.9
# So many planes are drawn at once as fit a core's cache.
PLANES = 3


@dataclass
class DrawnVolume(HeadVolume):
    """A drawn head; it knows where its tentorium lies. `tentorium_height_mm` is the height above it, (Z, Y, X)."""

    tentorium_height_mm: Array | None = None

    @property
    def above_tentorium_mm(self) -> Array:
        """Height above the tentorium and its continuation, negative in the posterior fossa."""
        assert self.tentorium_height_mm is not None
        return self.tentorium_height_mm


@dataclass(frozen=True)
class Grid:
    """Where the volume's voxels lie, in mm from the head's centre: along rows and columns, and across the slices.

    down_column and normal are unit vectors in patient coordinates, as in `scanner.Stack`.
    """

    rows: NDArray[np.float64]
    columns: NDArray[np.float64]
    heights: NDArray[np.float64]
    down_column: NDArray[np.float64]
    normal: NDArray[np.float64]


def draw_volume(person: Person, grid: Grid, pose: Pose) -> DrawnVolume:
    """The person's head on a grid, without bleeding and look-alikes.

    Args:
        person: who.
        grid: where the voxels lie.
        pose: how the head lies (its centre is the grid's origin).
    """
    shape = len(grid.heights), len(grid.rows), len(grid.columns)
    start = {"hu": AIR, "depth_mm": -FAR, "csf": 0, "ventricles": 0, "skull": 0}
    out = {name: np.full(shape, value, np.float32) for name, value in start.items()}
    out["place"] = _standard_place(person, pose, grid, grid.rows, grid.columns, grid.heights)
    out |= {"midline_mm": out["place"][0].copy(), "tentorium_height_mm": out["place"][2] + 10}
    for first in range(0, shape[0], PLANES):
        planes = slice(first, min(first + PLANES, shape[0]))
        box = _head_box(out["place"][:, planes])
        if box is None:
            continue
        coarse_v, down = upsampling(grid.rows[box[0]], COARSE_STEP)
        coarse_u, across = upsampling(grid.columns[box[1]], COARSE_STEP)
        x, y, z = _standard_place(person, pose, grid, coarse_v, coarse_u, grid.heights[planes])
        f = _upsample(_plane_fields(person, x, y, z), down, across)
        part = (planes, *box)
        _draw_planes(person, f, {name: value[part] for name, value in out.items() if name != "place"})
        for axis, name in enumerate("xyz"):
            out["place"][axis][part] = f[name]
    scale = float(np.mean(person.head.scale))
    out["depth_mm"] *= np.float32(scale)
    out["midline_mm"] *= np.float32(person.head.scale[0])
    a, b, c = (float(v) for v in pose.axes[:, 1])
    pixel = float(grid.rows[1] - grid.rows[0])
    return DrawnVolume(positions_mm=grid.heights, pixel_mm=pixel, down=(a, b, c), edge_mm=EDGE_MM, **out)


def _standard_place(person: Person, pose: Pose, grid: Grid, v: Array, u: Array, heights: Array) -> Array:
    """Places of the standard head, before the person's own shape, of planes, rows v and columns u: (3, Z, Y, X)."""
    return np.stack(
        [
            (
                ((grid.normal @ axis) * heights[:, None, None] + (grid.down_column @ axis) * v[:, None]) + axis[0] * u
            ).astype(np.float32)
            / np.float32(scale)
            for axis, scale in zip(pose.axes, person.head.scale, strict=True)
        ]
    )


def _near_head(x: Array, y: Array, z: Array) -> NDArray[np.bool_]:
    near: NDArray[np.bool_] = (x / 100) ** 2 + (y / 122) ** 2 + (np.maximum(z, 0) / 102) ** 2 < 1
    return near


def _head_box(place: Array) -> tuple[slice, slice] | None:
    """Rows and columns of some planes (place: (3, planes, rows, columns)) that hold the head."""
    step = 4
    x, y, z = place[:, :, ::step, ::step]
    near = np.any(_near_head(x, y, z), axis=0)
    if not near.any():
        return None
    rows, columns = (np.flatnonzero(near.any(axis=axis)) * step for axis in (1, 0))
    return slice(max(int(rows[0]) - step, 0), int(rows[-1]) + step), slice(
        max(int(columns[0]) - step, 0), int(columns[-1]) + step
    )


def _plane_fields(person: Person, x: Array, y: Array, z: Array) -> Fields:
    """All smooth fields of some planes (n, h, w); far from the head, where they are not computed, they say so."""
    near = np.flatnonzero(_near_head(x, y, z))
    local = _coarse_fields(person, x.reshape(-1)[near], y.reshape(-1)[near], z.reshape(-1)[near])
    out: Fields = {"x": x.copy(), "y": y.copy(), "z": z.copy(), "middle": x.copy(), "tent": z + 10}
    for name, value in local.items():
        whole = out.setdefault(name, np.full(x.shape, FAR, np.float32))
        whole.reshape(-1)[near] = value
    return out


def _coarse_fields(person: Person, x: Array, y: Array, z: Array) -> Fields:
    """All smooth fields at points (n,) of the standard head before its own shape."""
    head = person.head
    shift = [waves(x, y, z) for waves in person.shape]
    x, y, z = x + shift[0], y + shift[1], z + shift[2]
    points = atlas_points(x, y, z)
    maps = load_maps()
    hull = sample_distance(maps.hull, points)
    cavity = sample_distance(maps.cavity, points)
    # Above the base the inner table bridges the notch of the sagittal sinus; the stem goes on below the atlas.
    cavity = np.minimum(cavity, hull + 2 - 1.3 * ramp((z - 45) / 20) + 12 * ramp((2 - z) / 14)) + np.float32(
        1.6 - person.gap
    )
    if z.size and z.min() < -55:
        cavity = np.minimum(cavity, cone(x, y, z, (0, 24, -58, 12), (0, 38, -100, 13)))
    if z.size and z.min() < -8:
        cavity = np.maximum(cavity, -_ridges(person, x, y, z))
    floor, base_bone, ridge = base_height(x, y)
    waves = head.skull_waves(x, y, z)
    thickness = head.skull_thickness + waves + 2.0 * np.clip(y / 90, -0.6, 1)
    below = (floor - z) * np.float32(0.75)
    base = cavity - np.maximum(person.base_bone * 0.42 * base_bone, 2.2) - 0.5 * waves
    base = np.minimum(base, cavity - thickness + 8 * ramp((-z - 5) / 25))
    # The temporal bone bridges the cleft between frontal and temporal lobe.
    base = np.minimum(base, -3 - hull + 30 * ramp((-z - 4) / 14))
    bone = np.maximum(np.maximum(-cavity, hull - thickness), base * ramp((16 - z) / 8) + (ramp((16 - z) / 8) - 1) * 9)
    f: Fields = {"vault": hull, "cavity": cavity, "bone": bone, "below": below}
    add_outside(person, f, x, y, z)
    for name in ("vault", "below"):
        del f[name]
    lean = np.float32(person.tilt_of_falx)
    f |= {"x": x, "y": y, "z": z, "middle": x - head.falx_bend(x, y, z) - lean * y, "ridge": ridge}
    f["tissue"] = head.tissue_waves(x, y, z)
    f["tent"] = np.clip(above_tentorium(points), -40, 60)
    f["from"] = np.float32(person.fluid_from) + person.widening(x, y, z)
    f |= brain_fields(person, f)
    return f


def _ridges(person: Person, x: Array, y: Array, z: Array) -> Array:
    """Distance to the bone that stands up between the lobes: petrous ridges, sphenoid, roofs of the orbits."""
    ax = np.abs(x)
    rough = 1.5 * person.head.skull_waves(x, y, z) + 0.6 * person.head.face_waves(x, y, z)
    height = person.base_bone
    thick = np.clip(0.55 * (-24 + 4 * height - z + rough), -4, height * (3 + 10 * ramp((ax - 8) / 50)))
    petrous = np.abs(y - 2 - 0.55 * ax + rough) * 0.87 - thick
    petrous = np.maximum(petrous, np.maximum(12 - ax, ax - 70))
    wing = np.abs(y + 14 + 0.5 * ax + rough) * 0.9 - np.clip(0.3 * (-20 + 3 * height - z), -3, 1.3 + 1.2 * height)
    wing = np.maximum(wing, np.maximum(11 - ax, ax - 66))
    back = ellipsoid(x, y, z, (0, -1, -32 + 3 * height), (9, 1.4 + 1.4 * height, 6)) + 0.5 * rough
    clinoid = ellipsoid(ax, y, z, (12, -17, -26 + 2 * height), (2.2 + height, 5, 2 + height))
    # The roofs of the orbits rise into the floor of the frontal lobe, rough as its folds are.
    bump = np.exp(-(((ax - 28) / 13) ** 2) - ((y + 54) / 20) ** 2)
    roof = 0.7 * (z + 26 - 11 * height * bump - 2.5 * person.head.face_waves(x, y, z) * (bump > 0.2))
    roof = np.maximum(roof, np.maximum(np.abs(ax - 28) - 17, np.abs(y + 50) - 27))
    return np.minimum(np.minimum(petrous, wing), np.minimum(np.minimum(back, clinoid), roof))


def _upsample(f: Fields, down: sparse.csr_array, across: sparse.csr_array) -> Fields:
    """Every field of some planes (n, h, w) from the coarse grid to the fine one."""
    names = list(f)
    n, h, w = f["x"].shape
    block = np.stack([np.clip(f[name], -300, 400) for name in names])  # (fields, n, h, w)
    block = (across @ block.reshape(-1, w).T).reshape(-1, len(names) * n, h)  # (columns, fields * n, h)
    block = np.ascontiguousarray(block.transpose(2, 1, 0)).reshape(h, -1)
    fine = (down @ block).reshape(-1, len(names), n, across.shape[0])  # (rows, fields, n, columns)
    return {name: np.ascontiguousarray(fine[:, i].transpose(1, 0, 2)) for i, name in enumerate(names)}


def _draw_planes(person: Person, f: Fields, out: Fields) -> None:
    """Fill some planes of every array of the volume."""
    edge = 1.2
    out["hu"][:] = _outside(person, f, edge)
    out["depth_mm"][:] = -f["cavity"]
    out["midline_mm"][:] = f["middle"]
    out["tentorium_height_mm"][:] = f["tent"]
    bone = soft(f["bone"], edge)
    out["skull"][:] = bone * soft(f["skin"], edge)
    index = np.flatnonzero(f["cavity"] < edge)
    if index.size:
        local = {name: value.reshape(-1)[index] for name, value in f.items()}
        hu, csf, ventricle = draw_brain(person, local, edge)
        inside = soft(local["cavity"], edge)
        where = np.unravel_index(index, f["x"].shape)
        out["hu"][where] += inside * (hu - out["hu"][where])
        out["csf"][where] = csf * inside
        out["ventricles"][where] = ventricle * inside


def _outside(person: Person, f: Fields, edge: float) -> Array:
    """HU of scalp, bone, face and air, with muscle where the brain will be."""
    fat = np.clip(f["fat"], 0, 1) * np.float32(person.subcutaneous)
    hu: Array = np.float32(MUSCLE) + np.float32(FAT - MUSCLE) * fat
    hu += soft(-1.8 - f["skin"], edge) * (np.float32(SKIN) - hu)
    shell = np.abs(f["globe"] + 0.8) - 0.8
    hu += soft(f["globe"], edge) * (8 - hu)
    hu += soft(shell, edge) * (45 - hu)
    grain = np.zeros_like(hu)
    index = np.flatnonzero(f["bone"] < 0)
    grain.reshape(-1)[index] = person.grain(*(f[name].reshape(-1)[index] for name in "xyz"))
    diploe = np.float32(person.diploe - person.bone) + 130 * grain
    bone: Array = np.float32(person.bone) + diploe * soft(f["bone"] + 2.1, 2.0)
    hu += soft(f["bone"], edge) * (bone - hu)
    index = np.flatnonzero(f["cells"] < 1)
    if index.size:
        x, y, z, cells = (f[name].reshape(-1)[index] for name in ("x", "y", "z", "cells"))
        walls = np.abs(person.grain(1.1 * x, 1.1 * y, 0.8 * z)) - np.float32(0.3 + 0.25 * person.head.air_cells)
        flat = hu.reshape(-1)
        flat[index] += soft(cells, edge) * np.clip(4 * walls, 0, 1) * (np.float32(AIR) - flat[index])
    hu += soft(f["air"], edge) * (np.float32(AIR) - hu)
    hu += soft(-f["skin"], edge) * (np.float32(AIR) - hu)
    return hu
