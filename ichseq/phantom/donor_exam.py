"""One made-up exam from a donor's head: deformed, turned, bled into, and scanned anew."""

from dataclasses import dataclass

import numpy as np

from ichseq.phantom.blood import FLUID_HU, Blood, VolumeBleed, draw_blood, paint
from ichseq.phantom.donor import Donor
from ichseq.phantom.donor_head import DonorHead, draw_deformation, draw_donor_stack
from ichseq.phantom.exam import Exam
from ichseq.phantom.grid import resized
from ichseq.phantom.head import Array
from ichseq.phantom.tissue import AIR

GRID_LEAST_MM = 0.75


def bleed(
    rng: np.random.Generator, head: DonorHead, kinds: list[str], brain_hu: float
) -> tuple[list[VolumeBleed], Array | None]:
    """Draw bleeds into the head; each one's shares and density on the slices' pixels in the box, and the push there."""
    if not kinds:
        return [], None
    stack = head.stack
    factor = 2 if stack.pixel < GRID_LEAST_MM and stack.size % 16 == 0 else 1
    parts = np.array([-0.25, 0.25])
    heights = (head.heights[:, None] + parts * stack.thickness[:, None]).ravel()
    volume = head.volume(heights, factor)
    blood = draw_blood(rng, volume, kinds, brain_hu)
    return _on_slices(blood, len(parts), head.box)


def _on_slices(blood: Blood, parts: int, box: tuple[slice, slice]) -> tuple[list[VolumeBleed], Array | None]:
    shape = box[0].stop - box[0].start, box[1].stop - box[1].start

    def mean(field: Array) -> Array:
        averaged = field.reshape(-1, parts, *field.shape[1:]).mean(1)
        return averaged if averaged.shape[1:] == shape else resized(averaged, *shape)

    bleeds = []
    for one in blood.bleeds:
        share = mean(one.share)
        density = np.where(share > 0, mean(one.share * one.density) / np.maximum(share, 1e-3), one.hu)
        density = np.clip(density, 0, 100).astype(np.float32)
        oedema = None if one.oedema is None else mean(one.oedema)
        bleeds.append(VolumeBleed(one.kind, one.form, one.hu, share, density, oedema))
    push = None if blood.push is None else np.stack([mean(axis) for axis in blood.push])
    return bleeds, push


@dataclass(frozen=True)
class Contrast:
    """What becomes of the donor's HU inside the skull.

    Attributes:
        brain_hu: of the new brain.
        old, new: knots of a map from the donor's HU to the new head's.
        closed: share of the sulci and cisterns' fluid that gives way to brain, as in the young.
        healed: share of scars and of pale white matter that becomes healthy brain.
    """

    brain_hu: float
    old: Array
    new: Array
    closed: float
    healed: float


def draw_contrast(rng: np.random.Generator, brain_hu: float) -> Contrast:
    """Draw the new head's baseline (25 to 42 HU), its fluid, and its grey against its white matter."""
    baseline = float(np.clip(rng.normal(32.5, 3.5), 25, 42))
    gain = rng.uniform(0.75, 1.35)
    fluid = rng.uniform(3, 11)
    old = [-200, -10, 7, brain_hu - 8, brain_hu + 8, 90, 200]
    new = [-200, fluid - 14, fluid, baseline - 8 * gain, baseline + 8 * gain, max(92, baseline + 45), 204]
    closed = rng.uniform(0, 0.95) if rng.random() < 0.6 else 0.0
    healed = rng.uniform(0, 1) if rng.random() < 0.7 else 0.0
    return Contrast(baseline, np.array(old, np.float32), np.array(new, np.float32), closed, healed)


def slices_hu(
    head: DonorHead, contrast: Contrast, bleeds: list[VolumeBleed], push: Array | None, *, table: bool
) -> Array:
    """HU of the slices in the box, bled into, without the scanner's noise: (n, rows, columns).

    Args:
        head: the deformed head.
        contrast: of its brain.
        bleeds: on the slices' pixels in the box.
        push: of the brain, there.
        table: whether the donor's table stays.
    """
    place = head.smooth_place(head.heights)
    millimetres = head.coordinates(place)
    still = millimetres
    if push is not None:
        # Pushes are those of the image; the donor's x may run the other way.
        size = (head.scale * head.deformation.scale).astype(np.float32)
        sign = np.array([-1 if head.deformation.mirrored else 1, 1, 1], np.float32) / size
        moved = push * sign.reshape(3, 1, 1, 1)
        millimetres = millimetres - np.tensordot(head.from_place.astype(np.float32), moved, 1)
    hu = head.pixels(head.donor.hu, millimetres, AIR)
    anatomy = head.donor.anatomy
    half, moved_half = still[:, :, ::2, ::2], millimetres[:, :, ::2, ::2]
    inside = np.clip(resized(head.found(anatomy.depth_mm, half), *hu.shape[1:]) / 2 + 1, 0, 1)
    fluid = head.pixels(head.donor.fluid, millimetres, 0) / np.float32(255) * inside
    if contrast.closed:
        folds = resized(head.found(anatomy.near_folds * (1 - anatomy.near_ventricle), moved_half), *hu.shape[1:])
        filled = fluid * folds * np.float32(contrast.closed)
        hu += filled * np.float32(anatomy.brain_hu + 2 - FLUID_HU)
        fluid -= filled
    if contrast.healed:
        pale = resized(head.found(anatomy.pale_hu, moved_half), *hu.shape[1:])
        hu += np.float32(contrast.healed) * pale
    mapped = np.interp(hu, contrast.old, contrast.new).astype(np.float32)
    hu += inside * (mapped - hu) * ((hu > -200) & (hu < 200))
    if bleeds:
        bone = np.clip((hu - 120) / 300, 0, 1)
        for one in bleeds:
            one.share *= 1 - bone
        hu = paint(hu, bleeds, fluid, head.stack.pixel)
    if not table:
        head_share = resized(head.found(anatomy.head, half), *hu.shape[1:])
        hu = np.where(head_share > 0.15, hu, np.float32(AIR))
    return hu


def donor_exam(rng: np.random.Generator, donor: Donor, kinds: list[str], size: int) -> Exam:
    """Make an exam from a donor's head.

    Args:
        rng: of the exam.
        donor: whose head it is.
        kinds: of bleeding that is put in.
        size: rows and columns of a slice.
    """
    deformation = draw_deformation(rng)
    stack, first_height = draw_donor_stack(rng, donor, deformation, size)
    head = DonorHead(donor, deformation, stack, first_height)
    contrast, table = draw_contrast(rng, donor.anatomy.brain_hu), bool(rng.random() < 0.5)
    bleeds, push = bleed(rng, head, kinds, contrast.brain_hu)
    hu = slices_hu(head, contrast, bleeds, push, table=table)
    half = (size - 1) / 2 * stack.pixel
    centre = np.array([stack.origins[0, 0] + half, stack.origins[0, 1] + half * np.cos(stack.tilt), 0.0])
    centre[:2] += deformation.centre
    return Exam(stack, centre, head.box, hu, bleeds, head.inherited_labels(), table)
