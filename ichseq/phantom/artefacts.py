"""What a scanner adds to the picture of a head: hardening between bones, streaks, noise, rings, motion.

Hardening and streaks are made as they arise: the slices are projected along many angles at low resolution, the error of
each ray is filtered and projected back. The matrices that do so are made once for each process.
"""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from scipy import fft, ndimage, sparse

from ichseq.phantom.head import Array

ANGLES, GRID = 48, 64
STREAK_ANGLES, STREAK_GRID = 90, 128
WATER_PER_MM = 0.0195


@dataclass(frozen=True)
class Artefacts:
    """How a scanner's picture differs from the truth. HU unless stated.

    Attributes:
        noise: standard deviation at 512 pixels where the head is thick as a vault.
        peak: frequency of the noise's spectrum, cycles a millimetre; low for a smooth kernel.
        grain: by how much more the noise varies from side to side than from front to back, 0 to 1; rays along the
            head's length are the noisy ones.
        slope: power of the frequency with which the spectrum rises; 0 for white noise below the peak.
        blur: standard deviation of the kernel, mm.
        sharpening: share of what a mask of 1.5 mm takes away that is added again.
        hardening: relative; 1 darkens by some 8 HU between the petrous bones.
        glow: HU that are added beside the skull.
        glow_mm: how far that reaches.
        streaks: relative noise of rays through much bone.
        offset: of water.
        gain: relative.
        rings: of the strongest ring, 0 for none.
        motion_mm: how far the head moved within a slice.
        moved: share of the slices in which it did.
    """

    noise: float
    peak: float
    slope: float
    grain: float
    blur: float
    sharpening: float
    hardening: float
    glow: float
    glow_mm: float
    streaks: float
    offset: float
    gain: float
    rings: float
    motion_mm: float
    moved: float


def draw_artefacts(rng: np.random.Generator) -> Artefacts:
    """Draw a scanner with its settings; rings and motion are rare."""
    sharp = rng.random()
    return Artefacts(
        noise=float(np.exp(rng.uniform(np.log(2.7), np.log(9.5)))) * (0.8 + 0.5 * sharp),
        peak=0.16 + 0.32 * sharp,
        slope=rng.uniform(0.3, 1.2),
        grain=rng.uniform(0, 0.5),
        blur=rng.uniform(0.62, 0.8) - 0.35 * sharp,
        sharpening=float(max(0.0, rng.uniform(-0.4, 0.9))) * sharp,
        hardening=float(np.exp(rng.uniform(np.log(0.25), np.log(3.0)))),
        glow=rng.uniform(0, 8),
        glow_mm=rng.uniform(3, 9),
        streaks=float(np.exp(rng.normal(0, 0.6))),
        offset=float(np.clip(rng.normal(0, 2.5), -6, 6)),
        gain=rng.normal(1, 0.008),
        rings=rng.uniform(2, 7) if rng.random() < 0.04 else 0.0,
        motion_mm=rng.uniform(1, 5) if rng.random() < 0.08 else 0.0,
        moved=rng.uniform(0.1, 0.5),
    )


def apply_artefacts(rng: np.random.Generator, a: Artefacts, hu: Array, pixel: float) -> Array:
    """The slices as the scanner shows them.

    Args:
        rng: of the noise.
        a: which scanner.
        hu: (n, size, size), without noise.
        pixel: its size, mm.
    """
    n, size, _ = hu.shape
    hu = _moved(rng, a, hu, pixel)
    small = np.stack([_resize(plane, GRID, area=True) for plane in hu])
    error, load = _rays(a, small, pixel * size / GRID)
    streaks = _streaks(rng, a, load, pixel * size)
    spread = _spread(load)
    out = np.empty_like(hu)
    noise = _Noise(a, size, pixel)
    sigma = a.blur / pixel
    for k in range(n):
        plane = hu[k]
        if sigma > 0.2:
            plane = _smooth(plane, sigma)
        if a.sharpening:
            # Kernels that sharpen don't leave a dark rim of that size inside the skull.
            soft_tissue = np.clip(plane, -150, 120)
            plane = plane + np.float32(a.sharpening) * (soft_tissue - _smooth(soft_tissue, 1.5 / pixel))
        added = _resize(error[k], size)
        if k in streaks:
            added += _resize(streaks[k], size)
        added *= np.clip((plane + 500) / 400, 0.15, 1)
        out[k] = plane * np.float32(a.gain) + np.float32(a.offset) + added + noise.draw(rng) * _resize(spread[k], size)
    if a.rings:
        out = out + _rings(rng, a, size)
    return out


def hardened(hu: Array, pixel: float, hardening: float) -> Array:
    """Slices (n, rows, columns) without noise, darker between bones and brighter beside them, as hard rays make them.

    Args:
        hu: the slices; a part of the image that holds the head will do.
        pixel: its size, mm.
        hardening: as in `Artefacts`.
    """
    n, rows, columns = hu.shape
    side = max(rows, columns)
    small = np.full((n, GRID, GRID), -1000, np.float32)
    height, width = max(1, GRID * rows // side), max(1, GRID * columns // side)
    for k, plane in enumerate(hu):
        small[k, :height, :width] = cv2.resize(
            np.ascontiguousarray(plane), (width, height), interpolation=cv2.INTER_AREA
        )
    matrix, step = projector(ANGLES, GRID), pixel * side / GRID
    bone = np.clip((small - 120) / 1000, 0, 3).reshape(n, -1).T
    error = _lost(matrix @ np.ascontiguousarray(bone), step, hardening)
    out = hu.copy()
    for k, plane in enumerate(error):
        added = cv2.resize(np.ascontiguousarray(plane[:height, :width]), (columns, rows))
        out[k] += added * np.clip((hu[k] + 500) / 400, 0.15, 1)
    return out


def _lost(bone_rays: Array, step: float, hardening: float) -> Array:
    """The second order of hardening: rays through much bone are hard and see less of the next bone. HU, on the grid.

    Args:
        bone_rays: (angles * GRID, n) or (angles, GRID, n), in pixels.
        step: size of a pixel, mm.
        hardening: as in `Artefacts`.
    """
    rays = bone_rays.reshape(ANGLES, GRID, -1) * np.float32(step)
    lost = np.float32(-0.00055 * hardening) * rays * rays
    return back_projected(lost.astype(np.float32), GRID) * np.float32(1000 / step)


def _smooth(plane: Array, sigma: float) -> Array:
    return np.asarray(cv2.GaussianBlur(plane, (0, 0), sigma), np.float32)


def _resize(plane: Array, size: int, *, area: bool = False) -> Array:
    how = cv2.INTER_AREA if area else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(np.ascontiguousarray(plane, np.float32), (size, size), interpolation=how), np.float32)


@lru_cache(maxsize=2)
def projector(angles: int, grid: int) -> sparse.csr_array:
    """Matrix (angles * grid, grid * grid) of line integrals, in pixels, through a square grid."""
    middle = (grid - 1) / 2
    y, x = np.mgrid[:grid, :grid].reshape(2, -1) - middle
    rows, columns, values = [], [], []
    for k in range(angles):
        theta = np.pi * k / angles
        along = x * np.cos(theta) + y * np.sin(theta) + middle
        low = np.floor(along).astype(int)
        for index, weight in ((low, 1 - (along - low)), (low + 1, along - low)):
            inside = np.flatnonzero((index >= 0) & (index < grid))
            rows.append(k * grid + index[inside])
            columns.append(inside)
            values.append(weight[inside])
    entries = np.concatenate(values).astype(np.float32), (np.concatenate(rows), np.concatenate(columns))
    return sparse.csr_array(entries, shape=(angles * grid, grid * grid))


@lru_cache(maxsize=2)
def _back(angles: int, grid: int) -> sparse.csr_array:
    return projector(angles, grid).T.tocsr()


def back_projected(rays: Array, grid: int) -> Array:
    """Filtered back projection of line integrals (angles, grid, n) in pixels: (n, grid, grid)."""
    angles, _, n = rays.shape
    ramp = np.abs(fft.fftfreq(2 * grid)).astype(np.float32)[: grid + 1]
    spectrum = fft.rfft(rays, 2 * grid, axis=1) * ramp[None, :, None]
    filtered = fft.irfft(spectrum, 2 * grid, axis=1)[:, :grid].astype(np.float32)
    image = _back(angles, grid) @ np.ascontiguousarray(filtered.reshape(-1, n))
    return np.ascontiguousarray(image.T.reshape(n, grid, grid)) * np.float32(np.pi / angles)


def _rays(a: Artefacts, small: Array, pixel: float) -> tuple[Array, Array]:
    """HU by which hardening changes the slices (n, GRID, GRID), and the attenuation of each ray (angles, GRID, n)."""
    n = len(small)
    bone = np.clip((small - 120) / 1000, 0, 3)
    water = np.clip(small / 1000 + 1, 0, 1.05)
    matrix = projector(ANGLES, GRID)
    both = matrix @ np.ascontiguousarray(np.concatenate([bone, water]).reshape(2 * n, -1).T)
    bone_rays, water_rays = both.reshape(ANGLES, GRID, 2 * n)[..., :n] * pixel, both.reshape(ANGLES, GRID, -1)[..., n:]
    water_rays = water_rays * np.float32(pixel)
    error = _lost(both.reshape(ANGLES, GRID, 2 * n)[..., :n], pixel, a.hardening)
    glow = ndimage.gaussian_filter(np.clip(bone, 0, 1), (0, a.glow_mm / pixel, a.glow_mm / pixel))
    error += np.float32(2.2 * a.glow) * glow
    load = np.float32(WATER_PER_MM) * (water_rays + np.float32(2.0) * bone_rays)
    return error, load


def _spread(load: Array) -> Array:
    """Relative standard deviation of the noise in each pixel of the low grid, 1 about where a vault's middle lies."""
    variance = np.exp(np.clip(load - 4.6, -4, 4))
    image = _back(ANGLES, GRID) @ np.ascontiguousarray(variance.reshape(ANGLES * GRID, -1)) / np.float32(ANGLES)
    return np.sqrt(np.clip(image.T.reshape(-1, GRID, GRID), 0.08, 9))


def _streaks(rng: np.random.Generator, a: Artefacts, load: Array, view: float) -> dict[int, Array]:
    """HU of streaks (STREAK_GRID squared) by slice, for slices with rays through so much bone that few photons come."""
    starved = 0.8 * np.clip(load - 5.0, 0, 3.5)
    loaded = np.flatnonzero(starved.mean(axis=(0, 1)) > 0.006)
    if not len(loaded):
        return {}
    zoom = STREAK_ANGLES / ANGLES, STREAK_GRID / GRID, 1
    amount = np.clip(ndimage.zoom(starved[..., loaded], zoom, order=1), 0, None)
    rays = rng.standard_normal(amount.shape, dtype=np.float32) * amount * np.float32(1.1 * a.streaks)
    image = back_projected(rays.astype(np.float32), STREAK_GRID) * np.float32(
        1000 * WATER_PER_MM / (view / STREAK_GRID)
    )
    return {int(k): plane for k, plane in zip(loaded, image, strict=True)}


class _Noise:
    """Draws noise with a spectrum, as if an image of 512 pixels had been averaged to this size."""

    def __init__(self, a: Artefacts, size: int, pixel: float) -> None:
        fine = self._spectrum(a, 512, pixel * size / 512)
        shape = self._spectrum(a, size, pixel)
        if size < 512:
            # Means over blocks keep the noise of all frequencies, folded; the shape is that of the low ones.
            f = fft.fftfreq(size)
            shape = shape * np.sinc(f)[:, None] * np.sinc(f)[None, :]
        blocks = self._of_blocks(512 / size)
        spread = float(np.sqrt((fine**2 * blocks[:, None] * blocks[None, :]).mean() / (fine**2).mean()))
        shape = shape * (a.noise * spread / np.sqrt((shape**2).mean()))
        self.filter = shape[:, : size // 2 + 1].astype(np.float32)
        self.size = size

    @staticmethod
    def _of_blocks(side: float) -> Array:
        """By how much the mean over `side` pixels lowers the noise's power, by frequency of a row of 512."""
        f = np.abs(fft.fftfreq(512))
        if side <= 1:
            return np.ones(512)
        return np.where(f > 0, np.sin(np.pi * f * side) / (side * np.sin(np.pi * np.maximum(f, 1e-9))), 1.0) ** 2

    @staticmethod
    def _spectrum(a: Artefacts, size: int, pixel: float) -> Array:
        f = fft.fftfreq(size, pixel)
        radius = np.sqrt(f[:, None] ** 2 + f[None, :] ** 2)
        full = (radius / a.peak + 0.05) ** a.slope * np.exp(-0.5 * (radius / a.peak) ** 2)
        full *= 1 + a.grain * (f[None, :] ** 2 - f[:, None] ** 2) / np.maximum(radius**2, 1e-9)
        return full.astype(np.float32)

    def draw(self, rng: np.random.Generator) -> Array:
        white = rng.standard_normal((self.size, self.size), dtype=np.float32)
        noise: Array = fft.irfft2(fft.rfft2(white) * self.filter, white.shape).astype(np.float32)
        return noise


def _rings(rng: np.random.Generator, a: Artefacts, size: int) -> Array:
    """Rings about the middle of the image, the same in all slices."""
    grid = np.arange(size, dtype=np.float32) - (size - 1) / 2
    radius = np.sqrt(grid[:, None] ** 2 + grid[None, :] ** 2)
    profile = rng.standard_normal(size) * (rng.random(size) < 0.08) * a.rings
    rings: Array = np.interp(radius, np.arange(size), ndimage.gaussian_filter1d(profile, 0.6)).astype(np.float32)
    return rings


def _moved(rng: np.random.Generator, a: Artefacts, hu: Array, pixel: float) -> Array:
    """Some slices as the mean of the head where it was and where it went."""
    if not a.motion_mm:
        return hu
    out = hu.copy()
    size = hu.shape[1]
    for k in np.flatnonzero(rng.random(len(hu)) < a.moved):
        angle, shift = np.rad2deg(a.motion_mm / 90) * rng.normal(), rng.normal(0, a.motion_mm / 2 / pixel, 2)
        matrix = cv2.getRotationMatrix2D(((size - 1) / 2, (size - 1) / 2), angle, 1.0)
        matrix[:, 2] = matrix[:, 2] + shift
        turned = cv2.warpAffine(hu[k], matrix, (size, size), borderMode=cv2.BORDER_REPLICATE)
        share = np.float32(rng.uniform(0.25, 0.5))
        out[k] = hu[k] + share * (turned - hu[k])
    return out
