"""Bleeding between skull and brain: lenses and crescents under the inner table, films along falx and tentorium."""

import numpy as np

from ichseq.phantom.blood_shapes import Shape, clots, fitted_level, on_coarse
from ichseq.phantom.head import Array, Waves, draw_waves
from ichseq.phantom.tissue import soft
from ichseq.phantom.volume import HeadVolume

REACH_MM = 28.0
THICKEST_MM = 32.0
SKULL_EDGE_MM = 4.0


def _surface(x: Array, y: Array, z: Array) -> tuple[Array, Array, Array]:
    """The point of the standard inner table that a point lies under, seen from the centre, mm."""
    q = np.sqrt((x / 68) ** 2 + ((y - 4) / 86) ** 2 + (z / np.where(z > 0, 76, 90)) ** 2)
    out = 1 / np.maximum(q, 0.3)
    return x * out, (y - 4) * out + 4, z * out


def _centre(side: float, angle: float, high: float) -> tuple[float, float, float]:
    """A point of the standard inner table: `angle` towards the back, `high` towards the vertex, radians."""
    flat = np.cos(high)
    return side * np.cos(angle) * flat * 68, 4 + 86 * np.sin(angle) * flat, 76 * np.sin(high)


def epidural(rng: np.random.Generator, head: HeadVolume, side: float, millilitres: float) -> Shape | None:
    """A lens under the inner table, most often of the temple; it may cross the midline at the vertex."""
    place = str(rng.choice(("temporal", "frontal", "parietal", "posterior fossa"), p=(0.5, 0.18, 0.2, 0.12)))
    angle, high = {
        "temporal": (rng.normal(0.0, 0.3), rng.normal(0.05, 0.2)),
        "frontal": (rng.normal(-0.95, 0.25), rng.uniform(0.0, 0.7)),
        "parietal": (rng.normal(0.5, 0.35), rng.uniform(0.3, 0.95)),
        "posterior fossa": (rng.normal(0.95, 0.25), rng.uniform(-0.6, -0.3)),
    }[place]
    cx, cy, cz = _centre(side, angle, high)
    radius = rng.uniform(10, 14) * millilitres**0.34 + 4
    stretch = np.exp(rng.normal(0, 0.18, 3))
    waves = draw_waves(rng, 35, 1.0, 4)

    outwards = np.array([cx, cy - 4, cz]) / np.linalg.norm([cx, cy - 4, cz])

    def profile(x: Array, y: Array, z: Array) -> Array:
        # Across the axis of the lens, and not along the skull: so its inner side bulges into the brain.
        along = x * outwards[0] + (y - 4) * outwards[1] + z * outwards[2]
        gaps = [p - along * n for p, n in zip((x, y - 4, z), outwards, strict=True)]
        away = sum((gap / s) ** 2 for gap, s in zip(gaps, stretch, strict=True)) / radius**2
        lens = np.maximum(1 - away * (1 + 0.2 * waves(x, y, z)), 0) * (along > 15)
        return (lens**0.75).astype(np.float32)

    return _filled(rng, head, place, on_coarse(head, profile), head.intracranial, millilitres)


def subdural(rng: np.random.Generator, head: HeadVolume, side: float, millilitres: float) -> Shape | None:
    """A crescent or a thin film over one half, on both halves, or a film along the falx or the tentorium.

    A crescent often goes on along the falx or the tentorium.
    """
    names = ("crescent", "film", "falx", "tentorium", "both", "posterior fossa")
    form = str(rng.choice(names, p=(0.35, 0.23, 0.19, 0.11, 0.08, 0.04)))
    if form in ("falx", "tentorium"):
        return _along_sheet(rng, head, form, side, min(millilitres, 25.0))
    waves = draw_waves(rng, rng.uniform(30, 60), 1.0, 4)
    low, room = -22.0, head.intracranial
    if form == "posterior fossa":
        centre, radius = _centre(side, rng.normal(0.9, 0.3), rng.uniform(-0.6, -0.3)), rng.uniform(20, 35)
        low, room = -75.0, room * (head.above_tentorium_mm < -2)
    else:
        centre = _centre(side, rng.normal(0.15, 0.55), rng.uniform(-0.05, 0.8))
        radius = rng.uniform(17, 30) * millilitres**0.28 if form != "film" else rng.uniform(24, 75)
        room = room * (head.above_tentorium_mm > 1)

    def crescent(x: Array, y: Array, z: Array) -> Array:
        px, py, pz = _surface(x, y, z)
        away = np.sqrt(
            (np.abs(px) - abs(centre[0])) ** 2
            + (py - centre[1]) ** 2
            + (pz - centre[2]) ** 2
            + (0 if form == "both" else 1) * np.minimum(side * px, 0) ** 2
        )
        profile = np.exp(-((away / radius) ** 3)) * (1 + 0.35 * waves(px, py, pz))
        own = 1.0 if form == "both" else np.clip(0.5 + side * x / 8, 0, 1)
        return (np.clip(profile, 0, 1.4) * own * np.clip((z - low) / 8, 0, 1)).astype(np.float32)

    thickness = rng.uniform(2.2, 4.8) if form == "film" else None
    shape = _filled(rng, head, form, on_coarse(head, crescent), room, millilitres, thickness)
    if shape is not None and form != "posterior fossa" and rng.random() < 0.3:
        sheet = str(rng.choice(("falx", "tentorium")))
        further = _along_sheet(rng, head, sheet, side, min(0.3 * millilitres, 8.0))
        if further is not None:
            np.maximum(shape.share, further.share, out=shape.share)
    return shape


def _filled(
    rng: np.random.Generator,
    head: HeadVolume,
    form: str,
    profile: Array,
    room: Array,
    millilitres: float,
    thickness_mm: float | None = None,
) -> Shape | None:
    """Blood under the inner table, as thick as a multiple of the profile; it pushes the brain inwards.

    The multiple is `thickness_mm`, or what gives the bleed its millilitres. It is counted from where the skull's white
    edge ends in the picture, since a reader sees nothing of what lies within that edge.
    """
    depth = head.depth_mm - np.float32(head.edge_mm)
    room = room * (profile > 0.05) * (depth < THICKEST_MM)
    level = thickness_mm or fitted_level(head, depth / np.maximum(profile, 0.05), room * (depth > 0), millilitres)
    if not np.isfinite(level):
        return None
    thickness = np.float32(max(level, 2.2)) * profile
    share = soft(depth - thickness, 1.3) * room * np.clip(thickness / 0.8 - 0.5, 0, 1)
    push = _inwards(head, thickness) if level > 3 else None
    return Shape(form, share.astype(np.float32), clots(rng, head, rng.uniform(9, 25)), None, push)


def _inwards(head: HeadVolume, thickness: Array) -> Array:
    """The brain pushed away from the skull: right below the blood by its thickness, less further in."""
    x, y, z = head.place
    below = np.maximum(head.depth_mm - thickness, 0)
    # Nothing is taken from the skull or from its blurred edge.
    amount = np.minimum(thickness, np.maximum(head.depth_mm - SKULL_EDGE_MM, 0)) * np.exp(-below / REACH_MM)
    distance = np.sqrt(x * x + (y - 4) ** 2 + z * z) + 10
    return np.stack([-amount * x / distance, -amount * (y - 4) / distance, -amount * z / distance]).astype(np.float32)


def _along_sheet(
    rng: np.random.Generator, head: HeadVolume, form: str, side: float, millilitres: float
) -> Shape | None:
    """A film on one face of the falx or of the tentorium, or on both of the falx; short and thick or long and thin."""
    x = head.place[0]
    across: Array
    if form == "falx":
        beside = np.abs(head.midline_mm)
        across, sheet = head.midline_mm * np.float32(side), head.falx_mm <= np.maximum(beside, 1) + 0.5
        if rng.random() < 0.3:
            across = beside
        centre = (0.0, rng.uniform(-60, 75), rng.uniform(15, 60))
    else:
        up = head.above_tentorium_mm
        across, sheet = up * (1 if rng.random() < 0.85 else -1), head.tentorium_mm <= np.maximum(np.abs(up), 1) + 0.5
        sheet &= x * side > 1
        centre = (side * rng.uniform(12, 35), rng.uniform(25, 60), 0.0)
    waves: Waves = draw_waves(rng, 25, 1.0, 4)
    radius = rng.uniform(22, 85 if form == "falx" else 55)

    def profile(px: Array, py: Array, pz: Array) -> Array:
        gap = np.sqrt(
            (py - centre[1]) ** 2 + (pz - centre[2]) ** 2 + (0 if form == "falx" else 1) * (px - centre[0]) ** 2
        )
        return np.clip(np.exp(-((gap / radius) ** 3)) * (1 + 0.3 * waves(px, py, pz)), 0, 1.3).astype(np.float32)

    weight = on_coarse(head, profile)
    room = head.intracranial * sheet * (weight > 0.08) * (across > -0.5)
    level = fitted_level(head, np.maximum(across, 0) / np.maximum(weight, 0.08), room, millilitres)
    if not np.isfinite(level):
        return None
    thickness = np.float32(np.clip(level, 1.8, 9.0)) * weight
    share = soft(across - thickness, 1.2) * soft(-across - 0.2, 1.0) * room * np.clip(thickness / 0.8 - 0.5, 0, 1)
    return Shape(form, share.astype(np.float32), clots(rng, head, 12.0))
