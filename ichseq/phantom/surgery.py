"""Traces of surgery and tumours, without blood: flaps and plates of bone, thick dura, air, masses that are dense."""

import numpy as np

from ichseq.phantom.head import draw_waves
from ichseq.phantom.lesions import brain_point, inside
from ichseq.phantom.lookalikes import EDGE, Chances, ball, box_around, draw_by_chance, put
from ichseq.phantom.tissue import soft
from ichseq.phantom.volume import HeadVolume


def craniotomy(rng: np.random.Generator, head: HeadVolume) -> None:
    """A flap of bone with a gap around it, a piece without bone, or holes of a drill."""
    _open(rng, head, str(rng.choice(("flap", "none", "holes"), p=(0.5, 0.2, 0.3))))


def cranioplasty(rng: np.random.Generator, head: HeadVolume) -> None:
    """A plate of metal or resin in place of bone."""
    _open(rng, head, "plate")


def _open(rng: np.random.Generator, head: HeadVolume, kind: str) -> None:
    """Open the skull; beneath, the dura may be thick and the space below it may hold fluid, without any blood."""
    direction = brain_point(rng, 72, 72)
    if direction[2] < -10:
        direction = (direction[0], direction[1], abs(direction[2]))
    radius = rng.uniform(16, 48)
    box = box_around(head, direction, (8 if kind == "holes" else radius) + 26)
    if box is None:
        return
    place = head.place[(slice(None), *box)]
    unit = np.array(direction) / np.linalg.norm(direction)
    along = sum(p * np.float32(u) for p, u in zip(place, unit, strict=True))
    across = np.sqrt(np.maximum(sum(p * p for p in place) - along * along, 0))
    across += 2.5 * draw_waves(rng, 40, 0.8, 4)(*place)
    skull = head.skull[box] * (along > 20) * soft(head.depth_mm[box] - 1, EDGE)
    scar = np.float32(rng.uniform(15, 50))
    if kind == "flap":
        gone = soft(np.abs(across - np.float32(radius)) - rng.uniform(0.6, 2.2), EDGE)
    elif kind in ("none", "plate"):
        gone = soft(across - np.float32(radius), EDGE)
    else:
        gone = soft(across - rng.uniform(5, 8), EDGE)
    put(head, box, gone * skull, scar)
    head.skull[box] *= 1 - gone * (along > 20)
    if kind == "plate":
        # A plate of metal is thin and bright, one of resin as thick as bone.
        metal = rng.random() < 0.4
        thick = 1.2 if metal else rng.uniform(3, 6)
        plate = gone * soft(np.abs(head.depth_mm[box] + np.float32(thick / 2 + 1)) - np.float32(thick / 2), EDGE)
        put(head, box, plate * (along > 20), np.float32(rng.uniform(1500, 3000) if metal else rng.uniform(90, 700)))
    below = head.depth_mm[box] - np.float32(head.edge_mm)
    near = np.clip(1.15 - across / np.float32(radius + 6), 0, 1) * (along > 20) * soft(-head.depth_mm[box], EDGE)
    if rng.random() < 0.4:
        fluid = soft(below - np.float32(rng.uniform(2, 9)) * near, EDGE) * (near > 0.1)
        put(head, box, fluid * np.clip((70 - head.hu[box]) / 20, 0, 1), np.float32(rng.uniform(4, 22)))
    if rng.random() < 0.6:
        dura = soft(np.abs(below - 0.3) - np.float32(rng.uniform(0.4, 1.1)), EDGE) * (near > 0.1)
        put(head, box, dura * np.clip((110 - head.hu[box]) / 30, 0, 1), np.float32(rng.uniform(44, 66)))


def mass(rng: np.random.Generator, head: HeadVolume) -> None:
    """A meningioma at the skull or the falx, as dense as brain, denser or enhanced, calcified now and then."""
    centre = brain_point(rng, 60, 66)
    if rng.random() < 0.3:
        centre = (float(rng.choice((-1, 1)) * rng.uniform(3, 9)), rng.uniform(-60, 55), rng.uniform(30, 62))
    radius, hu = rng.uniform(5, 18), rng.uniform(38, 54) if rng.random() < 0.7 else rng.uniform(54, 88)
    box = box_around(head, centre, 1.3 * radius)
    if box is None:
        return
    place = head.place[(slice(None), *box)]
    gap = np.sqrt(sum((p - np.float32(c)) ** 2 for p, c in zip(place, centre, strict=True)))
    gap += np.float32(0.1 * radius) * draw_waves(rng, 14, 0.7, 4)(*place)
    share = soft(gap - np.float32(radius), 1.5) * inside(head, box)
    put(head, box, share, np.float32(hu))
    if rng.random() < 0.4:
        put(head, box, share * np.clip(draw_waves(rng, 7, 0.7, 5)(*place), 0, 1), np.float32(rng.uniform(100, 400)))


def tumour(rng: np.random.Generator, head: HeadVolume) -> None:
    """A mass in the brain that is dense or enhances, often in a ring, in a field of oedema."""
    centre = brain_point(rng, 18, 58)
    radius, ring = rng.uniform(4, 17), rng.random() < 0.6
    around = rng.uniform(4, 18)
    box = box_around(head, centre, 1.2 * radius + around + 4)
    if box is None:
        return
    place = head.place[(slice(None), *box)]
    gap = np.sqrt(sum((p - np.float32(c)) ** 2 for p, c in zip(place, centre, strict=True)))
    gap += np.float32(0.22 * radius) * draw_waves(rng, max(9.0, radius), 0.8, 5)(*place)
    brain = inside(head, box) * (1 - head.ventricles[box]) * (1 - head.csf[box]) * (head.hu[box] < 70)
    hu = head.hu[box]
    hu -= soft(gap - np.float32(radius + around), 6.0) * brain * np.float32(rng.uniform(5, 13))
    core = soft(gap - np.float32(radius), 1.5) * brain
    put(head, box, core, np.float32(rng.uniform(14, 36) if ring else rng.uniform(42, 72)))
    if ring:
        shell = soft(np.abs(gap - np.float32(radius)) - np.float32(rng.uniform(0.8, 2.2)), 1.5) * brain
        put(head, box, shell, np.float32(rng.uniform(46, 82)))


def air_after_surgery(rng: np.random.Generator, head: HeadVolume) -> None:
    """Air beneath the forehead, where it gathers in a patient on the back, and bubbles of it."""
    side, thick = float(rng.choice((-1, 1))), rng.uniform(2, 9)
    box = box_around(head, (side * 22, -66, 22), 34)
    if box is None:
        return
    x, y, z = head.place[(slice(None), *box)]
    gap = np.sqrt((x - np.float32(side * 22)) ** 2 + (z - 22) ** 2) / 26
    top = np.float32(thick) * np.clip(1 - gap * gap, 0, 1) * (side * x > 0) * (y < -20)
    put(head, box, soft(head.depth_mm[box] - top, EDGE) * inside(head, box) * (top > 0.5), np.float32(-950))
    for _ in range(int(rng.integers(0, 6))):
        point = brain_point(rng, 30, 66)
        ball(rng, head, point, rng.uniform(0.8, 2.5), rng.uniform(-900, -300), 0.1)


CHANCES: Chances = {
    craniotomy: 0.09,
    cranioplasty: 0.02,
    mass: 0.05,
    tumour: 0.05,
    air_after_surgery: 0.04,
}


def draw_surgery(rng: np.random.Generator, head: HeadVolume) -> list[str]:
    """Draw what a head has of these, each by its own chance, into its density and skull; returns their names."""
    return draw_by_chance(rng, head, CHANCES)
