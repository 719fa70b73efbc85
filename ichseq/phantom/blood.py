"""Bleeding in a volume: what each bleed fills, how it looks, and how it pushes the brain aside.

`draw_blood` draws a patient's bleeds into a `HeadVolume`; `paint` puts their density into Hounsfield units of the same
grid, or of slices for which the shares were averaged. Where each kind may lie, and in which shape, stands in
`blood_shapes.py` and `blood_sheets.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np
from scipy import ndimage

from ichseq.phantom.blood_density import draw_density
from ichseq.phantom.blood_shapes import FLUID_KINDS, Shape, intraparenchymal, intraventricular, subarachnoid
from ichseq.phantom.blood_sheets import epidural, subdural
from ichseq.phantom.head import Array
from ichseq.phantom.volume import HeadVolume

FLUID_HU = 7.0
SHEET_KINDS, DURAL_FORMS = ("epidural", "subdural"), ("falx", "tentorium")
BRAIN_BESIDE_BONE = 36.0
# From where to where bone in a voxel hides blood in a window for the brain, HU.
HIDDEN_FROM, HIDDEN_TO = 70.0, 130.0
# Millilitres of a patient's first bleed, of which the logarithm is drawn, and the share of them that a further one has.
VOLUMES = {
    "epidural": (3.0, 90.0),
    "intraparenchymal": (0.2, 70.0),
    "intraventricular": (0.5, 30.0),
    "subarachnoid": (1.5, 45.0),
    "subdural": (5.0, 140.0),
}
FURTHER = 0.4
SHAPES: dict[str, Callable[[np.random.Generator, HeadVolume, float, float], Shape | None]] = {
    "epidural": epidural,
    "intraparenchymal": intraparenchymal,
    "intraventricular": intraventricular,
    "subarachnoid": subarachnoid,
    "subdural": subdural,
}


@dataclass
class VolumeBleed:
    """One bleed on a grid (Z, Y, X).

    Attributes:
        kind: one of `labels.LABELS` but any.
        form: which of the kind's shapes, for instance "layer" or "falx".
        hu: its mean density.
        share: share of each voxel that it fills, 0 to 1; in an exam, what bone hides of it is left out.
        density: HU of the blood in each voxel; matters where there is some.
        oedema: HU by which the brain around it is darker, or None.
    """

    kind: str
    form: str
    hu: float
    share: Array
    density: Array
    oedema: Array | None = None


@dataclass
class Blood:
    """A patient's bleeds and how they push the brain.

    Attributes:
        bleeds: in the order in which they were drawn.
        push: (3, Z, Y, X), how far the tissue that is seen in a voxel was pushed there: along x, y (both in mm of the
            image) and z; None if nothing is pushed.
    """

    bleeds: list[VolumeBleed] = field(default_factory=list)
    push: Array | None = None


def draw_blood(rng: np.random.Generator, head: HeadVolume, kinds: list[str], brain_hu: float = 31.0) -> Blood:
    """Draw a patient's bleeds into a head.

    Args:
        rng: of the patient.
        head: where they lie. Its `csf` and `ventricles` are read as they are, though a bleed that was drawn before may
            have pushed them: by some millimetres at most.
        kinds: of bleeding, the first one first; further ones are smaller.
        brain_hu: density of the brain, which blood differs from (see `blood_density`).
    """
    side = float(rng.choice((-1, 1)))
    blood = Blood()
    for number, kind in enumerate(kinds):
        low, high = VOLUMES[kind]
        millilitres = low * (high * (FURTHER if number else 1.0) / low) ** rng.beta(1.5, 1.1)
        shape = SHAPES[kind](rng, head, side if rng.random() < 0.7 else -side, millilitres)
        if shape is None or not (shape.share > 0.2).any():
            continue
        blood.bleeds.append(_bleed(rng, head, kind, shape, brain_hu))
        if shape.push is not None:
            blood.push = shape.push if blood.push is None else blood.push + shape.push
    _keep_apart(blood.bleeds)
    return blood


def _bleed(rng: np.random.Generator, head: HeadVolume, kind: str, shape: Shape, brain_hu: float) -> VolumeBleed:
    hu, density = draw_density(rng, head, kind, shape, brain_hu)
    oedema = None
    if shape.oedema is not None:
        oedema = shape.oedema * np.float32(rng.uniform(5, 14))
    return VolumeBleed(kind, shape.form, hu, shape.share, density, oedema)


def _keep_apart(bleeds: list[VolumeBleed]) -> None:
    """See that no voxel holds more blood than it has room for: what was drawn first keeps its share."""
    taken: Array | None = None
    for bleed in bleeds:
        if taken is None:
            taken = bleed.share.copy()
        else:
            np.minimum(bleed.share, 1 - taken, out=bleed.share)
            taken += bleed.share


def paint(hu: Array, blood: list[VolumeBleed], fluid: Array, pixel_mm: float) -> Array:
    """Hounsfield units with the bleeds in them; the noise and the texture of `hu` stay where blood is.

    Args:
        hu: (Z, Y, X), the pushed brain.
        blood: bleeds on the same grid.
        fluid: share of each voxel that is fluid, in and outside of the ventricles.
        pixel_mm: distance of rows and columns.
    """
    out = hu.copy()
    for bleed in blood:
        if bleed.oedema is not None:
            out -= bleed.oedema * (1 - fluid)
    flat = np.clip(hu, -20, 90)
    smooth = ndimage.gaussian_filter(flat, (0, 1.6 / pixel_mm, 1.6 / pixel_mm))
    noise = np.clip(flat - smooth, -25, 25)
    for bleed in blood:
        touched = bleed.share > 0.004
        share, density = bleed.share[touched], bleed.density[touched]
        old = out[touched]
        replaced = np.zeros_like(share)
        if bleed.kind in FLUID_KINDS:
            # Blood in place of fluid brightens a voxel by as much as the voxel holds of it.
            replaced = np.minimum(share, fluid[touched])
            old = old + replaced * (density - FLUID_HU)
        rest = share - replaced
        # Where a voxel is part bone, blood replaces the rest of it, and the voxel grows brighter rather than darker.
        bony = np.clip((old - 60) / 45, 0, 1)
        gone = old + bony * (np.float32(BRAIN_BESIDE_BONE) - old)
        if bleed.kind in SHEET_KINDS and bleed.form not in DURAL_FORMS:
            # The skull's glow adds to what lies beside it, be it brain or blood.
            gone -= (1 - bony) * np.clip(smooth[touched] - np.float32(BRAIN_BESIDE_BONE + 6), 0, 14)
        out[touched] = old + rest * (density + 0.8 * noise[touched] - gone)
    return out


def leave_out_hidden(bleeds: list[VolumeBleed], hu: Array, pixel_mm: float, blur_mm: float = 0.0) -> None:
    """Lower the shares to a tenth where the picture is as white as bone even without blood: a reader sees none there.

    Args:
        bleeds: on the grid of `hu`, painted already.
        hu: (Z, Y, X), the head without the bleeds.
        pixel_mm: distance of rows and columns.
        blur_mm: standard deviation of the scanner's blur, if `hu` is without it.
    """
    for k in range(len(hu)):
        if not any(bleed.share[k].any() for bleed in bleeds):
            continue
        plane = np.clip(hu[k], -20, 700)
        if blur_mm:
            plane = cv2.GaussianBlur(plane, (0, 0), blur_mm / pixel_mm)
        hidden = np.clip((plane - HIDDEN_FROM) / (HIDDEN_TO - HIDDEN_FROM), 0, 1)
        for bleed in bleeds:
            bleed.share[k] *= 1 - np.float32(0.9) * hidden
