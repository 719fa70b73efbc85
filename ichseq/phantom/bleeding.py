"""The five kinds of bleeding: who has which, where, how large, and the fields that shape them.

What a patient has follows from seed, part and number alone. In every ten patients in a row five bleed, one of them with
each kind as its first; others join as they do in life (a bleed in the brain breaks into a ventricle, a fracture comes
with contusions). So of 60 patients 30 bleed, each kind in six or more, and five folds can each have every label.

How enriched that is (240 patients of 128 pixels, seed 0, against the RSNA 2019 training slices): any 0.184 of slices
against 0.144 (1.3 times); epidural 0.031 against 0.0041 (8 times, for it is the rare one); intraparenchymal 0.042
against 0.048, intraventricular 0.029 against 0.035, subarachnoid 0.041 against 0.048, subdural 0.074 against 0.063.
"""

from dataclasses import dataclass, replace

import numpy as np

from ichseq.labels import LABELS
from ichseq.phantom.anatomy import Fields, head_fields, vault
from ichseq.phantom.head import Array, Head, Waves, draw_waves
from ichseq.phantom.tissue import Parts, cut_parts, soft

KINDS = LABELS[:5]
JOINS = {
    "epidural": {"subarachnoid": 0.3, "intraparenchymal": 0.3, "subdural": 0.2},
    "intraparenchymal": {"intraventricular": 0.35, "subarachnoid": 0.25},
    "intraventricular": {"intraparenchymal": 0.45, "subarachnoid": 0.25},
    "subarachnoid": {"intraventricular": 0.3, "intraparenchymal": 0.2, "subdural": 0.2},
    "subdural": {"subarachnoid": 0.35, "intraparenchymal": 0.2},
}
# Millilitres of a patient's first bleed; the logarithm is drawn, with more large ones than small.
VOLUMES = {
    "epidural": (2.5, 80),
    "intraparenchymal": (1.0, 50),
    "intraventricular": (1.2, 25),
    "subarachnoid": (2.0, 25),
    "subdural": (6.0, 110),
}
HU = {
    "epidural": (60, 80),
    "intraparenchymal": (58, 85),
    "intraventricular": (54, 78),
    "subarachnoid": (60, 78),
    "subdural": (60, 80),
}
# Basal ganglia, thalamus, two lobes, frontal and temporal base (contusions), cerebellum, pons: place in mm, chance, and
# the most millilitres that fit there.
PLACES = (
    ((24, -4, 4), 0.22, 50),
    ((11, 11, 8), 0.14, 20),
    ((36, -20, 38), 0.15, 50),
    ((38, 34, 28), 0.17, 50),
    ((24, -50, -6), 0.11, 25),
    ((46, -12, -26), 0.09, 15),
    ((24, 52, -36), 0.08, 15),
    ((4, 14, -32), 0.04, 5),
)


@dataclass(frozen=True)
class Bleed:
    """One bleed: its kind and HU, where it sits (mm, standard head), and how its border runs.

    `level` is what grows with the volume: a radius, a thickness or the height of a fluid level, mm.
    """

    kind: str
    volume: float
    hu: float
    centre: tuple[float, float, float]
    aspect: tuple[float, float, float]
    radius: float
    waves: Waves
    layered: bool = False
    along_falx: bool = False
    oedema: float = 0.0
    level: float = 0.0


def draw_kinds(seed: int, part: int, number: int) -> list[str]:
    """Kinds of bleeding that patient `number` of the part has, the first one first; empty for half of the patients."""
    order = np.random.default_rng([seed, part, number // 10, 1]).permutation(10)
    place = int(order[number % 10])
    if place >= len(KINDS):
        return []
    rng = np.random.default_rng([seed, part, number, 2])
    first = KINDS[place]
    return [first] + [kind for kind, chance in JOINS[first].items() if rng.random() < chance]


def draw_bleeds(rng: np.random.Generator, kinds: list[str]) -> list[Bleed]:
    """Draw every bleed of a patient, their levels still open (see `fit_levels`)."""
    side = float(rng.choice((-1, 1)))
    bleeds = []
    for first, kind in zip([True] + [False] * 9, kinds, strict=False):
        low, high = VOLUMES[kind]
        # What joins another bleed is smaller.
        volume = low * ((high if first else 0.35 * high) / low) ** rng.beta(1.5, 1.1)
        extra = 1 if kind == "intraparenchymal" and rng.random() < 0.25 else 0
        for i in range(1 + extra):
            bleeds.append(_draw_bleed(rng, kind, max(low, volume * 0.4**i), side if rng.random() < 0.7 else -side))
    return bleeds


def _draw_bleed(rng: np.random.Generator, kind: str, volume: float, side: float) -> Bleed:
    centre, radius, aspect = (0.0, 0.0, 0.0), 0.0, (1.0, 1.0, 1.0)
    if kind in ("epidural", "subdural"):
        radius = (11.0 if kind == "epidural" else 13.0) * volume**0.33
        angle = rng.normal(0.15, 0.55)
        high = rng.uniform(-0.05, 0.75)
        centre = (side * np.cos(angle) * np.cos(high) * 68, 4 + 86 * np.sin(angle) * np.cos(high), 76 * np.sin(high))
        aspect = (1.0, rng.uniform(0.75, 1.1), rng.uniform(0.85, 1.25))
    elif kind == "intraparenchymal":
        centre, most = _brain_place(rng, side)
        volume = min(volume, most)
        aspect = tuple(np.exp(rng.normal(0, 0.16, 3)))
    elif kind == "intraventricular":
        centre = (side * rng.uniform(4, 22), rng.uniform(-15, 35), rng.uniform(5, 16))
    elif rng.random() < 0.5:
        centre = (side * rng.uniform(0, 15), rng.uniform(-18, 4), rng.uniform(-20, -8))
        aspect = (1.15, 1.1, 0.75)
    else:
        high = rng.uniform(0.05, 1.1)
        angle = rng.normal(0.1, 0.8)
        centre = (side * np.cos(angle) * np.cos(high) * 60, 4 + 76 * np.sin(angle) * np.cos(high), 68 * np.sin(high))
    return Bleed(
        kind=kind,
        volume=volume,
        hu=rng.uniform(*HU[kind]),
        centre=(float(centre[0]), float(centre[1]), float(centre[2])),
        aspect=(float(aspect[0]), float(aspect[1]), float(aspect[2])),
        radius=float(radius),
        waves=draw_waves(rng, 24, 1.0, 5),
        layered=bool(rng.random() < 0.6),
        along_falx=bool(kind == "subdural" and rng.random() < 0.3),
        oedema=rng.uniform(1.5, 6.0) if kind == "intraparenchymal" else 0.0,
    )


def _brain_place(rng: np.random.Generator, side: float) -> tuple[tuple[float, float, float], float]:
    (x, y, z), _, most = PLACES[int(rng.choice(len(PLACES), p=[chance for _, chance, _ in PLACES]))]
    spread = rng.normal(0, 1, 3) * (3, 6, 5)
    return (side * x + spread[0], y + spread[1], z + spread[2]), float(most)


def midline_shift(bleeds: list[Bleed]) -> float:
    """How far (mm, to the left positive) the bleeds push the middle of the brain."""
    push = sum(
        -np.sign(b.centre[0]) * b.volume for b in bleeds if b.kind in ("epidural", "subdural", "intraparenchymal")
    )
    return float(np.sign(push) * min(9.0, 0.16 * max(abs(push) - 6, 0)))


def bleed_fields(bleeds: list[Bleed], f: Fields, x: Array, y: Array, z: Array, down: Array) -> None:
    """Add to `f` one smooth field a bleed ("bleed0", ...), and what they do to the brain ("push", "spread").

    Args:
        bleeds: the patient's.
        f: fields of `anatomy.head_fields` at the same points.
        x: to the patient's left, mm in the standard head.
        y: to the back.
        z: up.
        down: the way that gravity pulls, mm.
    """
    for number, bleed in enumerate(bleeds):
        cx, cy, cz = bleed.centre
        wx, wy, wz = bleed.aspect
        name = f"bleed{number}"
        if bleed.kind in ("epidural", "subdural"):
            f[name] = _sheet(bleed, f, x, y, z)
            thickness = np.maximum(f[name], 0)
            f["push"] = f["push"] + thickness if "push" in f else thickness
            if bleed.along_falx:
                profile = np.exp(
                    -((((y - cy * 0.5) / (1.2 * bleed.radius)) ** 2 + ((z - 38) / bleed.radius) ** 2) ** 2)
                )
                f[name + "falx"] = np.float32(0.6 * bleed.level) * profile
        elif bleed.kind == "intraventricular" and bleed.layered:
            f[name] = -down - np.float32(bleed.level) + 0.6 * bleed.waves(x, y, z)
        else:
            gap = np.sqrt(((x - cx) / wx) ** 2 + ((y - cy) / wy) ** 2 + ((z - cz) / wz) ** 2)
            rough = {"intraparenchymal": 0.2 * min(bleed.level, 14), "subarachnoid": 5.0, "intraventricular": 3.0}
            f[name] = gap - np.float32(bleed.level) + np.float32(rough[bleed.kind]) * bleed.waves(x, y, z)
            if bleed.kind == "subarachnoid":
                spread = 1.1 * np.clip(0.5 - f[name] / 8, 0, 1)
                f["spread"] = f["spread"] + spread if "spread" in f else spread


def _sheet(bleed: Bleed, f: Fields, x: Array, y: Array, z: Array) -> Array:
    """Thickness of the blood under the skull, mm: a lens (epidural) or a crescent of one side (subdural)."""
    cx, cy, cz = bleed.centre
    out = 1 / np.maximum(f["q"], 0.3)
    ux, uy, uz = x * out - cx, (y - 4) * out - (cy - 4), z * out - cz
    r2 = (ux * ux + (uy / bleed.aspect[1]) ** 2 + (uz / bleed.aspect[2]) ** 2) / np.float32(bleed.radius**2)
    r2 = r2 * (1 + 0.15 * bleed.waves(x * out, y * out, z * out))
    if bleed.kind == "epidural":
        return np.float32(bleed.level) * np.clip(1 - r2, -0.4, 1)
    own_side = np.clip(0.5 + np.sign(np.float32(cx)) * x / 10, 0, 1)
    return np.float32(bleed.level) * own_side * np.exp(-(r2**1.5)) - 0.4


def blood_share(bleed: Bleed, name: str, f: Fields, parts: Parts, edge: float) -> Array:
    """Share of each pixel that this bleed fills."""
    field = f[name]
    if bleed.kind in ("epidural", "subdural"):
        share = soft(np.maximum(-f["cavity"] - field, 0.4 - field), edge)
        if bleed.along_falx:
            thick = f[name + "falx"]
            beside = np.abs(f["middle"] * np.float32(np.sign(bleed.centre[0])) - 0.5 * thick) - 0.5 * thick
            beside = np.maximum(np.maximum(beside, 0.5 - thick), np.maximum(5 - f["callosum"], 2 - f["tent"]))
            share = np.maximum(share, soft(beside, edge))
        return share * parts.inside
    if bleed.kind == "intraparenchymal":
        return soft(field, 1.5 * edge) * parts.inside * (1 - parts.ventricle) * (1 - parts.dura)
    if bleed.kind == "intraventricular":
        return soft(field, 2.5 if bleed.layered else 5.0) * parts.ventricle
    return 0.95 * soft(field, 9.0) * parts.outer_csf * parts.inside * (1 - parts.ventricle)


def reaches(bleed: Bleed, field: Array) -> bool:
    """Whether the bleed or its oedema can touch a plane with this field."""
    if bleed.kind in ("epidural", "subdural"):
        return bleed.along_falx or bool(field.max() > -0.3)
    return bool(field.min() < 12)


def oedema_share(bleed: Bleed, field: Array) -> Array | None:
    """Share of oedema around a bleed in the brain, None for the other kinds."""
    if not bleed.oedema:
        return None
    return soft(field - np.float32(bleed.oedema), 4.0)


def fit_levels(head: Head, bleeds: list[Bleed], down: tuple[float, float, float]) -> list[Bleed]:
    """Choose each bleed's level so that it has its volume, on a grid of 3 mm.

    Args:
        head: the head.
        bleeds: as drawn.
        down: the way that gravity pulls, in the standard head.
    """
    if not bleeds:
        return []
    step = 3.0
    axes = [np.arange(low, high, step, dtype=np.float32) for low, high in ((-72, 73), (-86, 94), (-66, 80))]
    x, y, z = (np.ascontiguousarray(a) for a in np.meshgrid(*axes, indexing="ij"))
    keep = vault(head, x, y, z)[0] < 0
    x, y, z = x[keep], y[keep], z[keep]
    f = head_fields(head, x, y, z)
    fall = x * down[0] + y * down[1] + z * down[2]
    cell = step**3 * float(np.prod(head.scale)) / 1000
    fitted = []
    for bleed in bleeds:
        low, high = (-70.0, 70.0) if bleed.kind == "intraventricular" and bleed.layered else (0.3, 70.0)
        edge = 2.0
        if bleed.kind in ("epidural", "subdural"):
            high = 28.0
            # A border as wide as the sheet is thick would count a film of blood all over the head.
            edge = 0.6
        for _ in range(12):
            trial = replace(bleed, level=(low + high) / 2)
            g = dict(f)
            bleed_fields([trial], g, x, y, z, fall)
            volume = float(blood_share(trial, "bleed0", g, cut_parts(head, g, edge), edge).sum()) * cell
            if volume < bleed.volume:
                low = trial.level
            else:
                high = trial.level
        fitted.append(replace(bleed, level=(low + high) / 2))
    return fitted
