"""The published way, written plainly as the reference: JPEG of three windows, read and augmented slice by slice.

Facts of the competition's 2nd place: windows 40/80, 80/200 and 40/380 as the channels of a JPEG of 512 x 512 at quality
95; then, for each slice by itself, the black border cut away, a square, a resize, flip, transpose, and shift, scale and
rotation with the border repeated, all on the CPU with OpenCV.
"""

from pathlib import Path

import cv2
import numpy as np
import pydicom
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ichseq.windows import CHANNEL_MEAN, CHANNEL_STD, DEFAULT_WINDOWS, WINDOWS

QUALITY = 95
MEAN = np.array([CHANNEL_MEAN[name] for name in DEFAULT_WINDOWS], np.float32)
STD = np.array([CHANNEL_STD[name] for name in DEFAULT_WINDOWS], np.float32)


def windowed(hu: np.ndarray) -> np.ndarray:
    """Uint8 (rows, columns, 3) of HU (rows, columns)."""
    channels = []
    for name in DEFAULT_WINDOWS:
        centre, width = WINDOWS[name]
        channels.append(np.clip((hu - (centre - width / 2)) / width, 0, 1))
    return np.round(np.stack(channels, axis=-1) * 255).astype(np.uint8)


def convert(source: Path, target: Path) -> None:
    """One DICOM file to one JPEG."""
    slice_ = pydicom.dcmread(source)
    hu = slice_.pixel_array * float(slice_.RescaleSlope) + float(slice_.RescaleIntercept)
    image = windowed(hu)
    if image.shape[:2] != (512, 512):
        image = cv2.resize(image, (512, 512))
    cv2.imwrite(str(target), image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])


def crop(image: np.ndarray) -> np.ndarray:
    """Cut the black border away and pad to a square at the bottom or right."""
    inside = image.max(axis=2) > 0
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if len(rows):
        image = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    side = max(image.shape[:2])
    return cv2.copyMakeBorder(
        image, 0, side - image.shape[0], 0, side - image.shape[1], cv2.BORDER_CONSTANT, value=(0, 0, 0)
    )


def augment(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Augmentation A, drawn for this slice alone."""
    if rng.random() < 0.5:
        image = image[:, ::-1]
    if rng.random() < 0.3:
        side = image.shape[0]
        matrix = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(-20, 20), 1 + rng.uniform(-0.05, 0.05))
        matrix[:, 2] += rng.uniform(-0.05, 0.05, 2) * side
        image = cv2.warpAffine(np.ascontiguousarray(image), matrix, (side, side), borderMode=cv2.BORDER_REPLICATE)
    if rng.random() < 0.5:
        image = image.transpose(1, 0, 2)
    return image


class Slices(Dataset[Tensor]):
    """Slices as float tensors (3, size, size), as a loader of the published kind gives them."""

    def __init__(self, files: list[Path], size: int) -> None:
        self.files, self.size = files, size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> Tensor:
        """Decode, crop, resize, augment, normalise."""
        cv2.setNumThreads(0)
        image = crop(cv2.imread(str(self.files[i])))
        image = cv2.resize(image, (self.size, self.size))
        image = augment(image, np.random.default_rng(i))
        values = (image.astype(np.float32) / 255 - MEAN) / STD
        return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))
