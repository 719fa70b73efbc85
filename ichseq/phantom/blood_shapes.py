"""Bleeding in the brain, in the ventricles and between the folds: where in a volume it lies, and its shapes.

Each shape is a field of which the lowest part, within a room, is filled until the bleed has its volume. Places are
those of the standard head, in mm: x to the left, y to the back, z up.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ichseq.phantom.grid import resized
from ichseq.phantom.head import Array, Waves, draw_waves
from ichseq.phantom.tissue import soft
from ichseq.phantom.volume import HeadVolume

FLUID_KINDS = ("intraventricular", "subarachnoid")
Point = tuple[float, float, float]


@dataclass
class Shape:
    """What a bleed fills, on the head's grid (Z, Y, X).

    `texture` is a smooth field of about -1 to 1 for clots; `oedema` a share; `push` (3, Z, Y, X) in mm.
    """

    form: str
    share: Array
    texture: Array
    oedema: Array | None = None
    push: Array | None = None


def on_coarse(head: HeadVolume, function: Callable[[Array, Array, Array], Array], step_mm: float = 4.0) -> Array:
    """A smooth function of the place, computed on a grid of about `step_mm` and brought to the head's: (Z, Y, X)."""
    _, rows, columns = head.hu.shape
    factor = max(1, int(step_mm / head.pixel_mm))
    if factor == 1:
        return function(*head.place).astype(np.float32)
    places = [resized(p, max(2, rows // factor), max(2, columns // factor), area=True) for p in head.place]
    return resized(function(*places), rows, columns)


def fitted_level(head: HeadVolume, values: Array, room: Array, millilitres: float) -> float:
    """The level below which `values` fill that many millilitres of the room, or 0.85 of it if there is less."""
    values, room = values[:, ::2, ::2], room[:, ::2, ::2]
    weight = (room * head.voxel_ml * 4)[room > 0.05]
    order = np.argsort(values[room > 0.05])
    total = np.cumsum(weight[order], dtype=np.float64)
    if not len(total):
        return -np.inf
    index = int(np.searchsorted(total, min(millilitres, 0.85 * total[-1])))
    return float(values[room > 0.05][order[min(index, len(order) - 1)]])


def clots(rng: np.random.Generator, head: HeadVolume, wavelength: float) -> Array:
    """A smooth field of about -1 to 1, by which blood is uneven."""
    return np.clip(on_coarse(head, draw_waves(rng, wavelength, 0.7, 5)), -1.5, 1.5)


def _aspect(rng: np.random.Generator, spread: float) -> Point:
    x, y, z = np.exp(rng.normal(0, spread, 3))
    return float(x), float(y), float(z)


def _gap(centre: Point, aspect: Point, rough: float, waves: Waves) -> Callable[[Array, Array, Array], Array]:
    """Distance to a point in mm, stretched by `aspect` and roughened by `rough` mm."""

    def gap(x: Array, y: Array, z: Array) -> Array:
        (cx, cy, cz), (wx, wy, wz) = centre, aspect
        distance = np.sqrt(((x - cx) / wx) ** 2 + ((y - cy) / wy) ** 2 + ((z - cz) / wz) ** 2)
        return (distance + np.float32(rough) * waves(x, y, z)).astype(np.float32)

    return gap


def drawn_voxel(rng: np.random.Generator, head: HeadVolume, wanted: NDArray[np.bool_]) -> Point | None:
    """The place of a voxel drawn among those that are wanted."""
    index = np.flatnonzero(wanted[:, ::3, ::3])
    if not len(index):
        return None
    x, y, z = (p[:, ::3, ::3].reshape(-1)[index[rng.integers(len(index))]] for p in head.place)
    return float(x), float(y), float(z)


# Deep places of one side, in the brain: basal ganglia, thalamus; pons and cerebellum.
DEEP = (((24, -4, 4), 0.5), ((11, 11, 8), 0.28), ((4, 14, -32), 0.07), ((24, 52, -36), 0.15))


def _brain_place(rng: np.random.Generator, head: HeadVolume, side: float, form: str) -> Point | None:
    own = (head.brain > 0.7) & (head.midline_mm * side > 4)
    depth, above = head.depth_mm, head.above_tentorium_mm
    if form == "deep":
        (x, y, z), _ = DEEP[int(rng.choice(len(DEEP), p=[chance for _, chance in DEEP]))]
        dx, dy, dz = rng.normal(0, 1, 3) * (3, 6, 5)
        return float(side * x + dx), float(y + dy), float(z + dz)
    if form == "contusion":
        _, y, z = head.place
        # Where the brain meets rough bone: base of the frontal lobe, poles and sides of the temporal lobe.
        near = own & (depth > 2 + head.edge_mm) & (depth < 10) & (above > 2)
        base = near & (((y < -20) & (z < 12)) | ((z < -4) & (z > -35) & (y < 25)))
        return drawn_voxel(rng, head, base if rng.random() < 0.75 else near)
    return drawn_voxel(rng, head, own & (depth > 7) & (depth < 32) & (above > 4))


IN_BRAIN = {"deep": 0.3, "lobar": 0.25, "contusion": 0.18, "spots": 0.18, "infarct": 0.05, "tumour": 0.04}


def intraparenchymal(rng: np.random.Generator, head: HeadVolume, side: float, millilitres: float) -> Shape | None:
    """In the brain: deep, lobar, a contusion near bone, small spots, bleeding into an infarct or into a tumour."""
    form = str(rng.choice(list(IN_BRAIN), p=list(IN_BRAIN.values())))
    if form == "spots":
        return _spots(rng, head, side)
    centre = _brain_place(rng, head, side, "lobar" if form in ("infarct", "tumour") else form)
    if centre is None:
        return None
    if form == "contusion":
        millilitres = min(millilitres * rng.uniform(0.3, 1), 15.0)
    elif form == "deep" and (abs(centre[0]) < 14 or centre[2] < -20):
        millilitres = min(millilitres, 14.0 if centre[2] > -20 else 12.0)
    radius = (millilitres * 1000 * 0.75 / np.pi) ** (1 / 3)
    waves = draw_waves(rng, max(9.0, 1.7 * radius), 1.0, 5)
    rough = radius * rng.uniform(0.1, 0.32)
    values = on_coarse(head, _gap(centre, _aspect(rng, 0.2), rough, waves), 2.5)
    for _ in range(int(rng.integers(1, 5)) if form in ("contusion", "infarct") else int(rng.random() < 0.35)):
        offset = rng.normal(0, 1.3 if form == "contusion" else 0.8, 3) * radius + rng.normal(0, 3, 3)
        other = (centre[0] + offset[0], centre[1] + offset[1], centre[2] + offset[2])
        gap = _gap(other, _aspect(rng, 0.25), rough, waves)
        values = np.minimum(values, on_coarse(head, gap, 2.5) + np.float32(rng.uniform(0, 0.5) * radius))
    room = np.clip(head.intracranial - head.ventricles - 0.6 * head.csf, 0, 1)
    room = room * (head.midline_mm * side > -3) if abs(centre[0]) > 9 else room
    level = fitted_level(head, values, room, millilitres)
    edge = rng.uniform(1.2, 2.6) if form != "infarct" else rng.uniform(3, 7)
    share = soft(values - level, edge) * room
    texture = clots(rng, head, max(8.0, radius))
    if form == "infarct":
        share *= np.float32(rng.uniform(0.5, 0.9))
    elif form == "tumour":
        # Blood in parts of it only.
        share *= np.clip(rng.uniform(0.5, 1.0) + np.float32(0.8) * texture, 0.15, 1)
    ring = rng.uniform(0.5, 7) if form not in ("infarct", "tumour") else rng.uniform(6, 16)
    oedema = soft(values - level - ring, 5.0) * room * (1 - share) if rng.random() < 0.8 else None
    push = _push_from(head, centre, level, rng.uniform(0.2, 0.7)) if form in ("deep", "lobar") and level > 6 else None
    return Shape(form, share, texture, oedema, push)


def _spots(rng: np.random.Generator, head: HeadVolume, side: float) -> Shape | None:
    """One small bleed of 5 to 11 mm, deep or anywhere, or several of 3 to 8 mm, as shearing makes them."""
    several = rng.random() < 0.45
    values: Array | None = None
    largest = 0.0
    for _ in range(int(rng.integers(2, 8)) if several else 1):
        form = str(rng.choice(("deep", "lobar", "contusion"), p=(0.5, 0.3, 0.2)))
        centre = _brain_place(rng, head, side if rng.random() < 0.75 else -side, form)
        if centre is None:
            continue
        radius = rng.uniform(1.6, 4.2) if several else rng.uniform(2.5, 5.5)
        largest = max(largest, radius)
        waves = draw_waves(rng, 8.0, 1.0, 4)
        gap = on_coarse(head, _gap(centre, _aspect(rng, 0.25), 0.15 * radius, waves), 1.5) - np.float32(radius)
        values = gap if values is None else np.minimum(values, gap)
    if values is None:
        return None
    room = np.clip(head.intracranial - head.ventricles - 0.6 * head.csf, 0, 1)
    share = soft(values, 1.5) * room
    oedema = soft(values - rng.uniform(0.5, 4), 4.0) * room * (1 - share) if rng.random() < 0.6 else None
    return Shape("spots", share, clots(rng, head, 8.0), oedema)


def _push_from(head: HeadVolume, centre: Point, radius: float, amount: float) -> Array:
    """The brain around a ball of blood, pushed away from it; less further away, not at the skull."""

    def far(x: Array, y: Array, z: Array) -> Array:
        r = np.sqrt((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2) + 1e-3
        r = np.maximum(r, radius)
        return ((r - np.cbrt(np.maximum(r**3 - amount * radius**3, 0))) / r).astype(np.float32)

    strength = on_coarse(head, far) * np.clip(head.depth_mm / 8, 0, 1)
    x, y, z = head.place
    return np.stack([strength * (x - centre[0]), strength * (y - centre[1]), strength * (z - centre[2])])


def intraventricular(rng: np.random.Generator, head: HeadVolume, side: float, millilitres: float) -> Shape | None:
    """In the ventricles: a layer that has sunk, a little in both horns, a cast, in the third or fourth, or faint."""
    names = ("layer", "horns", "cast", "fourth", "third", "faint")
    form = str(rng.choice(names, p=(0.3, 0.22, 0.23, 0.1, 0.08, 0.07)))
    if form == "horns":
        return _in_the_horns(rng, head)
    room: Array = head.ventricles
    values: Array
    x, _, z = head.place
    if form in ("layer", "cast") and rng.random() < 0.45:
        room = room * np.clip(0.5 + side * x / 4, 0, 1)
    if form == "layer":
        # Supine, blood sinks into the occipital horns; a clot makes its surface uneven.
        bumps = on_coarse(head, draw_waves(rng, 22, rng.uniform(0.3, 2.5), 4))
        values = head.height_along_gravity_mm + bumps
        edge = rng.uniform(1.0, 3.0)
        millilitres = min(millilitres, 10.0)
    else:
        centre = {"fourth": (0.0, 37.0, -33.0), "third": (0.0, 2.0, 2.0)}.get(
            form, (side * rng.uniform(4, 24), rng.uniform(-30, 40), rng.uniform(4, 20))
        )
        if form == "fourth":
            room = room * (z < -12)
        elif form == "third":
            room = room * (np.abs(x) < 9) * (z < 14)
        values = on_coarse(head, _gap(centre, (1, 1, 1), 3.0, draw_waves(rng, 20, 1.0, 4)), 2.5)
        edge = 3.5
    level = fitted_level(head, values, room, millilitres)
    if not np.isfinite(level):
        return None
    share: Array = room * soft(values - level, edge)
    if form == "faint":
        share = room * np.float32(rng.uniform(0.3, 0.6))
    return Shape(form, share.astype(np.float32), clots(rng, head, 14.0))


def _in_the_horns(rng: np.random.Generator, head: HeadVolume) -> Shape | None:
    """A little sediment in both occipital horns, of about the same depth."""
    x, y, _ = head.place
    height, share = head.height_along_gravity_mm, np.zeros_like(head.ventricles)
    millilitres = float(np.exp(rng.uniform(np.log(0.15), np.log(1.6))))
    edge = rng.uniform(0.8, 2.0)
    for side in (-1, 1):
        room = head.ventricles * np.clip(0.5 + np.float32(side) * x / 4, 0, 1) * (y > 15)
        level = fitted_level(head, height, room, millilitres * rng.uniform(0.5, 1.5))
        if np.isfinite(level):
            share += room * soft(height - np.float32(level), edge)
    return Shape("horns", np.minimum(share, 1).astype(np.float32), clots(rng, head, 14.0))


# Cisterns and fissures of one side: where blood of a burst vessel is seen.
CISTERNS = {
    "basal": ((0, -6, -17), (1.3, 1.1, 0.7)),
    "ambient": ((8, 14, -8), (1.3, 1.2, 0.9)),
    "sylvian": ((42, -14, 0), (0.7, 1.3, 0.9)),
    "tentorium": ((14, 40, 2), (1.2, 1.2, 0.5)),
    "interhemispheric": ((0, -38, 25), (0.35, 1.3, 1.3)),
}


def subarachnoid(rng: np.random.Generator, head: HeadVolume, side: float, millilitres: float) -> Shape | None:
    """In the fluid around the brain: of a cistern or fissure, of one to few folds or a region's, or everywhere."""
    names = [*CISTERNS, "convexity", "sulci", "diffuse"]
    form = str(rng.choice(names, p=(0.14, 0.07, 0.16, 0.06, 0.09, 0.16, 0.21, 0.11)))
    waves = draw_waves(rng, 26, 1.0, 5)
    if form in ("convexity", "sulci"):
        near = (head.depth_mm > 2 + head.edge_mm) & (head.depth_mm < 16) & (head.midline_mm * side > 0)
        near &= head.place[2] > (40 if rng.random() < 0.45 else -25)
        # In the clearest folds of the region, which are faint in a young head.
        near &= head.csf > (0.5 * float(np.quantile(head.csf[near], 0.99)) if near.any() else 0)
        centre = drawn_voxel(rng, head, near)
        parts = [] if centre is None else [(centre, (1.0, 1.0, 1.0))]
    elif form == "diffuse":
        parts = [((s * x, y, z), aspect) for (x, y, z), aspect in CISTERNS.values() for s in (-1, 1)]
    else:
        (x, y, z), aspect = CISTERNS[form]
        jitter = rng.normal(0, 3, 3)
        parts = [((side * x + jitter[0], y + jitter[1], z + jitter[2]), aspect)]
    if not parts:
        return None
    gaps = [on_coarse(head, _gap(centre, aspect, 5.0, waves)) for centre, aspect in parts]
    values = np.minimum.reduce(gaps)
    gain = rng.uniform(1.8, 3.5) if form == "sulci" else rng.uniform(1.0, 2.2)
    wide = ndimage.grey_dilation(head.csf, size=(1, 3, 3)) if head.pixel_mm < 1.5 else head.csf
    room = np.clip(gain * (0.75 * head.csf + 0.25 * wide), 0, 1) * head.intracranial * (1 - head.ventricles)
    room = np.where(room > 0.12, room, 0).astype(np.float32)
    level = fitted_level(head, values, room, millilitres)
    if not np.isfinite(level):
        return None
    level, edge, full = float(np.clip(level, 7, 60)), 9.0, rng.uniform(0.6, 1.0)
    if form == "sulci":
        level, edge, full = rng.uniform(10, 26), 4.0, rng.uniform(0.8, 1.0)
    share = room * soft(values - level, edge) * np.float32(full)
    return Shape(form, share, clots(rng, head, 16.0))
