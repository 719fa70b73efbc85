"""What a head may show beside bleeding: calcifications, scars, devices, traces of surgery, contrast, swelling.

Each function puts one thing into the Hounsfield units of a `HeadVolume`, in its place of the standard head, and knows
nothing of bleeding; `draw_lookalikes` draws which a head has, each by its own chance. What is larger stands in
`lesions.py` and `surgery.py`.
"""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np

from ichseq.phantom.anatomy import cone, ellipsoid
from ichseq.phantom.head import Array, draw_waves
from ichseq.phantom.tissue import soft
from ichseq.phantom.volume import HeadVolume

Box = tuple[slice, slice, slice]
Point = tuple[float, float, float]
Chances = dict[Callable[[np.random.Generator, HeadVolume], None], float]
EDGE = 1.2
# Large arteries of one side (x outwards, mm, radius), then the basilar artery and one vertebral artery.
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


def box_around(head: HeadVolume, centre: Point, reach: float) -> Box | None:
    """The part of the grid that holds all places nearer than `reach` mm to a point of the standard head, if any."""
    step = 6
    coarse = head.place[:, :, ::step, ::step]
    margin = reach + 1.5 * step * head.pixel_mm
    planes = [np.float32(margin), np.float32(margin), np.float32(reach + 4)]
    near = np.ones(coarse.shape[1:], bool)
    for axis, value in enumerate(centre):
        near &= np.abs(coarse[axis] - np.float32(value)) < planes[axis] * 1.15
    if not near.any():
        return None
    z, y, x = (np.flatnonzero(near.any(axis=other)) for other in ((1, 2), (0, 2), (0, 1)))
    last = head.hu.shape
    return (
        slice(max(int(z[0]) - 1, 0), int(z[-1]) + 2),
        slice(max(int(y[0]) * step - step, 0), min(int(y[-1] + 2) * step, last[1])),
        slice(max(int(x[0]) * step - step, 0), min(int(x[-1] + 2) * step, last[2])),
    )


def part_of(head: HeadVolume, box: Box) -> HeadVolume:
    """The head within a box, as a view, for fields that would be costly to derive for all of it."""
    arrays = {f.name: getattr(head, f.name) for f in fields(head)}
    cut = {name: value[(..., *box)] for name, value in arrays.items() if name != "positions_mm" and np.ndim(value) > 1}
    return replace(head, positions_mm=head.positions_mm[box[0]], **cut)


def put(head: HeadVolume, box: Box, share: Array, hu: float | np.floating[Any] | Array) -> None:
    """Replace a share of each voxel of a box by something of that density."""
    part = head.hu[box]
    part += share * (hu - part)


def ball(rng: np.random.Generator, head: HeadVolume, centre: Point, radius: float, hu: float, rough: float) -> None:
    """A lump, roughened; the skull stays as it is."""
    box = box_around(head, centre, 1.6 * radius + 3)
    if box is None:
        return
    place = head.place[(slice(None), *box)]
    gap = np.sqrt(sum((p - np.float32(c)) ** 2 for p, c in zip(place, centre, strict=True)))
    if rough:
        gap += np.float32(rough * radius) * draw_waves(rng, 3 * radius + 4, 0.6, 4)(*place)
    share = soft(gap - np.float32(radius), EDGE) * soft(-head.depth_mm[box], EDGE) * (1 - head.skull[box])
    put(head, box, share, np.float32(hu))


def calcified_choroid(rng: np.random.Generator, head: HeadVolume) -> None:
    """Clumps in the atria of the ventricles, dense or faint, on one side or both."""
    sides = (-1, 1) if rng.random() < 0.8 else (int(rng.choice((-1, 1))),)
    hu = float(np.exp(rng.uniform(np.log(46), np.log(420))))
    for side in sides:
        for _ in range(int(rng.integers(1, 4))):
            x, y, z = rng.normal((21, 36, 6), (1.8, 3.0, 2.0))
            ball(
                rng, head, (side * float(x), float(y), float(z)), rng.uniform(1.2, 3.8), hu * rng.uniform(0.6, 1.2), 0.3
            )


def choroid_of_temporal_horn(rng: np.random.Generator, head: HeadVolume) -> None:
    """The plexus of the temporal horns, dense or faint."""
    hu = float(np.exp(rng.uniform(np.log(46), np.log(300))))
    for side in (-1, 1) if rng.random() < 0.6 else (int(rng.choice((-1, 1))),):
        x, y, z = rng.normal((31, 10, -14), 2.0)
        ball(rng, head, (side * float(x), float(y), float(z)), rng.uniform(1.0, 2.6), hu, 0.3)


def calcified_pineal(rng: np.random.Generator, head: HeadVolume) -> None:
    """Midline, above the tectum; the habenula in front of it now and then."""
    x, y, z = rng.normal((0, 25, 1), (0.7, 1.5, 1.2))
    hu = rng.uniform(60, 420)
    ball(rng, head, (float(x), float(y), float(z)), rng.uniform(1.0, 3.6), hu, 0.3)
    if rng.random() < 0.3:
        ball(rng, head, (float(x), float(y) - 6, float(z) + 2), rng.uniform(0.8, 1.6), hu, 0.2)


def calcified_falx(rng: np.random.Generator, head: HeadVolume) -> None:
    """Plaques of bone in the falx, a few or long ones."""
    waves = draw_waves(rng, rng.uniform(18, 45), 1.0, 4)
    for _ in range(int(rng.integers(1, 4))):
        y, z = rng.uniform(-70, 60), rng.uniform(35, 66)
        radius = rng.uniform(4, 22)
        box = box_around(head, (0, y, z), radius)
        if box is None:
            continue
        px, py, pz = head.place[(slice(None), *box)]
        gap = np.sqrt((py - np.float32(y)) ** 2 + (pz - np.float32(z)) ** 2) / np.float32(radius)
        thick = np.float32(rng.uniform(0.7, 2.6)) * np.clip(1.3 - gap + 0.4 * waves(0 * px, py, pz), 0, 1)
        share = soft(part_of(head, box).falx_mm - thick, EDGE) * (thick > 0.1) * soft(2 - head.depth_mm[box], 2.0)
        put(head, box, share, np.float32(rng.uniform(120, 900)))


def calcified_ganglia(rng: np.random.Generator, head: HeadVolume) -> None:
    """Pallidum on both sides, faint or dense; the dentate nuclei now and then."""
    hu, radius = rng.uniform(48, 150), rng.uniform(1.5, 6)
    for side in (-1, 1):
        x, y, z = rng.normal((19, -3, 3), 1.0)
        for _ in range(3):
            dx, dy, dz = rng.normal(0, radius / 2, 3)
            ball(rng, head, (side * float(x + dx / 2), float(y + dy), float(z + dz / 2)), radius * 0.6, hu, 0.5)
        if rng.random() < 0.25:
            ball(rng, head, (side * rng.normal(14, 1), rng.normal(42, 2), -33.0), rng.uniform(2, 5), hu, 0.5)


def calcified_arteries(rng: np.random.Generator, head: HeadVolume) -> None:
    """Plaques in the walls of carotid, vertebral and basilar arteries."""
    places = ((10, -8, -30), (9, -10, -23), (11, -5, -34), (0, 4, -40), (8, 12, -64))
    for x, y, z in places:
        for side in (-1, 1):
            if rng.random() < 0.4:
                dx, dy, dz = rng.normal(0, 1, 3)
                place = side * x + float(dx), y + float(dy), z + float(dz)
                ball(rng, head, place, rng.uniform(0.9, 2.2), rng.uniform(150, 900), 0.3)


def calcified_spots(rng: np.random.Generator, head: HeadVolume) -> None:
    """Single spots anywhere in the brain: old infections, cavernomas, vessels."""
    for _ in range(1 + int(rng.poisson(0.7))):
        direction = rng.standard_normal(3)
        direction *= rng.uniform(12, 62) / np.linalg.norm(direction)
        place = (float(direction[0]), float(1.25 * direction[1]), float(abs(direction[2]) - 12))
        ball(rng, head, place, rng.uniform(1.0, 4.5), float(np.exp(rng.uniform(np.log(48), np.log(600)))), 0.3)


def fill_vessels(rng: np.random.Generator, head: HeadVolume, arteries: float, sinuses: float, dura: float) -> None:
    """Give arteries, venous sinuses, falx and tentorium these densities (those that are brighter already stay)."""
    for start, end in ARTERIES:
        sides = (1, -1) if max(start[0], end[0]) > 0 else (1,)
        for side in sides:
            a, b = (side * start[0], *start[1:]), (side * end[0], *end[1:])
            middle = tuple((u + v) / 2 for u, v in zip(a[:3], b[:3], strict=True))
            box = box_around(
                head, (middle[0], middle[1], middle[2]), float(np.linalg.norm(np.subtract(a, b)[:3])) / 2 + 4
            )
            if box is not None:
                x, y, z = head.place[(slice(None), *box)]
                share = soft(cone(x, y, z, a, b) - 0.2, EDGE) * (1 - head.skull[box])
                part = head.hu[box]
                part += share * np.maximum(np.float32(arteries) - part, 0)
    depth, middle_mm, tent = head.depth_mm, np.abs(head.midline_mm), head.above_tentorium_mm
    x, y, _ = head.place
    ridge = y - 2 - 0.55 * np.abs(x)
    sagittal = np.maximum(middle_mm - 4.2 + 0.6 * depth, 2 - tent)
    lateral = np.maximum(np.sqrt(tent * tent + (depth - 1.5) ** 2) - 3.2, 18 - ridge)
    straight = np.maximum(np.sqrt(tent * tent + middle_mm**2) - 2.0, np.maximum(head.tentorium_mm - 3, 22 - y))
    inside = soft(-depth - 0.5, EDGE)
    share = soft(np.minimum(np.minimum(sagittal, lateral), straight), EDGE) * inside
    head.hu += share * np.maximum(np.float32(sinuses) - head.hu, 0)
    share = soft(np.minimum(head.falx_mm, head.tentorium_mm) - rng.uniform(0.4, 1.3), EDGE) * inside
    head.hu += share * np.maximum(np.float32(dura) - head.hu, 0)


def contrast_medium(rng: np.random.Generator, head: HeadVolume) -> None:
    """Contrast medium in arteries and sinuses, and by less in dura and choroid plexus."""
    arterial = rng.uniform(90, 320)
    fill_vessels(rng, head, arterial, rng.uniform(80, 220), rng.uniform(60, 95))
    for side in (-1, 1):
        ball(rng, head, (21.0 * side, 36.0, 7.0), rng.uniform(3, 5), rng.uniform(60, 110), 0.4)


def dense_vessels(rng: np.random.Generator, head: HeadVolume) -> None:
    """Vessels and sinuses of much haemoglobin, without contrast medium."""
    hu = rng.uniform(52, 70)
    fill_vessels(rng, head, hu, hu + rng.uniform(0, 8), rng.uniform(48, 66))


def dense_artery(rng: np.random.Generator, head: HeadVolume) -> None:
    """One middle cerebral or the basilar artery with a clot in it, with no blood outside of it."""
    start, end = ARTERIES[int(rng.choice((0, 1, 6)))]
    side = float(rng.choice((-1, 1)))
    a, b = (side * start[0], *start[1:3], start[3] + 0.4), (side * end[0], *end[1:3], end[3] + 0.4)
    box = box_around(head, ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2, (a[2] + b[2]) / 2), 18)
    if box is not None:
        x, y, z = head.place[(slice(None), *box)]
        share = soft(cone(x, y, z, a, b), EDGE) * (1 - head.skull[box])
        put(head, box, share, np.float32(rng.uniform(52, 75)))


def catheter(rng: np.random.Generator, head: HeadVolume) -> None:
    """A drain from a hole in the skull into a lateral ventricle, or a thinner probe in the brain."""
    side = float(rng.choice((-1, 1)))
    tip = (side * rng.uniform(3, 9), rng.uniform(-28, 4), rng.uniform(6, 18))
    entry = ((30, -50, 62), (34, 62, 48), (52, 58, 30))[int(rng.choice(3, p=(0.6, 0.2, 0.2)))]
    out = [float(c * s + rng.normal(0, 4)) for c, s in zip(entry, (side, 1, 1), strict=True)]
    radius, hu = rng.uniform(0.9, 1.6), rng.uniform(120, 700)
    middle = ((tip[0] + out[0]) / 2, (tip[1] + out[1]) / 2, (tip[2] + out[2]) / 2)
    box = box_around(head, middle, float(np.linalg.norm(np.subtract(tip, out))) / 2 + 12)
    if box is None:
        return
    x, y, z = head.place[(slice(None), *box)]
    share = soft(cone(x, y, z, (*tip, radius), (out[0], out[1], out[2], radius)), EDGE)
    put(head, box, share, np.float32(hu))
    beyond = (1.25 * out[0], 1.25 * out[1], 1.25 * out[2], 5.5)
    hole = soft(cone(x, y, z, (*tip, 5.5), beyond), EDGE) * head.skull[box]
    put(head, box, hole * soft(head.depth_mm[box] - 1, EDGE), np.float32(30))


def clip(rng: np.random.Generator, head: HeadVolume) -> None:
    """A clip or coils of metal on an artery at the base."""
    x, y, z, _ = ARTERIES[int(rng.integers(len(ARTERIES)))][1]
    side = float(rng.choice((-1, 1)))
    dx, dy, dz = rng.normal(0, 1.5, 3)
    ball(
        rng,
        head,
        (side * x + float(dx), y + float(dy), z + float(dz)),
        rng.uniform(1.2, 4.0),
        rng.uniform(1800, 6000),
        0.5,
    )


def dental_metal(rng: np.random.Generator, head: HeadVolume) -> None:
    """Fillings and crowns; they throw streaks where they are in the field."""
    for _ in range(int(rng.integers(1, 5))):
        angle = rng.uniform(-1.2, 1.2)
        centre = (float(22 * np.sin(angle)), float(-62 - 22 * np.cos(angle)), float(rng.uniform(-84, -76)))
        box = box_around(head, centre, 8)
        if box is not None:
            x, y, z = head.place[(slice(None), *box)]
            gap = ellipsoid(x, y, z, centre, (4, 4, 3))
            put(head, box, soft(gap, EDGE) * (head.hu[box] > -700), np.float32(rng.uniform(3000, 9000)))


CHANCES: Chances = {
    calcified_choroid: 0.6,
    choroid_of_temporal_horn: 0.12,
    calcified_pineal: 0.6,
    calcified_falx: 0.2,
    calcified_ganglia: 0.14,
    calcified_arteries: 0.3,
    calcified_spots: 0.2,
    contrast_medium: 0.04,
    dense_vessels: 0.2,
    dense_artery: 0.04,
    catheter: 0.05,
    clip: 0.03,
    dental_metal: 0.3,
}


def draw_lookalikes(rng: np.random.Generator, head: HeadVolume) -> list[str]:
    """Draw what a head has of these, each by its own chance, into its Hounsfield units; returns their names."""
    return draw_by_chance(rng, head, CHANCES)


def draw_by_chance(rng: np.random.Generator, head: HeadVolume, chances: Chances) -> list[str]:
    """Put in what is drawn, each thing from a random stream of its own, so that none depends on another."""
    drawn = []
    for function, chance in chances.items():
        own = np.random.default_rng(rng.integers(2**62))
        if own.random() < chance:
            function(own, head)
            drawn.append(function.__name__)
    return drawn
