"""A donor's head under a deformation: how it is drawn, where its slices lie, and how it is read there."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ichseq.phantom.blood import FLUID_HU
from ichseq.phantom.donor import Donor
from ichseq.phantom.grid import interpolated, resized
from ichseq.phantom.head import Array
from ichseq.phantom.scanner import Stack, draw_gaps
from ichseq.phantom.tissue import AIR
from ichseq.phantom.volume import HeadVolume

COARSE_PIXELS = 8
BEND_STEP = 24.0
# The inner table is found where a donor's bone falls below 220 HU; so much deeper it no longer is white.
EDGE_MM = 1.8


@dataclass(frozen=True)
class Deformation:
    """How a donor's head becomes another one.

    Attributes:
        scale: along x, y and z of the head, against the donor.
        mirrored: left for right.
        axes: (3, 3), rows: the new head's x, y and z in the image's frame.
        centre: (2,), where the head's middle lies from that of the image, x and y, mm.
        bend: (3, 9, 9, 9), displacement in mm on a lattice of `BEND_STEP` about the centre of the head.
    """

    scale: NDArray[np.float64]
    mirrored: bool
    axes: NDArray[np.float64]
    centre: NDArray[np.float64]
    bend: Array


def draw_deformation(rng: np.random.Generator) -> Deformation:
    """Draw size and shape, side, pose (turned by up to 35 degrees, more often by a few), and place in the image."""
    turn = rng.uniform(-35, 35) if rng.random() < 0.25 else rng.normal(0, 6)
    nod, lean = rng.normal(0, 5), rng.normal(0, 3)
    bend = ndimage.gaussian_filter(rng.standard_normal((3, 9, 9, 9)), (0, 0.9, 0.9, 0.9))
    bend *= rng.uniform(1.0, 4.0) / bend.std()
    return Deformation(
        scale=rng.normal(1, 0.035) * np.exp(rng.normal(0, 0.035, 3)),
        mirrored=bool(rng.random() < 0.5),
        axes=_turned(*np.deg2rad(np.clip([turn, nod, lean], -35, 35))),
        centre=rng.normal(0, 5, 2),
        bend=bend.astype(np.float32),
    )


def _turned(turn: float, nod: float, lean: float) -> NDArray[np.float64]:
    """Axes of a head turned about z, nodded about x and leant about y."""
    ct, st, cn, sn, cl, sl = np.cos(turn), np.sin(turn), np.cos(nod), np.sin(nod), np.cos(lean), np.sin(lean)
    about_z = np.array([[ct, st, 0], [-st, ct, 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, cn, sn], [0, -sn, cn]])
    about_y = np.array([[cl, 0, -sl], [0, 1, 0], [sl, 0, cl]])
    rotation: NDArray[np.float64] = about_y @ about_x @ about_z
    return rotation


def draw_donor_stack(
    rng: np.random.Generator, donor: Donor, deformation: Deformation, size: int
) -> tuple[Stack, float]:
    """Draw field of view (180 to 300 mm) and slices: 20 to 60, evenly spaced or thicker above, within the donor's.

    Returns:
        The stack, and the height of its first slice above the middle of the head, mm.
    """
    planes = donor.positions_mm - donor.positions_mm[0]
    matrix, offset = donor.to_place
    scale_z = donor.anatomy.scale[2] * deformation.scale[2]
    lowest = (matrix[2, 0] * planes[0] + offset[2]) * scale_z
    low = max(-rng.uniform(42, 74) * scale_z, lowest)
    # Some stacks end in the brain's last slices, others graze the skull of the vertex or go on into air.
    top = rng.uniform(80, 90) if rng.random() < 0.6 else rng.uniform(86, 102)
    high = min(top, matrix[2, 0] * planes[-1] + offset[2]) * scale_z
    n = rng.normal(33, 3) if rng.random() < 0.8 else rng.uniform(20, 60)
    n = int(np.clip(round(float(n)), 20, 60))
    gaps = draw_gaps(rng, n, high - low)
    heights = low + np.cumsum(gaps) - gaps / 2
    view = rng.uniform(180, 300) if rng.random() < 0.3 else rng.uniform(215, 252)
    half = view / 2 - view / size / 2
    tilt = 0.0 if rng.random() < 0.3 else float(np.deg2rad(rng.uniform(3, 22)))
    start = np.round(np.array([rng.normal(0, 4), rng.normal(-10, 12), rng.uniform(-20, 60)]), 3)
    # The table moves along z alone, which heights across tilted slices are turned into.
    z = start[2] + (heights - heights[0]) / np.cos(tilt)
    origins = np.stack([np.full(n, start[0] - half), np.full(n, start[1] - half), z], axis=1)
    return Stack(np.round(origins, 6), tilt, gaps, view / size, size), float(heights[0])


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


class DonorHead:
    """A donor's head under one deformation, which can be read at any plane of the image's frame."""

    def __init__(self, donor: Donor, deformation: Deformation, stack: Stack, first_height: float) -> None:
        """`first_height` is that of the stack's first slice above the middle of the head, mm."""
        self.donor, self.deformation, self.stack = donor, deformation, stack
        self.heights: NDArray[np.float64] = (stack.origins - stack.origins[0]) @ stack.normal + first_height
        self.matrix, self.offset = donor.to_place
        self.scale = np.array(donor.anatomy.scale)
        self.from_place = np.linalg.inv(self.matrix)
        self.box = self._head_box()

    def place(self, heights: NDArray[np.float64], rows: Array, columns: Array) -> Array:
        """Place in the standard head (3, Z, Y, X) of points given by heights (mm), rows and columns (pixels)."""
        d = self.deformation
        middle = (self.stack.size - 1) / 2
        u = (columns - middle) * self.stack.pixel - d.centre[0]
        v = (rows - middle) * self.stack.pixel - d.centre[1]
        # The table moves along z alone, so a tilted stack slides across the head; it is centred half way up.
        slide = (self.heights.mean() - heights) * np.tan(self.stack.tilt)
        w, v = heights[:, None, None], v[None, :, None] + slide[:, None, None]
        point = [(axis[2] * w + axis[1] * v + axis[0] * u[None, None, :]).astype(np.float32) for axis in d.axes]
        lattice = np.stack([p / np.float32(BEND_STEP) + np.float32(4) for p in point])
        sign = -1 if d.mirrored else 1
        out = np.empty_like(lattice)
        for axis, p in enumerate(point):
            moved = p + ndimage.map_coordinates(d.bend[axis], lattice, order=1, mode="nearest")
            size = d.scale[axis] * self.scale[axis]
            out[axis] = moved / np.float32((sign if axis == 0 else 1) * size)
        return out

    def coordinates(self, place: Array) -> Array:
        """Millimetres (3, ...) along z, y and x of the donor's grid for places of the standard head."""
        p = place - self.offset.astype(np.float32).reshape(3, 1, 1, 1)
        return np.tensordot(self.from_place.astype(np.float32), p, 1)

    def found(self, field: Array, millimetres: Array) -> Array:
        """A field of the donor's anatomy at points in millimetres of its grid."""
        return interpolated(field, millimetres / np.array(self.donor.anatomy.step, np.float32).reshape(3, 1, 1, 1))

    def pixels(self, volume: NDArray[np.generic], millimetres: Array, fill: float) -> Array:
        """The donor's pixels at points in millimetres of its grid; `fill` outside of the image."""
        donor = self.donor
        heights = donor.positions_mm - donor.positions_mm[0]
        # The coarse grid's points are the middles of blocks of pixels.
        offset = (donor.anatomy.step[1] / donor.pixel_mm - 1) / 2
        points = millimetres / np.float32(donor.pixel_mm) + np.float32(offset)
        points[0] = np.interp(millimetres[0], heights, np.arange(len(heights)))
        return interpolated(volume, points, fill)

    def _head_box(self) -> tuple[slice, slice]:
        """Rows and columns that hold the head, a few pixels wider; their numbers can be divided by 8."""
        n = self.stack.size // COARSE_PIXELS
        centres = (np.arange(n) + 0.5) * COARSE_PIXELS - 0.5
        heights = self.heights[:: max(1, len(self.heights) // 9)]
        head = self.found(self.donor.anatomy.head, self.coordinates(self.place(heights, centres, centres)))
        ends = []
        for axis in (1, 2):
            seen = np.flatnonzero((head > 0.1).any(axis=(0, 3 - axis)))
            first, last = (int(seen[0]), int(seen[-1])) if len(seen) else (0, n - 1)
            ends.append(slice(max(first - 1, 0) * COARSE_PIXELS, min(last + 2, n) * COARSE_PIXELS))
        return ends[0], ends[1]

    def inherited_labels(self) -> NDArray[np.int64]:
        """Labels that the donor's own bleeding gives the slices (n, 6): those of the nearest slice of the donor."""
        middle = np.array([(self.stack.size - 1) / 2])
        heights = self.coordinates(self.place(self.heights, middle, middle))[0, :, 0, 0]
        own = self.donor.positions_mm - self.donor.positions_mm[0]
        return self.donor.labels[np.abs(heights[:, None] - own[None, :]).argmin(1)]

    def smooth_place(self, heights: NDArray[np.float64], factor: int = 1) -> Array:
        """`place` for the box, on a grid of `factor` pixels, computed on a coarse one and interpolated."""
        rows, columns = self.box
        points = [(np.arange(b.start, b.stop, COARSE_PIXELS) + (COARSE_PIXELS - 1) / 2) for b in (rows, columns)]
        shape = (rows.stop - rows.start) // factor, (columns.stop - columns.start) // factor
        return np.stack([resized(p, *shape) for p in self.place(heights, points[0], points[1])])

    def volume(self, heights: NDArray[np.float64], factor: int) -> HeadVolume:
        """The head with its anatomy on planes at these heights; `hu` stays that of air, which bleeding doesn't read."""
        anatomy, d = self.donor.anatomy, self.deformation
        place = self.smooth_place(heights, factor)
        half = self.smooth_place(heights, 2 * factor)
        millimetres, coarse = self.coordinates(place), self.coordinates(half)
        shape = place.shape[2:]
        depth, near, folds = (
            resized(self.found(field, coarse), *shape)
            for field in (anatomy.depth_mm, anatomy.near_ventricle, anatomy.near_folds)
        )
        fluid = self.pixels(self.donor.fluid, millimetres, 0) / np.float32(255)
        fluid *= np.clip(depth / 2 + 0.5, 0, 1)
        size = self.scale * d.scale
        down = d.axes[:, 1]
        shown = place.copy()
        shown[0] *= -1 if d.mirrored else 1  # in the image, not in the donor
        return HeadVolume(
            hu=np.full(fluid.shape, AIR, np.float32),
            positions_mm=heights,
            pixel_mm=self.stack.pixel * factor,
            place=shown,
            depth_mm=depth * np.float32(d.scale.mean()),
            midline_mm=shown[0] * np.float32(size[0]),
            csf=fluid * folds * (1 - near),
            # A scar beside a ventricle is not as dark as fluid.
            ventricles=np.clip((fluid - 0.45) / 0.35, 0, 1) * near,
            skull=np.zeros_like(fluid),
            down=(float(down[0]), float(down[1]), float(down[2])),
            edge_mm=EDGE_MM,
        )

    def in_donor(self, shown: Array) -> Array:
        """Places in the donor of places in the image, which shows it mirrored or not."""
        if not self.deformation.mirrored:
            return shown
        return shown * np.array([-1, 1, 1], np.float32).reshape(3, 1, 1, 1)

    def moved(self, push: Array) -> Array:
        """A push in mm of the image, as millimetres of the donor's grid."""
        size = (self.scale * self.deformation.scale).astype(np.float32).reshape(3, 1, 1, 1)
        return np.tensordot(self.from_place.astype(np.float32), self.in_donor(push / size), 1)

    def changed_hu(self, volume: HeadVolume, millimetres: Array, contrast: Contrast) -> tuple[Array, Array]:
        """The donor's HU at points of its grid, as the new head has them, and the share of fluid there.

        Args:
            volume: the new head on the same grid.
            millimetres: (3, Z, Y, X).
            contrast: of the new head.
        """
        hu = self.pixels(self.donor.hu, millimetres, AIR)
        anatomy, shape = self.donor.anatomy, hu.shape[1:]
        inside = np.clip(volume.depth_mm / 2 + 1, 0, 1)
        fluid = self.pixels(self.donor.fluid, millimetres, 0) / np.float32(255) * inside
        half = millimetres[:, :, ::2, ::2]
        if contrast.closed:
            folds = resized(self.found(anatomy.near_folds * (1 - anatomy.near_ventricle), half), *shape)
            filled = fluid * folds * np.float32(contrast.closed)
            hu += filled * np.float32(anatomy.brain_hu + 2 - FLUID_HU)
            fluid -= filled
        if contrast.healed:
            hu += np.float32(contrast.healed) * resized(self.found(anatomy.pale_hu, half), *shape)
        mapped = np.interp(hu, contrast.old, contrast.new).astype(np.float32)
        hu += inside * (mapped - hu) * ((hu > -200) & (hu < 200))
        return hu, fluid
