"""One exam of a drawn head: who lies how in which scanner, bleeding, look-alikes, and the pictures of the slices."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import ndimage, sparse

from ichseq.phantom.artefacts import apply_artefacts, draw_artefacts
from ichseq.phantom.blood import Blood, VolumeBleed, draw_blood, leave_out_hidden, paint
from ichseq.phantom.couch import add_couch, draw_couch
from ichseq.phantom.dicom_file import SliceWriter
from ichseq.phantom.drawn import DrawnVolume, Grid, draw_volume
from ichseq.phantom.head import Array
from ichseq.phantom.lesions import draw_lesions
from ichseq.phantom.lookalikes import draw_lookalikes
from ichseq.phantom.person import draw_person
from ichseq.phantom.scanner import Picture, Pose, Stack, head_axes
from ichseq.phantom.surgery import draw_surgery
from ichseq.phantom.tissue import AIR
from ichseq.phantom.truth import PARTS, BleedTable, Truth, exam_names, slice_name

LEAST_PIXEL = 0.95
# Of kernel and pixels together: how far bone whitens its surroundings.
BLUR_MM = 0.9
REACH_ROWS, REACH_COLUMNS = (-126.0, 118.0), (-98.0, 98.0)


@dataclass
class DrawnExam:
    """The slices of one exam, and what each bleed fills of them.

    Attributes:
        stack: where the slices lie.
        hu: (n, size, size), as the scanner shows them.
        bleeds: with shares and density on the slices, (n, size, size).
        padded: whether the image is cut to a circle.
    """

    stack: Stack
    hu: Array
    bleeds: list[VolumeBleed]
    padded: bool


def drawn_exam(rng: np.random.Generator, kinds: list[str], size: int) -> DrawnExam:
    """Draw an exam.

    Nothing that is drawn depends on `kinds` but the bleeds: they come from a random stream of their own.

    Args:
        rng: of the patient.
        kinds: of bleeding, as `draw_kinds` gives them.
        size: rows and columns of a slice.
    """
    blood_rng = np.random.default_rng(rng.integers(2**63))
    person = draw_person(rng)
    stack, pose, profile = draw_exam_geometry(rng, person.head.scale, size)
    artefacts, couch = draw_artefacts(rng), draw_couch(rng)
    # Thin slices gather fewer photons.
    artefacts = replace(artefacts, noise=min(artefacts.noise * float(np.sqrt(4.5 / max(profile, 2.0))), 13.0))
    padded = bool(rng.random() < 0.5)
    grid, parts = volume_grid(stack, pose, profile)
    volume = draw_volume(person, grid, pose)
    draw_lesions(rng, volume)
    draw_lookalikes(rng, volume)
    draw_surgery(rng, volume)
    blood = draw_blood(blood_rng, volume, kinds, person.head.white + 3) if kinds else Blood()
    pushed(volume, blood)
    bone = np.clip((volume.hu - 120) / 300, 0, 1)
    for bleed in blood.bleeds:
        bleed.share *= 1 - bone
    hu = paint(volume.hu, blood.bleeds, volume.csf + volume.ventricles, volume.pixel_mm) if kinds else volume.hu
    leave_out_hidden(blood.bleeds, volume.hu, volume.pixel_mm, BLUR_MM)
    hu, bleeds = _slices(hu, blood.bleeds, parts)
    images = np.full((len(hu), size, size), AIR, np.float32)
    shares = [np.zeros_like(images) for _ in bleeds]
    for k in range(len(hu)):
        down, across, x, y = _to_pixels(stack, pose, grid, k)
        images[k] = (across @ (down @ (hu[k] - AIR)).T).T + AIR
        add_couch(couch, images[k], x, y)
        for share, bleed in zip(shares, bleeds, strict=True):
            if bleed.share[k].any():
                share[k] = (across @ (down @ bleed.share[k]).T).T
    pictures = apply_artefacts(rng, artefacts, images, stack.pixel)
    return DrawnExam(stack, pictures, [replace(b, share=s) for b, s in zip(bleeds, shares, strict=True)], padded)


def draw_exam_geometry(
    rng: np.random.Generator, scale: tuple[float, float, float], size: int
) -> tuple[Stack, Pose, float]:
    """Draw where slices and head lie, and how thick a layer each slice shows (mm); slices may have gaps between them.

    Fields of view from 180 to 300 mm, 20 to 60 slices, tilt to 22 degrees, heads turned by up to 35 degrees.
    """
    tilt = 0.0 if rng.random() < 0.35 else float(np.deg2rad(rng.uniform(3, 22)))
    top = rng.uniform(78, 90) if rng.random() < 0.6 else rng.uniform(86, 102)
    low, high = -rng.uniform(46, 78) * scale[2], top * scale[2]
    n = rng.normal(32, 3) if rng.random() < 0.8 else rng.uniform(20, 60)
    n = int(np.clip(round(float(n)), 20, 60))
    gaps = np.ones(n)
    if rng.random() < 0.3:
        gaps[int(n * rng.uniform(0.35, 0.55)) :] = rng.choice((1.4, 1.75))
    gaps *= (high - low) / gaps.sum()
    heights = low + np.cumsum(gaps) - gaps / 2
    profile = float(np.median(gaps)) if rng.random() < 0.75 else float(rng.uniform(0.6, np.median(gaps)))
    view = rng.uniform(180, 300) if rng.random() < 0.3 else rng.uniform(212, 256)
    half = view / 2 - view / size / 2
    c, s = np.cos(tilt), np.sin(tilt)
    centre = np.round(np.array([rng.normal(0, 5), rng.normal(-10, 12), rng.uniform(-20, 60)]), 3)
    y = centre[1] - half * c + (low + high) / 2 * s - 4 + rng.normal(0, 5)
    z = (centre[2] * c + heights - (y - centre[1]) * s) / c
    origins = np.stack([np.full(n, centre[0] - half + rng.normal(0, 5)), np.full(n, y), z], axis=1)
    turn = rng.uniform(-35, 35) if rng.random() < 0.25 else rng.normal(0, 6)
    nod, lean = rng.normal(0, 6), rng.normal(0, 4)
    turn, nod, lean = np.deg2rad(np.clip([turn, nod, lean], -35, 35))
    pose = Pose(centre, head_axes(turn, nod + tilt, lean))
    return Stack(np.round(origins, 6), tilt, gaps, view / size, size), pose, profile


def volume_grid(stack: Stack, pose: Pose, profile: float) -> tuple[Grid, int]:
    """The grid on which a head is drawn for these slices, and how many planes of it make a slice."""
    parts = 1 if profile < 1.5 else 2
    middle = (stack.origins - pose.centre) @ stack.normal
    layer = np.minimum(stack.thickness, profile)
    offsets = (np.arange(parts) + 0.5) / parts - 0.5
    heights = (middle[:, None] + layer[:, None] * offsets).ravel()
    step = max(LEAST_PIXEL, (1.15 if stack.size <= 256 else 1.0) * stack.pixel)
    # A head that is turned or nods reaches further to the sides.
    rows, columns = np.arange(*REACH_ROWS, step), np.arange(*REACH_COLUMNS, step)
    axes = pose.axes
    y_axis = float(np.hypot(axes[1] @ stack.down_column, axes[1][0]))
    turned = abs(float(axes[1][0])) / max(y_axis, 1e-6)
    extra = 26 * turned
    columns = np.arange(REACH_COLUMNS[0] - extra, REACH_COLUMNS[1] + extra, step)
    return Grid(rows, columns, heights, stack.down_column, stack.normal), parts


def pushed(volume: DrawnVolume, blood: Blood) -> None:
    """Move the tissue of a volume as its bleeds push it."""
    if blood.push is None:
        return
    index = np.flatnonzero((np.abs(blood.push).max(axis=0) > 0.05) & (volume.depth_mm > -2))
    if not index.size:
        return
    shape = volume.hu.shape
    points = np.stack(np.unravel_index(index, shape)).astype(np.float32)
    moved = [axis.reshape(-1)[index] for axis in blood.push]
    heights = np.interp(points[0], np.arange(shape[0]), volume.positions_mm) - moved[2]
    points[0] = np.interp(heights, volume.positions_mm, np.arange(shape[0]))
    points[1] -= moved[1] / np.float32(volume.pixel_mm)
    points[2] -= moved[0] / np.float32(volume.pixel_mm)
    for name in ("hu", "csf", "ventricles"):
        field = getattr(volume, name)
        # What lies beyond the skull stays there.
        source = np.where(volume.depth_mm < 0.5, np.float32(30), field) if name == "hu" else field
        value = ndimage.map_coordinates(source, points, np.float32, order=1, mode="nearest", prefilter=False)
        inside = np.clip(volume.depth_mm.reshape(-1)[index] + 0.5, 0, 1)
        flat = field.reshape(-1)
        flat[index] += inside * (value - flat[index])


def _slices(hu: Array, bleeds: list[VolumeBleed], parts: int) -> tuple[Array, list[VolumeBleed]]:
    """Means over the planes of each slice."""

    def mean(field: Array) -> Array:
        averaged: Array = field.reshape(-1, parts, *field.shape[1:]).mean(axis=1)
        return averaged

    return mean(hu), [replace(b, share=mean(b.share), density=b.density[::parts], oedema=None) for b in bleeds]


def _to_pixels(
    stack: Stack, pose: Pose, grid: Grid, index: int
) -> tuple[sparse.csr_array, sparse.csr_array, Array, Array]:
    """Matrices from the grid's rows and columns to a slice's pixels, and where these lie from the head's middle."""
    gap = stack.origins[index] - pose.centre
    steps = np.arange(stack.size) * stack.pixel
    x, y = float(gap[0]) + steps, float(gap @ stack.down_column) + steps
    return _weights(grid.rows, y), _weights(grid.columns, x), x.astype(np.float32), y.astype(np.float32)


def _weights(points: Array, places: Array) -> sparse.csr_array:
    """Linear weights (places, points); zero beyond the points."""
    index = (places - points[0]) / (points[1] - points[0])
    low = np.floor(index).astype(int)
    t = index - low
    columns = np.stack([low, low + 1], axis=1)
    values = np.stack([1 - t, t], axis=1)
    outside = (columns < 0) | (columns >= len(points))
    values[outside], columns[outside] = 0, 0
    starts = np.arange(len(places) + 1) * 2
    return sparse.csr_array((values.astype(np.float32).ravel(), columns.ravel(), starts), (len(places), len(points)))


def write_drawn_exam(rng: np.random.Generator, folder: Path, who: tuple[int, int, int], exam: DrawnExam) -> Truth:
    """Write an exam's slices into `folder`/stage_2_<part>; `who` is seed, part and number of the patient."""
    names, part = exam_names(*who), PARTS[who[1]]
    writer = SliceWriter(names, exam.stack, unsigned=bool(rng.random() < 0.08), padded=exam.padded)
    counter = BleedTable(exam.bleeds, exam.stack, small=True)
    whole = (slice(0, exam.stack.size),) * 2
    labels = []
    for index, hu in enumerate(exam.hu):
        sop = slice_name(*who, index)
        writer.write(folder / f"stage_2_{part}" / f"{sop}.dcm", sop, exam.stack.origins[index], hu)
        picture = Picture(hu, whole, [bleed.share[index] for bleed in exam.bleeds])
        labels.append((sop, counter.add(index, picture)))
    return counter.truth(names, part, labels)
