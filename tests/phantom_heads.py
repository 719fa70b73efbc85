"""Heads without bleeding whose anatomy is known, for what is made from heads: drawn by the analytic generator."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ichseq.phantom.anatomy import head_fields
from ichseq.phantom.dicom_file import SliceWriter
from ichseq.phantom.donor_anatomy import fluid_share
from ichseq.phantom.head import draw_head
from ichseq.phantom.scanner import Picture, draw_scanner, draw_stack, finish, take_slice
from ichseq.phantom.volume import HeadVolume


@dataclass
class KnownHead:
    """HU (Z, Y, X) of a head with noise and table, and what is true of it on the same grid."""

    hu: np.ndarray
    positions_mm: np.ndarray
    pixel_mm: float
    cavity: np.ndarray  # distance to the inner table, negative inside, mm of the standard head
    standard: np.ndarray  # (3, Z, Y, X), place in the standard head
    ventricle: np.ndarray  # distance to the ventricles, negative inside


def known_head(seed: int, size: int = 64, folder: Path | None = None) -> KnownHead:
    """Draw one; with a folder, its slices are written there as DICOM as well."""
    rng = np.random.default_rng(seed)
    head = draw_head(rng)
    stack, pose = draw_stack(rng, head, size)
    scanner = draw_scanner(rng)
    positions = (stack.origins - stack.origins[0]) @ stack.normal
    writer = None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        writer = SliceWriter([f"donor{seed}", f"study{seed}", f"series{seed}"], stack, unsigned=False, padded=False)
    images, cavities, places, ventricles = [], [], [], []
    steps = np.arange(size) * stack.pixel
    for index in range(len(stack.origins)):
        picture: Picture = take_slice(head, [], stack, pose, index)
        images.append(finish(rng, scanner, picture, stack, pose, index))
        if writer is not None and folder is not None:
            writer.write(folder / f"{index:03d}.dcm", f"slice{seed}.{index}", stack.origins[index], images[-1])
        start = stack.origins[index] - pose.centre
        point = start + steps[:, None, None] * stack.down_column + steps[None, :, None] * np.array([1.0, 0, 0])
        place = [(point @ axis / scale).astype(np.float32) for axis, scale in zip(pose.axes, head.scale, strict=True)]
        fields = head_fields(head, *place)
        cavities.append(fields["cavity"])
        ventricles.append(fields["ventricle"])
        places.append(np.stack(place))
    return KnownHead(
        np.stack(images), positions, stack.pixel, np.stack(cavities), np.stack(places, 1), np.stack(ventricles)
    )


def known_volume(seed: int, size: int = 64) -> HeadVolume:
    """The same head as a volume, its anatomy as it was drawn and its fluid found from its HU."""
    known = known_head(seed, size)
    fluid = fluid_share(known.hu, 30.0, known.pixel_mm)
    ventricles = np.clip(0.5 - known.ventricle / 2, 0, 1)
    inside = known.cavity < 0
    return HeadVolume(
        hu=known.hu,
        positions_mm=known.positions_mm,
        pixel_mm=known.pixel_mm,
        place=known.standard,
        depth_mm=-known.cavity,
        midline_mm=known.standard[0],
        csf=np.where(inside & (ventricles < 0.1), fluid, 0).astype(np.float32),
        ventricles=np.where(inside, ventricles, 0).astype(np.float32),
        skull=((known.hu > 300) & ~inside).astype(np.float32),
    )
