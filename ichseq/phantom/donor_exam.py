"""One made-up exam from a donor's head: deformed, turned, bled into, and scanned anew."""

from dataclasses import replace

import numpy as np

from ichseq.phantom.artefacts import hardened
from ichseq.phantom.blood import Blood, VolumeBleed, draw_blood, leave_out_hidden, paint
from ichseq.phantom.donor import Donor
from ichseq.phantom.donor_head import Contrast, DonorHead, draw_contrast, draw_deformation, draw_donor_stack
from ichseq.phantom.exam import Exam
from ichseq.phantom.grid import resized
from ichseq.phantom.head import Array
from ichseq.phantom.lesions import draw_lesions
from ichseq.phantom.lookalikes import draw_lookalikes
from ichseq.phantom.surgery import draw_surgery
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


def slices_hu(
    rng: np.random.Generator,
    head: DonorHead,
    contrast: Contrast,
    bleeds: list[VolumeBleed],
    push: Array | None,
    *,
    table: bool,
) -> Array:
    """HU of the slices in the box, bled into, without the scanner's noise: (n, rows, columns).

    Args:
        rng: of what the head shows beside bleeding.
        head: the deformed head.
        contrast: of its brain.
        bleeds: on the slices' pixels in the box.
        push: of the brain, there.
        table: whether the donor's table stays.
    """
    volume = head.volume(head.heights, 1)
    millimetres = head.coordinates(head.in_donor(volume.place))
    if push is not None:
        millimetres = millimetres - head.moved(push)
    hu, fluid = head.changed_hu(volume, millimetres, contrast)
    if not table:
        volume_head = resized(
            head.found(head.donor.anatomy.head, head.coordinates(head.smooth_place(head.heights, 2))), *hu.shape[1:]
        )
        hu = np.where(volume_head > 0.15, hu, np.float32(AIR))
    shown = replace(volume, hu=hu, skull=np.clip((hu - 200) / 300, 0, 1).astype(np.float32))
    draw_lesions(rng, shown)
    draw_lookalikes(rng, shown)
    draw_surgery(rng, shown)
    if not bleeds:
        return shown.hu
    # Where a voxel is part bone or calcification, blood has the rest.
    bone = np.clip((shown.hu - 120) / 300, 0, 1)
    for one in bleeds:
        one.share *= 1 - bone
    painted = paint(shown.hu, bleeds, fluid, head.stack.pixel)
    leave_out_hidden(bleeds, shown.hu, head.stack.pixel)
    return painted


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
    # From a random stream of their own, so that nothing else depends on them.
    blood_rng = np.random.default_rng(rng.integers(2**63))
    bleeds, push = bleed(blood_rng, head, kinds, contrast.brain_hu)
    hu = slices_hu(rng, head, contrast, bleeds, push, table=table)
    if rng.random() < 0.5:
        # A donor's picture has been corrected for one skull; another scanner or skull leaves more.
        hu = hardened(hu, stack.pixel, rng.uniform(-0.4, 2.2))
    half = (size - 1) / 2 * stack.pixel
    centre = np.array([stack.origins[0, 0] + half, stack.origins[0, 1] + half * np.cos(stack.tilt), 0.0])
    centre[:2] += deformation.centre
    return Exam(stack, centre, head.box, hu, bleeds, head.inherited_labels(), table)
