"""A head drawn from the tissue maps of `icbm152.py`, with skull, face and scalp around it, as a `HeadVolume`.

Plane by plane: fields that are smooth (skin, bone, where a point lies in the atlas) on a grid of 2 mm, the tissue of
the brain at full resolution.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from ichseq.phantom.anatomy import NUCLEI, Fields, base_height, cone, ellipsoid, ramp, vault
from ichseq.phantom.face import add_face
from ichseq.phantom.head import Array
from ichseq.phantom.icbm152 import above_tentorium, atlas_points, load_maps, sample_distance, sample_share
from ichseq.phantom.person import FOLD_STEP, Person
from ichseq.phantom.scanner import Pose, _upsampling
from ichseq.phantom.tissue import AIR, FAT, MUSCLE, SKIN, soft
from ichseq.phantom.volume import HeadVolume

# Large arteries of one side (x outwards, mm, radius): middle cerebral, carotid, posterior cerebral; then the midline's.
ARTERIES = (
    ((9, -10, -20, 1.6), (24, -10, -15, 1.4)),
    ((24, -10, -15, 1.4), (36, -13, -11, 1.2)),
    ((10, -6, -34, 2.0), (9, -10, -20, 1.8)),
    ((2, 1, -19, 1.1), (17, 14, -14, 1.0)),
    ((9, -11, -20, 1.1), (1.5, -22, -17, 1.0)),
    ((1.5, -22, -17, 1.0), (1.5, -44, 4, 0.9)),
    ((0, 5, -47, 1.6), (0, 1, -19, 1.5)),
    ((9, 14, -68, 1.4), (0, 5, -47, 1.5)),
)
CHOROID = ((21, 36, 7), (3.2, 6.5, 5.5))


@dataclass
class DrawnVolume(HeadVolume):
    """A drawn head; it knows where its tentorium lies. `tentorium_height_mm` is the height above it, (Z, Y, X)."""

    tentorium_height_mm: Array | None = None

    @property
    def above_tentorium_mm(self) -> Array:  # type: ignore[override]
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
    names = ("hu", "depth_mm", "midline_mm", "csf", "ventricles", "skull", "tentorium_height_mm")
    out = {name: np.empty(shape, np.float32) for name in names} | {"place": np.empty((3, *shape), np.float32)}
    coarse_v, down = _upsampling(grid.rows)
    coarse_u, across = _upsampling(grid.columns)
    for k, height in enumerate(grid.heights):
        start = height * grid.normal
        x, y, z = (
            ((start @ axis + coarse_v * (grid.down_column @ axis))[:, None] + (coarse_u * axis[0])[None, :]).astype(
                np.float32
            )
            / np.float32(scale)
            for axis, scale in zip(pose.axes, person.head.scale, strict=True)
        )
        f = _upsample(_coarse_fields(person, x, y, z), down, across)
        plane = {name: value[k] for name, value in out.items() if name != "place"}
        _draw_plane(person, f, plane)
        for axis, name in enumerate("xyz"):
            out["place"][axis, k] = f[name]
    scale = float(np.mean(person.head.scale))
    out["depth_mm"] *= np.float32(scale)
    out["midline_mm"] *= np.float32(person.head.scale[0])
    a, b, c = (float(v) for v in pose.axes[:, 1])
    return DrawnVolume(positions_mm=grid.heights, pixel_mm=float(grid.rows[1] - grid.rows[0]), down=(a, b, c), **out)


def _coarse_fields(person: Person, x: Array, y: Array, z: Array) -> Fields:
    """All smooth fields of a plane, at points (h, w) of the standard head before its own shape."""
    head = person.head
    shift = [waves(x, y, z) for waves in person.shape]
    x, y, z = x + shift[0], y + shift[1], z + shift[2]
    points = atlas_points(x, y, z)
    maps = load_maps()
    hull = sample_distance(maps.hull, points)
    cavity = sample_distance(maps.cavity, points)
    # Above the base the inner table bridges the notch of the sagittal sinus; the stem goes on below the atlas.
    cavity = np.minimum(cavity, hull + 2 + 12 * ramp((2 - z) / 14)) + np.float32(1.6 - person.gap)
    if z.min() < -55:
        cavity = np.minimum(cavity, cone(x, y, z, (0, 24, -58, 12), (0, 38, -100, 13)))
    if z.min() < -8:
        cavity = np.maximum(cavity, -_ridges(person, x, y, z))
    formula, _ = vault(head, x, y, z)
    blend = ramp((z + 42) / 30)
    outer = blend * hull + (1 - blend) * np.maximum(formula, hull - 8)
    floor, base_bone, ridge = base_height(x, y)
    waves = head.skull_waves(x, y, z)
    thickness = head.skull_thickness + waves + 2.0 * np.clip(y / 90, -0.6, 1)
    below = (floor - z) * np.float32(0.75)
    base = cavity - np.maximum(person.base_bone * 0.42 * base_bone, 2.2) - 0.5 * waves
    base = np.minimum(base, cavity - thickness + 8 * ramp((-z - 5) / 25))
    # The temporal bone bridges the cleft between frontal and temporal lobe.
    base = np.minimum(base, -3 - hull + 30 * ramp((-z - 4) / 14))
    bone = np.maximum(np.maximum(-cavity, outer - thickness), base * ramp((16 - z) / 8) + (ramp((16 - z) / 8) - 1) * 9)
    f: Fields = {"vault": outer, "cavity": cavity, "bone": bone, "below": below}
    add_face(head, f, x, y, z)
    _add_muscles(person, f, x, y, z)
    if person.ears:
        _add_ears(f, x, y, z)
    for name in ("vault", "below"):
        del f[name]
    lean = np.float32(person.tilt_of_falx)
    f |= {"x": x, "y": y, "z": z, "middle": x - head.falx_bend(x, y, z) - lean * y, "ridge": ridge}
    f["tissue"] = head.tissue_waves(x, y, z)
    f["tent"] = np.clip(above_tentorium(points), -40, 60)
    f["from"] = np.float32(person.fluid_from) + person.widening(x, y, z)
    for name, wave in zip(("gx", "gy", "gz"), person.gyri, strict=True):
        f[name] = wave(x, y, z)
    return f


def _ridges(person: Person, x: Array, y: Array, z: Array) -> Array:
    """Distance to the bone that stands up between the lobes: petrous ridges, wings of the sphenoid, sella's back."""
    ax = np.abs(x)
    rough = 1.5 * person.head.skull_waves(x, y, z) + 0.6 * person.head.face_waves(x, y, z)
    height = person.base_bone
    thick = np.clip(0.55 * (-24 + 4 * height - z + rough), -4, 8 * height * (0.45 + 0.55 * ramp((ax - 8) / 26)))
    petrous = np.abs(y - 2 - 0.55 * ax + rough) * 0.87 - thick
    petrous = np.maximum(petrous, np.maximum(12 - ax, ax - 70))
    wing = np.abs(y + 14 + 0.5 * ax + rough) * 0.9 - np.clip(0.4 * (-19 + 3 * height - z), -3, 3.5)
    wing = np.maximum(wing, np.maximum(11 - ax, ax - 66))
    back = ellipsoid(x, y, z, (0, -1, -31), (9, 2.6, 7))
    clinoid = ellipsoid(ax, y, z, (12, -17, -25), (3.2, 5, 3))
    return np.minimum(np.minimum(petrous, wing), np.minimum(back, clinoid))


def _add_muscles(person: Person, f: Fields, x: Array, y: Array, z: Array) -> None:
    """Below the base: muscles as bellies with thin layers of fat between them, in place of the face's spots of fat."""
    low = ramp((-14 - z) / 12) * ramp((f["below"] - 1) / 4)
    if low.max() <= 0:
        return
    layers = person.head.face_waves(0.55 * x, 0.55 * y, 0.3 * z)
    between = np.exp(-((layers / 0.22) ** 2)) * 0.9 + 0.6 * ramp((-y - 45) / 30)
    orbit = np.minimum(f["globe"], cone(np.abs(x), y, z, (32, -76, -31, 17), (13, -30, -28, 3))) if "globe" in f else 9
    low = low * np.clip(orbit, 0, 1)
    f["fat"] = f["fat"] * (1 - low) + low * np.clip(between + 0.8 * ramp((f["skin"] + 9) / 6), 0, 1)


def _add_ears(f: Fields, x: Array, y: Array, z: Array) -> None:
    """Add thin flaps beside the head; the field "skin" grows."""
    if z.max() < -72 or z.min() > 6:
        return
    ax = np.abs(x)
    disc = np.sqrt(((y - 22) / 15) ** 2 + ((z + 34) / 27) ** 2)
    flap = np.maximum(np.abs(ax - 77 - 0.4 * (y - 14)) - 1.6, (disc - 1) * 15)
    rim = np.maximum(np.maximum(disc - 1, 0.72 - disc) * 15, np.abs(ax - 78.5 - 0.4 * (y - 14)) - 2.8)
    flap = np.minimum(flap, rim)
    f["skin"] = np.minimum(f["skin"], flap)
    f["fat"] = np.where(flap < 0, 0.3, f["fat"])


def _upsample(f: Fields, down: sparse.csr_array, across: sparse.csr_array) -> Fields:
    """Every field of a plane from the coarse grid to the fine one."""
    names = list(f)
    h, w = f["x"].shape
    block = np.stack([np.clip(f[name], -300, 400) for name in names])  # (fields, h, w)
    block = (across @ block.reshape(-1, w).T).reshape(across.shape[0], len(names), h)  # (columns, fields, h)
    block = np.ascontiguousarray(block.transpose(2, 1, 0)).reshape(h, -1)
    fine = (down @ block).reshape(-1, len(names), across.shape[0])  # (rows, fields, columns)
    return {name: np.ascontiguousarray(fine[:, i]) for i, name in enumerate(names)}


def _draw_plane(person: Person, f: Fields, out: Fields) -> None:
    """Fill one plane of every array of the volume."""
    edge = 1.2
    out["hu"][:] = _outside(person, f, edge)
    out["depth_mm"][:] = -f["cavity"]
    out["midline_mm"][:] = f["middle"]
    out["tentorium_height_mm"][:] = f["tent"]
    bone = soft(f["bone"], edge)
    out["skull"][:] = bone * soft(f["skin"], edge)
    for name in ("csf", "ventricles"):
        out[name][:] = 0
    index = np.flatnonzero(f["cavity"] < edge)
    if index.size:
        local = {name: value.reshape(-1)[index] for name, value in f.items()}
        hu, csf, ventricle = _brain(person, local, edge)
        inside = soft(local["cavity"], edge)
        flat = out["hu"].reshape(-1)
        flat[index] += inside * (hu - flat[index])
        out["csf"].reshape(-1)[index] = csf * inside
        out["ventricles"].reshape(-1)[index] = ventricle * inside


def _outside(person: Person, f: Fields, edge: float) -> Array:
    """HU of scalp, bone, face and air, with muscle where the brain will be."""
    fat = np.clip(f["fat"], 0, 1) * np.float32(person.subcutaneous)
    hu: Array = np.float32(MUSCLE) + np.float32(FAT - MUSCLE) * fat
    hu += soft(-1.8 - f["skin"], edge) * (np.float32(SKIN) - hu)
    if "globe" in f:
        shell = np.abs(f["globe"] + 0.8) - 0.8
        hu += soft(f["globe"], edge) * (8 - hu)
        hu += soft(shell, edge) * (45 - hu)
    grain = np.zeros_like(hu)
    index = np.flatnonzero(f["bone"] < 0)
    grain.reshape(-1)[index] = person.grain(*(f[name].reshape(-1)[index] for name in "xyz"))
    diploe = np.float32(person.diploe - person.bone) + 130 * grain
    bone: Array = np.float32(person.bone) + diploe * soft(f["bone"] + 2.1, 2.0)
    hu += soft(f["bone"], edge) * (bone - hu)
    if "air" in f:
        hu += soft(f["air"], edge) * (np.float32(AIR) - hu)
    hu += soft(-f["skin"], edge) * (np.float32(AIR) - hu)
    return hu


def _brain(person: Person, f: Fields, edge: float) -> tuple[Array, Array, Array]:
    """HU, share of outer fluid and of ventricle at points (n,) inside the skull."""
    head, maps = person.head, load_maps()
    x, y, z = f["x"], f["y"], f["z"]
    ax = np.abs(f["middle"])
    inner = 1 / np.float32(person.brain_scale)
    points = atlas_points((f["middle"] + f["gx"]) * inner, (y - 4 + f["gy"]) * inner + 4, (z + f["gz"]) * inner)
    fluid, grey = sample_share(maps.fluid, points), sample_share(maps.grey, points)
    wall = sample_distance(maps.ventricle, points)
    size = 1 / np.float32(person.ventricle_scale)
    grown = atlas_points((f["middle"] + f["gx"]) * size, (y - 8 + f["gy"]) * size + 8, (z - 8 + f["gz"]) * size + 8)
    d_ventricle = sample_distance(maps.ventricle, grown) - np.float32(person.ventricle_growth)
    ventricle = soft(d_ventricle, edge)
    outer = fluid * np.clip((wall - 0.5) / 2, 0, 1)
    depth = -f["cavity"]
    place = np.stack([x, y, z]) / np.float32(FOLD_STEP)
    fold = ndimage.map_coordinates(person.folds, place, np.float32, order=1, mode="grid-wrap", prefilter=False)
    own = np.exp(-((fold / 0.28) ** 2)) - 0.3
    outer = outer + np.float32(person.fold_depth) * own * np.clip(1.4 - depth / 13, 0, 1) * (grey > 0.2)
    csf = np.clip((outer - f["from"]) / np.float32(person.fluid_over), 0, 1) * (1 - ventricle)
    grey = np.clip((grey - 0.5) * 1.25 + 0.5, 0, 1)
    for centre, radii in NUCLEI:
        grey = np.maximum(grey, 0.75 * soft(ellipsoid(ax, y, z, centre, radii), 4.0))
    hu = np.float32(head.white) + np.float32(head.grey - head.white) * grey + f["tissue"]
    hu -= np.float32(person.lucency) * np.exp(np.maximum(d_ventricle, 0) * np.float32(-0.13)) * (1 - 0.7 * grey)
    hu += (csf + ventricle) * (np.float32(head.csf) - hu)
    choroid = soft(ellipsoid(ax, y, z, *CHOROID), 2.0) * ventricle
    hu += choroid * (np.float32(person.choroid) - hu)
    _vessels(person, hu, ax, y, z, edge)
    dura, sinus = _dura(person, f, depth, edge)
    hu += dura * (np.float32(head.dura) - hu)
    hu += sinus * (np.float32(person.sinuses) - hu)
    return hu, csf * (1 - dura) * (1 - sinus), ventricle * (1 - dura)


def _vessels(person: Person, hu: Array, ax: Array, y: Array, z: Array, edge: float) -> None:
    low, high = z.min(), z.max()
    for start, end in ARTERIES:
        if high > min(start[2], end[2]) - 4 and low < max(start[2], end[2]) + 4:
            near = np.flatnonzero((ax < max(start[0], end[0]) + 4) & (np.abs(y - (start[1] + end[1]) / 2) < 24))
            share = soft(cone(ax[near], y[near], z[near], start, end), edge)
            hu[near] += share * (np.float32(person.vessels) - hu[near])


def _dura(person: Person, f: Fields, depth: Array, edge: float) -> tuple[Array, Array]:
    """Shares of dura (falx, tentorium) and of the venous sinuses."""
    y, z, middle, tent = f["y"], f["z"], np.abs(f["middle"]), f["tent"]
    callosum = np.minimum((np.sqrt(((y - 4) / 47) ** 2 + ((z - 8) / 27) ** 2) - 1) * 30, 15)
    half = np.float32(0.5 * person.head.dura_thickness) * (0.8 + 0.4 * ramp((y + 30) / 80))
    below = np.clip(-0.5 * tent, 0, 1) * (f["ridge"] > 0)
    falx = np.maximum(np.maximum(middle - half, 7 - callosum), 3 * below)
    notch = (1 - np.sqrt((f["x"] / 19) ** 2 + ((y - 4) / 30) ** 2)) * 19
    edge_of_tent = np.maximum(notch, -f["ridge"] - 2)
    sheet = np.maximum(np.abs(tent) - half, edge_of_tent)
    dura = soft(np.minimum(falx, sheet), edge)
    sagittal = np.maximum(middle - 4.2 + 0.6 * depth, np.maximum(4 - callosum, 2 - tent))
    lateral = np.maximum(np.sqrt(tent * tent + (depth - 1.5) ** 2) - 3.2, 18 - f["ridge"])
    straight = np.maximum(np.sqrt(tent * tent + middle * middle) - 2.0, np.maximum(edge_of_tent, 22 - y))
    return dura, soft(np.minimum(np.minimum(sagittal, lateral), straight), edge)


def voxel_fields() -> tuple[str, ...]:
    """Names of the arrays of a drawn head."""
    return tuple(field.name for field in fields(DrawnVolume))
