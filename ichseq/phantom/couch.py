"""What lies around a head in the picture: table, head holder, pad, wires."""

from dataclasses import dataclass

import numpy as np

from ichseq.phantom.head import Array
from ichseq.phantom.tissue import AIR

SHAPES = ("none", "arc", "cup", "trough", "flat", "pads")
CHANCES = (0.12, 0.25, 0.25, 0.18, 0.1, 0.1)


@dataclass(frozen=True)
class Couch:
    """A holder's cross-section, the same in all slices. Lengths in mm, from the middle of the head.

    Attributes:
        shape: one of `SHAPES`.
        bottom: where its lowest inner point lies.
        radius: of its arc, or half of its width.
        wall: its thickness.
        hu: of the wall.
        core: HU within a double wall, or None for a single one.
        reach: how far its sides come up, from the bottom.
        shift: to the left.
        pad: HU of a pad between head and holder, AIR for none.
        wires: places (x, y) of wires and tubes.
    """

    shape: str
    bottom: float
    radius: float
    wall: float
    hu: float
    core: float | None
    reach: float
    shift: float
    pad: float
    wires: tuple[tuple[float, float], ...]


def draw_couch(rng: np.random.Generator) -> Couch:
    """Draw a holder."""
    wires = []
    for _ in range(int(rng.poisson(0.5))):
        angle = rng.uniform(0, 2 * np.pi)
        wires.append((float(112 * np.cos(angle)), float(125 * np.sin(angle))))
    return Couch(
        shape=str(rng.choice(SHAPES, p=CHANCES)),
        bottom=rng.uniform(103, 128),
        radius=rng.uniform(92, 135),
        wall=rng.uniform(1.0, 4.5),
        hu=rng.uniform(-350, 350),
        core=float(rng.uniform(-980, -800)) if rng.random() < 0.35 else None,
        reach=rng.uniform(25, 150),
        shift=rng.normal(0, 5),
        pad=float(rng.uniform(-995, -900)) if rng.random() < 0.6 else AIR,
        wires=tuple(wires),
    )


def add_couch(couch: Couch, image: Array, x: Array, y: Array) -> None:
    """Put the holder around what is in an image already.

    Args:
        couch: the holder.
        image: (rows, columns), HU; written to.
        x: (columns,), mm from the middle of the head to the left.
        y: (rows,), mm from the middle of the head to the back.
    """
    x, y = x[None, :] - np.float32(couch.shift), y[:, None]
    distance = _inner_distance(couch, x, y)
    around = np.full_like(image, AIR)
    up = couch.bottom - y
    if couch.pad > AIR and couch.shape not in ("none", "pads"):
        around = np.where((distance < 0) & (up < 0.75 * couch.reach) & (up > 0), np.float32(couch.pad), around)
    shell = np.abs(distance - couch.wall / 2) - couch.wall / 2
    sides = up - couch.reach
    if couch.core is not None:
        body = np.abs(distance - 6 - couch.wall) - 6 - couch.wall
        core = np.maximum(body + couch.wall, sides)
        around += np.clip(0.5 - np.maximum(body, sides), 0, 1) * (np.float32(couch.hu) - around)
        around += np.clip(0.5 - core, 0, 1) * (np.float32(couch.core) - around)
    else:
        around += np.clip(0.5 - np.maximum(shell, sides), 0, 1) * (np.float32(couch.hu) - around)
    for wx, wy in couch.wires:
        spot = np.clip(1.8 - np.hypot(x - wx, y - wy), 0, 1)
        around += spot * (np.float32(900) - around)
    np.copyto(image, np.maximum(image, around), where=image < -500)


def _inner_distance(couch: Couch, x: Array, y: Array) -> Array:
    """Signed distance to the holder's inner side, negative where the head lies."""
    r = np.float32(couch.radius)
    if couch.shape == "arc":
        return np.sqrt(x * x + (y - couch.bottom + 1.25 * r) ** 2) - 1.25 * r
    if couch.shape == "cup":
        return np.maximum(np.abs(x) - r, np.where(y > couch.bottom - r, np.hypot(x, y - couch.bottom + r) - r, -r))
    if couch.shape == "trough":
        return np.maximum((np.abs(x) - 0.8 * r) * 0.8 + 0.35 * (y - couch.bottom), y - couch.bottom)
    if couch.shape == "flat":
        return y - couch.bottom + 0 * x
    if couch.shape == "pads":
        # Two rods below the head; far away from them the distance is large.
        return 26 - np.hypot(np.abs(x) - 0.5 * r, (y - couch.bottom - 20) * 1.8)
    return np.full(np.broadcast_shapes(x.shape, y.shape), -300, np.float32)
