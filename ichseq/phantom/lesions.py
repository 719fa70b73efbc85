"""Old and new damage that is no bleeding: infarcts, scars, cysts, swelling of the scalp."""

import numpy as np

from ichseq.phantom.head import Array, draw_waves
from ichseq.phantom.lookalikes import EDGE, Box, Chances, Point, box_around, draw_by_chance, put
from ichseq.phantom.tissue import soft
from ichseq.phantom.volume import HeadVolume


def inside(head: HeadVolume, box: Box) -> Array:
    """Share of each voxel of a box that lies inside the skull."""
    return soft(-head.depth_mm[box], EDGE)


def brain_point(rng: np.random.Generator, inner: float, outer: float) -> Point:
    """A place between two distances from the centre of the standard head, most often above the tentorium, mm."""
    direction = rng.standard_normal(3)
    direction[2] = abs(direction[2]) * rng.choice((1, 1, 1, -0.6))
    direction *= rng.uniform(inner, outer) / np.linalg.norm(direction)
    return float(direction[0]), float(4 + 1.25 * direction[1]), float(direction[2] + 2)


def infarct(rng: np.random.Generator, head: HeadVolume) -> None:
    """A part of the brain, to its surface, that is darker: faint and soft when new, like fluid when old."""
    centre, radius = brain_point(rng, 35, 62), rng.uniform(8, 34)
    box = box_around(head, centre, 1.4 * radius)
    if box is None:
        return
    place = head.place[(slice(None), *box)]
    gap = np.sqrt(sum((p - np.float32(c)) ** 2 for p, c in zip(place, centre, strict=True)))
    gap += np.float32(0.3 * radius) * draw_waves(rng, 26, 0.7, 5)(*place)
    side = np.clip(0.5 + head.midline_mm[box] * np.float32(np.sign(centre[0])) / 2, 0, 1)
    share = soft(gap - np.float32(radius), rng.uniform(2, 7)) * inside(head, box) * side
    hu = head.hu[box]
    if rng.random() < 0.5:
        hu -= share * np.float32(rng.uniform(3, 12)) * (hu < 60)
        return
    # What is left of an old one is fluid, the sulci about it with it.
    put(head, box, share * np.clip((70 - hu) / 20, 0, 1), np.float32(rng.uniform(6, 20)))


def lacunes(rng: np.random.Generator, head: HeadVolume) -> None:
    """Small old infarcts about the basal ganglia and in the white matter."""
    for _ in range(int(rng.integers(1, 6))):
        side = float(rng.choice((-1, 1)))
        x, y, z = rng.normal((21, -2, 8), (6, 12, 8))
        radius = rng.uniform(1.5, 5)
        box = box_around(head, (side * float(x), float(y), float(z)), radius + 4)
        if box is not None:
            place = head.place[(slice(None), *box)]
            gap = np.sqrt(sum((p - np.float32(c)) ** 2 for p, c in zip(place, (side * x, y, z), strict=True)))
            put(head, box, soft(gap - np.float32(radius), 2.0) * (head.hu[box] < 60), np.float32(rng.uniform(8, 24)))


def white_matter_disease(rng: np.random.Generator, head: HeadVolume) -> None:
    """Dark patches in the white matter above and about the ventricles."""
    amount = np.float32(rng.uniform(2, 9))
    box = box_around(head, (0, 5, 24), 62)
    if box is None:
        return
    x, y, z = head.place[(slice(None), *box)]
    waves = draw_waves(rng, 26, 0.5, 5)(x, y, z)
    near = np.abs(np.abs(x) - 24) / 15 + np.abs(z - 24) / 16 + np.maximum(np.abs(y - 5) - 34, 0) / 14
    share = np.clip(1.25 - near + waves, 0, 1) * np.clip((head.depth_mm[box] - 14) / 6, 0, 1)
    hu = head.hu[box]
    hu -= amount * share * (1 - head.csf[box]) * (1 - head.ventricles[box]) * (hu < 60)


def wide_fluid(rng: np.random.Generator, head: HeadVolume) -> None:
    """A hygroma or a cyst: fluid between skull and brain, of the density of fluid."""
    side = float(rng.choice((-1, 1)))
    places = ((46, -30, -22, 17, 22), (48, -20, 30, 9, 60), (8, 62, -46, 12, 26), (46, -40, 36, 7, 55))
    x, y, z, thick, wide = places[int(rng.integers(len(places)))]
    box = box_around(head, (side * x, y, z), wide)
    if box is None:
        return
    place = head.place[(slice(None), *box)]
    gap = np.sqrt(sum((p - np.float32(c)) ** 2 for p, c in zip(place, (side * x, y, z), strict=True))) / np.float32(
        wide
    )
    thickness = np.float32(thick * rng.uniform(0.4, 1)) * np.clip(1 - gap * gap, 0, 1)
    share = soft(head.depth_mm[box] - thickness, EDGE) * inside(head, box) * (thickness > 0.5)
    put(head, box, share * np.clip((70 - head.hu[box]) / 20, 0, 1), np.float32(rng.uniform(3, 14)))


def wide_spaces(rng: np.random.Generator, head: HeadVolume) -> None:
    """Fluid around a shrunken brain, or hygromas, on both sides and most of all in front."""
    box = box_around(head, (0, -10, 30), 84)
    if box is None:
        return
    x, y, z = head.place[(slice(None), *box)]
    waves = draw_waves(rng, 50, 0.35, 4)(x, y, z)
    front = np.clip(1 - (y - np.float32(rng.uniform(-40, 40))) / 50, 0, 1)
    own = np.clip(0.5 + x / 8, 0, 1)
    uneven = np.float32(rng.uniform(0.3, 1))
    thickness = np.float32(rng.uniform(3, 10)) * front * np.clip((z + 5) / 15, 0, 1) * np.clip(1 + waves, 0, 2)
    thickness *= own + (1 - own) * uneven
    depth = head.depth_mm[box] - np.float32(head.edge_mm)
    share = soft(depth - thickness, EDGE) * inside(head, box) * (thickness > 0.8)
    put(head, box, share * np.clip((70 - head.hu[box]) / 20, 0, 1), np.float32(rng.uniform(3, 13)))


def thick_slices(rng: np.random.Generator, head: HeadVolume) -> None:
    """Bone of the slices above and below, seen as a haze: on roofs of the orbits, at ridges and at the vertex."""
    if len(head.hu) < 3:
        return
    bone = np.clip(head.hu - 60, 0, 900)
    beside = np.maximum(np.concatenate([bone[1:], bone[-1:]]), np.concatenate([bone[:1], bone[:-1]]))
    head.hu += np.float32(rng.uniform(0.03, 0.2)) * np.maximum(beside - bone, 0) * (head.hu > -200)


def scalp_swelling(rng: np.random.Generator, head: HeadVolume) -> None:
    """A swollen or bruised piece of the scalp, which grows outwards; no bleeding in the sense of the labels."""
    direction = brain_point(rng, 82, 82)
    centre = (direction[0], direction[1], max(direction[2], -12.0))
    wide, thick = rng.uniform(16, 48), rng.uniform(2, 13)
    box = box_around(head, centre, wide + 20)
    if box is None:
        return
    place, hu, depth = head.place[(slice(None), *box)], head.hu[box], head.depth_mm[box]
    gap = np.sqrt(sum((p - np.float32(c)) ** 2 for p, c in zip(place, centre, strict=True))) / np.float32(wide)
    tissue = (hu > -300) & (depth < 0) & (gap < 0.6)
    if not tissue.any():
        return
    surface = np.float32(np.quantile(-depth[tissue], 0.93))
    profile = np.clip(1 - gap * gap, 0, 1)
    outside = soft(-depth - surface - np.float32(thick) * profile, 2.0) * (depth < -1) * (profile > 0.02)
    swollen = outside * (1 - head.skull[box]) * np.clip(2 * profile, 0, 1) * (hu < 100)
    put(head, box, swollen * rng.uniform(0.6, 1), np.float32(rng.uniform(15, 68)))


def thick_inner_table(rng: np.random.Generator, head: HeadVolume) -> None:
    """Thickened bone inside the forehead, on both sides of the midline."""
    box = box_around(head, (0, -62, 22), 52)
    if box is None:
        return
    x, y, z = head.place[(slice(None), *box)]
    bumps = np.float32(rng.uniform(2, 6)) * np.clip(0.6 + draw_waves(rng, 20, 0.6, 5)(x, y, z), 0, 1.5)
    thickness = bumps * np.clip((-y - 40) / 14, 0, 1) * np.clip((np.abs(x) - 4) / 6, 0, 1) * np.clip((z - 2) / 10, 0, 1)
    share = soft(head.depth_mm[box] - thickness, EDGE) * inside(head, box) * (thickness > 0.3)
    put(head, box, share, np.float32(rng.uniform(700, 1300)))


def opaque_sinus(rng: np.random.Generator, head: HeadVolume) -> None:
    """A sinus or mastoid cells full of fluid or mucosa."""
    places = ((27, -60, -60, 19), (0, -18, -41, 14), (56, 32, -38, 17), (8, -52, -38, 16))
    x, y, z, radius = places[int(rng.integers(len(places)))]
    side = float(rng.choice((-1, 1)))
    box = box_around(head, (side * x, y, z), radius)
    if box is None:
        return
    place = head.place[(slice(None), *box)]
    gap = np.sqrt(sum((p - np.float32(c)) ** 2 for p, c in zip(place, (side * x, y, z), strict=True)))
    air = np.clip((-300 - head.hu[box]) / 500, 0, 1) * (gap < radius)
    level = np.clip((place[1] - np.float32(y + rng.uniform(-radius, 0.4 * radius))) / 2, 0, 1)
    put(head, box, air * level, np.float32(rng.uniform(5, 50)))


CHANCES: Chances = {
    infarct: 0.16,
    lacunes: 0.15,
    white_matter_disease: 0.25,
    wide_fluid: 0.08,
    wide_spaces: 0.1,
    thick_slices: 0.3,
    scalp_swelling: 0.15,
    thick_inner_table: 0.05,
    opaque_sinus: 0.25,
}


def draw_lesions(rng: np.random.Generator, head: HeadVolume) -> list[str]:
    """Draw what a head has of these, each by its own chance, into its density and skull; returns their names."""
    return draw_by_chance(rng, head, CHANCES)
