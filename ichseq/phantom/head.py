"""One made-up head: what makes it differ from the next, drawn once and apart from the fields that show it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Array = NDArray[np.floating[Any]]

SULCUS_WAVELENGTH = 22.0
LATTICE_STEP = 2.0
LATTICE_POINTS = 104


@dataclass(frozen=True)
class Waves:
    """A smooth random function of the place: a sum of plane waves, its standard deviation about `amplitude`."""

    vectors: NDArray[np.float64]
    phases: NDArray[np.float64]
    amplitude: float

    def __call__(self, x: Array, y: Array, z: Array) -> Array:
        """The function at the points x, y, z (any shape, mm)."""
        total = np.zeros_like(x)
        for (kx, ky, kz), phase in zip(self.vectors.astype(np.float32), self.phases.astype(np.float32), strict=True):
            total += np.sin(kx * x + ky * y + kz * z + phase)
        return total * np.float32(self.amplitude * np.sqrt(2 / len(self.phases)))


def draw_waves(rng: np.random.Generator, wavelength: float, amplitude: float, n: int = 3) -> Waves:
    """Plane waves of about `wavelength` mm in random directions."""
    directions = rng.standard_normal((n, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    lengths = wavelength * rng.uniform(0.75, 1.35, (n, 1))
    return Waves(directions * 2 * np.pi / lengths, rng.uniform(0, 2 * np.pi, n), amplitude)


@dataclass(frozen=True)
class Spot:
    """A small dense spot (calcification, vessel): centre and Gaussian radius in mm of the standard head, and its HU."""

    centre: tuple[float, float, float]
    radius: float
    hu: float


@dataclass(frozen=True)
class Head:
    """What makes one head differ from the next. Lengths in mm, densities in HU."""

    scale: tuple[float, float, float]
    atrophy: float
    ventricle_size: float
    skull_thickness: float
    scalp_thickness: float
    grey: float
    white: float
    csf: float
    dura: float
    dura_thickness: float
    falx_bend: Waves
    skull_waves: Waves
    shape_waves: Waves
    tissue_waves: Waves
    face_waves: Waves
    sulci: Array
    spots: tuple[Spot, ...]
    air_cells: float
    frontal_sinus: float


def draw_head(rng: np.random.Generator) -> Head:
    """Draw one head: size, shape, age (atrophy, wider ventricles, calcifications), density."""
    size = rng.normal(1, 0.025)
    atrophy = float(np.clip(rng.beta(1.6, 1.8), 0.03, 1))
    white = rng.uniform(26.5, 30.5)
    return Head(
        scale=(size * rng.normal(1, 0.025), size * rng.normal(1, 0.025), size * rng.normal(1, 0.025)),
        atrophy=atrophy,
        ventricle_size=float(np.clip(0.75 + 0.6 * atrophy + rng.normal(0, 0.1), 0.6, 1.6)),
        skull_thickness=rng.uniform(5.0, 8.5),
        scalp_thickness=rng.uniform(4.0, 7.5),
        grey=white + rng.uniform(5.0, 8.0),
        white=white,
        csf=rng.uniform(4, 10),
        dura=rng.uniform(46, 66),
        dura_thickness=rng.uniform(0.9, 1.7),
        falx_bend=draw_waves(rng, 130, 0.9, 2),
        skull_waves=draw_waves(rng, 75, 0.8, 2),
        shape_waves=draw_waves(rng, 150, 0.9, 2),
        tissue_waves=draw_waves(rng, 60, 0.7, 4),
        face_waves=draw_waves(rng, 16, 1.0, 5),
        sulci=_sulcal_lattice(rng),
        spots=_draw_spots(rng, atrophy),
        air_cells=rng.uniform(-0.5, 0.6),
        frontal_sinus=rng.uniform(0, 11),
    )


def _draw_spots(rng: np.random.Generator, atrophy: float) -> tuple[Spot, ...]:
    """Choroid, pineal and basal ganglia calcifications, vessels in the cisterns, and specks of one slice anywhere."""
    spots = []
    if rng.random() < 0.35 + 0.5 * atrophy:
        for side in (-1, 1):
            if rng.random() < 0.85:
                spots.append(Spot((side * rng.normal(22, 1.5), rng.normal(37, 2), rng.normal(6, 2)), 1.9, 260))
    if rng.random() < 0.55:
        spots.append(Spot((rng.normal(0, 0.8), rng.normal(25, 1), rng.normal(1, 1)), 1.6, 220))
    if rng.random() < 0.2:
        spots += [
            Spot((s * rng.normal(19, 1), rng.normal(-3, 2), rng.normal(4, 1)), rng.uniform(1.4, 2.4), 75)
            for s in (-1, 1)
        ]
    spots.append(Spot((rng.normal(0, 1.5), rng.normal(-2, 0.7), -22), 1.5, 42))
    spots += [Spot((s * rng.normal(11, 1), rng.normal(-14, 1), -19), 1.3, 38) for s in (-1, 1)]
    for _ in range(rng.poisson(0.9)):
        direction = rng.standard_normal(3)
        direction *= rng.uniform(15, 55) / np.linalg.norm(direction)
        place = (float(direction[0]), float(direction[1] * 1.2), float(abs(direction[2]) * 1.05 - 8))
        spots.append(Spot(place, rng.uniform(1.7, 2.8), rng.uniform(45, 130)))
    return tuple(spots)


def _sulcal_lattice(rng: np.random.Generator) -> Array:
    """Band-limited noise on a lattice, in mm: its zero surfaces are the sulci, about half a wavelength apart."""
    n = LATTICE_POINTS
    spectrum = fft.rfftn(rng.standard_normal((n, n, n), dtype=np.float32))
    f = fft.fftfreq(n, LATTICE_STEP).astype(np.float32)
    radius = np.sqrt(f[:, None, None] ** 2 + f[None, :, None] ** 2 + np.abs(f[None, None, : n // 2 + 1]) ** 2)
    spectrum *= np.exp(-(((radius * SULCUS_WAVELENGTH - 1) / 0.3) ** 2))
    noise = fft.irfftn(spectrum, (n, n, n)).astype(np.float32)
    return noise * np.float32(SULCUS_WAVELENGTH / (2 * np.pi) / noise.std())
