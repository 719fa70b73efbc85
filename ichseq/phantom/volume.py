"""A head as a volume: Hounsfield units, and beside them what bleeding and look-alikes must know of its anatomy.

The grid is aligned with the slices that will be written: x (columns) to the patient's left, y (rows) to the back, z
(planes) up. A drawn head knows its anatomy; that of a donor is found from its Hounsfield units (`donor_anatomy.py`).
`place` tells each voxel where it would lie in the standard head of `anatomy.py`, so that rules such as "beside the
thalamus" hold for every head.
"""

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ichseq.phantom.head import Array
from ichseq.phantom.tissue import soft

BORDER_MM = 1.2


@dataclass
class HeadVolume:
    """A head on a grid of planes, rows and columns (Z, Y, X); every array is float32.

    Attributes:
        hu: (Z, Y, X), Hounsfield units, without bleeding.
        positions_mm: (Z,), height of each plane, ascending, steps of any size.
        pixel_mm: distance of rows and of columns.
        place: (3, Z, Y, X), where the voxel would lie in the standard head, mm: x to the left, y to the back, z up.
        depth_mm: (Z, Y, X), distance to the inner table of the skull, positive inside.
        midline_mm: (Z, Y, X), distance to the falx and its continuation, positive to the patient's left.
        csf: (Z, Y, X), share of each voxel that is fluid outside of the ventricles (sulci, cisterns, fissures), 0 to 1.
        ventricles: (Z, Y, X), share that is ventricle.
        skull: (Z, Y, X), share that is bone.
        down: the way that gravity pulls, a unit vector in the frame of `place`.
        edge_mm: how deep below the inner table the picture is still as white as bone; blood is seen below that only.
    """

    hu: Array
    positions_mm: NDArray[np.float64]
    pixel_mm: float
    place: Array
    depth_mm: Array
    midline_mm: Array
    csf: Array
    ventricles: Array
    skull: Array
    down: tuple[float, float, float] = (0.0, 1.0, 0.0)
    edge_mm: float = 0.0

    def __post_init__(self) -> None:
        """Check that all fields lie on one grid.

        Raises:
            ValueError: a field of another shape, or positions that don't ascend.
        """
        if self.hu.ndim != 3 or self.positions_mm.shape != self.hu.shape[:1] or (np.diff(self.positions_mm) <= 0).any():
            raise ValueError(f"hu {self.hu.shape} and positions {self.positions_mm.shape} are not planes in order")
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray) and field.name != "positions_mm" and value.shape[-3:] != self.hu.shape:
                raise ValueError(f"{field.name} is {value.shape}, the head {self.hu.shape}")

    @cached_property
    def intracranial(self) -> Array:
        """Share of each voxel inside the inner table, 0 to 1."""
        return soft(-self.depth_mm, BORDER_MM)

    @cached_property
    def brain(self) -> Array:
        """Share of each voxel that is brain: inside the skull and no fluid."""
        return self.intracranial * np.clip(1 - self.csf - self.ventricles, 0, 1)

    @cached_property
    def voxel_ml(self) -> Array:
        """Millilitres of a voxel in each plane, (Z, 1, 1): half way to each neighbouring plane."""
        if len(self.positions_mm) == 1:
            return np.full((1, 1, 1), self.pixel_mm**2 * 5 / 1000, np.float32)
        thickness = np.gradient(self.positions_mm)
        return (thickness * self.pixel_mm**2 / 1000).astype(np.float32)[:, None, None]

    @cached_property
    def falx_mm(self) -> Array:
        """Distance to the falx: beside it that to the midline, elsewhere at least that to its free edge."""
        _, y, z = self.place
        # No falx within this ellipse of the median plane: there lie the callosum and the deep structures.
        callosum = (np.sqrt(((y - 4) / 47) ** 2 + ((z - 8) / 27) ** 2) - 1) * 30
        return np.maximum(np.abs(self.midline_mm), np.maximum(6 - callosum, 2 - self.above_tentorium_mm))

    @cached_property
    def above_tentorium_mm(self) -> Array:
        """Height above the tentorium and its continuation, negative in the posterior fossa."""
        x, y, z = self.place
        return (z - np.maximum(5 - 0.4 * np.abs(x) - 0.2 * np.maximum(y - 34, 0), -25)) * np.float32(0.9)

    @cached_property
    def tentorium_mm(self) -> Array:
        """Distance to the tentorium: across the sheet, or that to its free edge and to the petrous ridge."""
        x, y, _ = self.place
        notch = (1 - np.sqrt((x / 19) ** 2 + ((y - 4) / 30) ** 2)) * 19
        return np.maximum(np.abs(self.above_tentorium_mm), np.maximum(notch, -(y - 2 - 0.55 * np.abs(x)) - 2))

    @cached_property
    def height_along_gravity_mm(self) -> Array:
        """How far each voxel lies above the lowest point of a patient on the back, up to a constant."""
        x, y, z = self.place
        return -(x * np.float32(self.down[0]) + y * np.float32(self.down[1]) + z * np.float32(self.down[2]))
