"""What makes one drawn head differ from the next: age, shape, densities, sinuses and vessels, drawn once."""

from dataclasses import dataclass

import numpy as np
from scipy import fft

from ichseq.phantom.head import Array, Head, Waves, draw_waves

FOLD_POINTS, FOLD_STEP = 64, 2.5


@dataclass(frozen=True)
class Person:
    """One drawn person. Lengths in mm, densities in HU.

    Attributes:
        head: skull, scalp, dura and densities, as the head of formulas has them (its sulci are not used).
        shape: how far the whole head is shifted along x, y and z, from the person to the atlas, in long waves.
        gyri: how far the brain within it is, in waves of the size of a gyrus.
        tilt_of_falx: how far the falx leans to a side from front to back, radians.
        gap: how far the inner table lies from the brain of the atlas; the old have more fluid there.
        brain_scale: size of the brain in its skull; an old brain is smaller.
        fluid_from: share of fluid in the atlas from which a voxel is fluid; low in old brains with wide sulci.
        fluid_over: over which range of that share a voxel becomes fluid.
        widening: how `fluid_from` varies from place to place.
        folds: band-limited noise on a periodic lattice of FOLD_STEP mm; its zero surfaces are the person's own folds.
        fold_depth: how clear those are.
        ventricle_growth: by how much the ventricles' walls lie outwards of the atlas's.
        ventricle_scale: size of the ventricles as a whole.
        vessels: HU of the large arteries.
        sinuses: HU of the venous sinuses.
        choroid: HU of the choroid plexus.
        diploe: HU of the skull's middle layer.
        grain: the same, from place to place.
        bone: HU of the tables.
        base_bone: thickness of the skull base, relative.
        rim: what the scanner's blur adds to the brain at the bone; it falls off within some mm.
        lucency: how dark the white matter around the ventricles is.
        subcutaneous: share of fat in the scalp.
        temporal_muscle: its thickness.
        ears: whether the ears stand off.
    """

    head: Head
    shape: tuple[Waves, Waves, Waves]
    gyri: tuple[Waves, Waves, Waves]
    tilt_of_falx: float
    gap: float
    brain_scale: float
    fluid_from: float
    fluid_over: float
    widening: Waves
    folds: Array
    fold_depth: float
    ventricle_growth: float
    ventricle_scale: float
    vessels: float
    sinuses: float
    choroid: float
    diploe: float
    grain: Waves
    bone: float
    base_bone: float
    rim: float
    lucency: float
    subcutaneous: float
    temporal_muscle: float
    ears: bool


def draw_person(rng: np.random.Generator) -> Person:
    """Draw one person: a child now and then, the old more often than the young, as they are scanned."""
    child = rng.random() < 0.06
    old = 0.05 if child else float(np.clip(rng.beta(1.6, 1.2), 0.02, 1))
    blood = rng.normal(46, 6)
    return Person(
        head=_draw_frame(rng, old, child, blood),
        shape=_three(rng, 150, 2.5, 3),
        gyri=_three(rng, 48, 1.2, 4),
        tilt_of_falx=float(rng.normal(0, 0.012)),
        gap=float(np.clip(-1.5 + 2.2 * old**1.5 + rng.normal(0, 0.4), -1.8, 1.3)),
        brain_scale=float(np.clip(1.03 - 0.045 * old**1.2 + rng.normal(0, 0.006), 0.97, 1.04)),
        fluid_from=float(np.clip(0.46 - 0.34 * old + rng.normal(0, 0.05), 0.06, 0.6)),
        fluid_over=rng.uniform(0.35, 0.6),
        widening=draw_waves(rng, 80, 0.05, 4),
        folds=_fold_lattice(rng),
        fold_depth=rng.uniform(0.15, 0.45),
        ventricle_growth=float(np.clip(-1.1 + 2.6 * old**1.5 + rng.normal(0, 0.5), -1.6, 3.5)),
        ventricle_scale=float(np.clip(0.94 + 0.25 * old**1.5 + rng.normal(0, 0.06), 0.85, 1.35)),
        vessels=float(np.clip(blood, 34, 58)),
        sinuses=float(np.clip(blood + rng.uniform(0, 9), 40, 68)),
        choroid=rng.uniform(36, 58),
        diploe=rng.uniform(350, 1000),
        grain=draw_waves(rng, 9, 1.0, 6),
        bone=rng.uniform(1000, 1900) * (0.75 if child else 1.0),
        base_bone=rng.uniform(0.75, 1.3),
        rim=rng.uniform(12, 48),
        lucency=float(rng.uniform(2, 10) * old**1.5),
        subcutaneous=rng.uniform(0.4, 1.0),
        temporal_muscle=rng.uniform(2, 9),
        ears=bool(rng.random() < 0.8),
    )


def _draw_frame(rng: np.random.Generator, old: float, child: bool, blood: float) -> Head:
    size = rng.normal(0.93 if child else 1.0, 0.03)
    white = rng.uniform(23.0, 32.0)
    thin = 0.6 if child else 1.0
    return Head(
        scale=(size * rng.normal(1, 0.035), size * rng.normal(1, 0.03), size * rng.normal(1, 0.03)),
        atrophy=old,
        ventricle_size=1.0,
        skull_thickness=float(rng.uniform(3.8, 9.5) * thin),
        scalp_thickness=rng.uniform(3.0, 8.5),
        grey=white + rng.uniform(4.5, 10.0),
        white=white,
        csf=rng.uniform(1, 11),
        dura=float(np.clip(blood + rng.uniform(-3, 11), 38, 64)),
        dura_thickness=rng.uniform(0.7, 1.7),
        falx_bend=draw_waves(rng, 130, 0.9, 2),
        skull_waves=draw_waves(rng, 60, 0.9, 4),
        shape_waves=draw_waves(rng, 150, 0.9, 2),
        tissue_waves=draw_waves(rng, 55, 0.6, 4),
        face_waves=draw_waves(rng, 14, 1.0, 6),
        sulci=np.zeros((1, 1, 1), np.float32),
        spots=(),
        air_cells=rng.uniform(-0.8, 1.0),
        frontal_sinus=float(0 if child else rng.uniform(0, 14)),
    )


def _three(rng: np.random.Generator, wavelength: float, amplitude: float, n: int) -> tuple[Waves, Waves, Waves]:
    x, y, z = (draw_waves(rng, wavelength, amplitude, n) for _ in range(3))
    return x, y, z


def _fold_lattice(rng: np.random.Generator) -> Array:
    """Band-limited noise of one standard deviation on a periodic lattice; folds lie some 12 mm apart."""
    n = FOLD_POINTS
    spectrum = fft.rfftn(rng.standard_normal((n, n, n), dtype=np.float32))
    f = fft.fftfreq(n, FOLD_STEP).astype(np.float32)
    radius = np.sqrt(f[:, None, None] ** 2 + f[None, :, None] ** 2 + np.abs(f[None, None, : n // 2 + 1]) ** 2)
    spectrum *= np.exp(-(((radius * 24 - 1) / 0.35) ** 2))
    noise = fft.irfftn(spectrum, (n, n, n)).astype(np.float32)
    return noise / noise.std()
