"""An exam made as a volume, on its way to DICOM: the scanner's kernel, noise and offset, table, files and labels."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ichseq.labels import LABELS
from ichseq.phantom.blood import VolumeBleed
from ichseq.phantom.couch import add_couch, draw_couch
from ichseq.phantom.dicom_file import SliceWriter
from ichseq.phantom.head import Array
from ichseq.phantom.scanner import Picture, Pose, Scanner, Stack, draw_scanner, finish
from ichseq.phantom.truth import PARTS, BleedTable, Truth, exam_names, slice_name


@dataclass
class Exam:
    """Slices of one head before the scanner's noise.

    Attributes:
        stack: where the slices lie.
        centre: (3,), the head's middle in patient coordinates, mm, by which the table is placed.
        box: rows and columns that hold the head.
        hu: (n, rows, columns) of the box.
        bleeds: on the same pixels.
        labels: (n, 6), labels that the slices have whatever is put in.
        table: whether `hu` shows a table already, so that none is drawn.
    """

    stack: Stack
    centre: NDArray[np.float64]
    box: tuple[slice, slice]
    hu: Array
    bleeds: list[VolumeBleed]
    labels: NDArray[np.int64]
    table: bool = False


@dataclass(frozen=True)
class Appearance:
    """What a scanner and its settings do to every slice.

    Attributes:
        scanner: noise and streaks.
        blur: standard deviation in pixels; 0: none.
        sharpen: share of the fine detail that is added once more.
        offset: by how much water is off, HU.
        noise_white: standard deviation of noise that no kernel smoothed, HU.
    """

    scanner: Scanner
    blur: float
    sharpen: float
    offset: float
    noise_white: float


def draw_appearance(rng: np.random.Generator, size: int) -> Appearance:
    """Draw kernel, noise (0.5 to 11 HU at 512 pixels) and offset of water (up to 6 HU)."""
    scanner = draw_scanner(rng)
    noise = rng.uniform(0.5, 4) if rng.random() < 0.65 else rng.uniform(4, 11)
    draw = rng.random()
    return Appearance(
        scanner=replace(
            scanner,
            noise=noise,
            kernel=rng.uniform(0.3, 0.9),
            streaks=scanner.streaks * (rng.random() < 0.6),
        ),
        blur=rng.uniform(0.3, 1.0) * size / 256 if draw < 0.3 else 0.0,
        sharpen=rng.uniform(0.3, 1.3) if draw > 0.72 else 0.0,
        offset=float(np.clip(rng.normal(0, 2.5), -6, 6)),
        noise_white=rng.uniform(0, 3) if rng.random() < 0.4 else 0.0,
    )


def write_exam(rng: np.random.Generator, folder: Path, who: tuple[int, int, int], exam: Exam) -> Truth:
    """Scan an exam and write its slices into `folder`/stage_2_<part>.

    Args:
        rng: of the exam.
        folder: of the whole set.
        who: seed, part (0 for train, 1 for test) and number of the patient.
        exam: the slices.
    """
    appearance = draw_appearance(rng, exam.stack.size)
    scanner = replace(appearance.scanner, table=False)
    couch = None if exam.table else draw_couch(rng)
    names, part = exam_names(*who), PARTS[who[1]]
    writer = SliceWriter(names, exam.stack, unsigned=bool(rng.random() < 0.08), padded=scanner.circle)
    pose = Pose(exam.centre, np.eye(3))
    counter = BleedTable(exam.bleeds, exam.stack, small=True)
    labels = []
    for index, hu in enumerate(exam.hu):
        picture = Picture(_sharpened(hu, appearance), exam.box, [bleed.share[index] for bleed in exam.bleeds])
        image = finish(rng, scanner, picture, exam.stack, pose, index)
        if couch is not None:
            x, y = _from_middle(exam, index)
            add_couch(couch, image, x, y)
        if appearance.noise_white:
            image += np.float32(appearance.noise_white) * rng.standard_normal(image.shape, dtype=np.float32)
        image += np.float32(appearance.offset)
        sop = slice_name(*who, index)
        writer.write(folder / f"stage_2_{part}" / f"{sop}.dcm", sop, exam.stack.origins[index], image)
        found = np.maximum(counter.add(index, picture), exam.labels[index])
        labels.append((sop, tuple(int(value) for value in found)))
    assert all(len(values) == len(LABELS) for _, values in labels)
    return counter.truth(names, part, labels)


def _from_middle(exam: Exam, index: int) -> tuple[Array, Array]:
    """Distances of a slice's columns and rows from the middle of the head, mm."""
    stack, steps = exam.stack, np.arange(exam.stack.size) * exam.stack.pixel
    gap = stack.origins[index] - exam.centre
    return (gap[0] + steps).astype(np.float32), (gap[1] + steps * stack.down_column[1]).astype(np.float32)


def _sharpened(hu: Array, appearance: Appearance) -> Array:
    """A slice through another kernel: smoother, sharper or as it is."""
    if appearance.blur:
        return ndimage.gaussian_filter(hu, appearance.blur)
    if appearance.sharpen:
        fine = np.clip(hu, -200, 400)
        return hu + np.float32(appearance.sharpen) * (fine - ndimage.gaussian_filter(fine, 1.0))
    return hu
