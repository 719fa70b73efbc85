"""The scanner: where the slices lie, and the picture of each with partial volume, noise and streaks."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from ichseq.phantom.anatomy import Fields, head_fields
from ichseq.phantom.bleeding import Bleed, bleed_fields, blood_share, midline_shift, oedema_share, reaches
from ichseq.phantom.face import add_face
from ichseq.phantom.head import Array, Head
from ichseq.phantom.tissue import AIR, cut_parts, hounsfield

SUB_PLANES = (-1 / 3, 0.0, 1 / 3)
FIELD_STEP = 2.0
STRIP_PIXELS = 20_000
SHIFT_CENTRE, SHIFT_WIDTH = (0.0, 0.0, 8.0), (50.0, 60.0, 40.0)


@dataclass(frozen=True)
class Stack:
    """A series' geometry in patient coordinates (mm; x to the left, y to the back, z up).

    origins: (n, 3), centre of each slice's first pixel; tilt in radians; thickness (n,), mm.
    """

    origins: NDArray[np.float64]
    tilt: float
    thickness: NDArray[np.float64]
    pixel: float
    size: int

    @property
    def down_column(self) -> NDArray[np.float64]:
        """Unit vector along a column, with growing row number: (3,)."""
        return np.array([0.0, np.cos(self.tilt), -np.sin(self.tilt)])

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector across the slices, upwards: (3,)."""
        return np.array([0.0, np.sin(self.tilt), np.cos(self.tilt)])


@dataclass(frozen=True)
class Pose:
    """Where the head lies: its centre in patient coordinates, and the standard head's axes there, (3, 3) as rows."""

    centre: NDArray[np.float64]
    axes: NDArray[np.float64]


@dataclass(frozen=True)
class Scanner:
    """Noise and couch. Lengths in mm, noise in HU at 512 pixels."""

    noise: float
    kernel: float
    streaks: float
    table: bool
    table_hu: float
    table_bottom: float
    table_radius: float
    circle: bool


def draw_scanner(rng: np.random.Generator) -> Scanner:
    """Draw noise (3 to 6 HU at 512 pixels), kernel, streaks, couch, and whether the image is cut to a circle."""
    return Scanner(
        noise=rng.uniform(3, 6),
        kernel=rng.uniform(0.30, 0.55),
        streaks=rng.uniform(0.4, 1.6),
        table=bool(rng.random() < 0.75),
        table_hu=rng.uniform(-150, 250),
        table_bottom=rng.uniform(100, 106),
        table_radius=rng.uniform(104, 120),
        circle=bool(rng.random() < 0.5),
    )


def draw_gaps(rng: np.random.Generator, slices: int, extent: float) -> NDArray[np.float64]:
    """(slices,): distances in mm that add up to an extent; in a third of scans thin below and thick above."""
    gaps = np.ones(slices)
    if rng.random() < 0.35:
        gaps[int(slices * rng.uniform(0.35, 0.55)) :] = rng.choice((1.4, 1.75))  # 4 and 7 mm, or 5 and 7
    return gaps * (extent / gaps.sum())


def draw_stack(rng: np.random.Generator, head: Head, size: int) -> tuple[Stack, Pose]:
    """Draw where the slices and the head lie: 20 to 60 slices (mean 35) from below the base to above the vertex."""
    tilt = 0.0 if rng.random() < 0.15 else np.deg2rad(rng.uniform(5, 22))
    low, high = -rng.uniform(56, 76) * head.scale[2], rng.uniform(83, 91) * head.scale[2]
    middle = rng.random()
    n = rng.normal(33, 2) if middle < 0.6 else rng.normal(40, 5) if middle < 0.88 else rng.uniform(20, 60)
    n = int(np.clip(round(float(n)), 20, 60))
    gaps = draw_gaps(rng, n, high - low)
    heights = low + np.cumsum(gaps) - gaps / 2
    view = rng.uniform(232, 252)
    half = view / 2 - view / size / 2
    stack_centre = (low + high) / 2
    c, s = np.cos(tilt), np.sin(tilt)
    centre = np.round(np.array([rng.normal(0, 4), rng.normal(-10, 12), rng.uniform(-20, 60)]), 3)
    # The table moves along z alone, so a tilted stack slides across the head; it is centred half way up.
    y = centre[1] - half * c + stack_centre * s - 4
    z = (centre[2] * c + heights - (y - centre[1]) * s) / c
    origins = np.stack([np.full(n, -half + rng.normal(0, 3)), np.full(n, y), z], axis=1)
    turn, nod, lean = np.deg2rad(rng.normal(0, 1, 3) * (5, 5, 2.5))
    return Stack(np.round(origins, 6), float(tilt), gaps, view / size, size), Pose(
        centre, head_axes(turn, nod + tilt, lean)
    )


def head_axes(turn: float, nod: float, lean: float) -> NDArray[np.float64]:
    """Axes of a head turned about z, then leant about y, then nodded about x (so that its z leans backwards)."""
    ct, st, cn, sn, cl, sl = np.cos(turn), np.sin(turn), np.cos(nod), np.sin(nod), np.cos(lean), np.sin(lean)
    rows = [(ct * cl, st * cl, -sl), (-st, ct, 0.0), (ct * sl, st * sl, cl)]
    return np.array([(a, b * cn + d * sn, -b * sn + d * cn) for a, b, d in rows])


@dataclass
class Picture:
    """One slice: HU (rows, columns) and each bleed's share of every pixel, over the box that holds the head."""

    hu: Array
    box: tuple[slice, slice]
    blood: list[Array]


def take_slice(head: Head, bleeds: list[Bleed], stack: Stack, pose: Pose, index: int) -> Picture:
    """HU of one slice without noise: the mean of three planes across its thickness.

    Args:
        head: the head.
        bleeds: with their levels fitted.
        stack: the slices.
        pose: the head's.
        index: which slice.
    """
    box = _head_box(head, stack, pose, index)
    rows, columns = np.arange(box[0].start, box[0].stop), np.arange(box[1].start, box[1].stop)
    coarse_v, weights_v = upsampling(rows * stack.pixel)
    coarse_u, weights_u = upsampling(columns * stack.pixel)
    edge = max(0.9, 1.1 * stack.pixel)
    total = np.zeros((len(rows), len(columns)), np.float32)
    blood = [np.zeros_like(total) for _ in bleeds]
    for part in SUB_PLANES:
        coarse = _plane_fields(head, bleeds, stack, pose, index, part, coarse_v, coarse_u)
        for strip, fine in _upsample(coarse, weights_v, weights_u):
            parts = cut_parts(head, fine, edge)
            shares = []
            for number, bleed in enumerate(bleeds):
                name = f"bleed{number}"
                if name in fine:
                    share = blood_share(bleed, name, fine, parts, edge)
                    blood[number][strip] += share
                    shares.append((share, bleed.hu, oedema_share(bleed, fine[name])))
            total[strip] += hounsfield(head, fine, parts, shares, edge)
    for share in blood:
        share /= len(SUB_PLANES)
    return Picture(total / np.float32(len(SUB_PLANES)), box, blood)


def _head_box(head: Head, stack: Stack, pose: Pose, index: int) -> tuple[slice, slice]:
    """Rows and columns between which the head lies in a slice."""
    gap = stack.origins[index] - pose.centre
    height = float(gap @ stack.normal) / head.scale[2]
    narrow = np.sqrt(max(0.0, 1 - ((height - 12) / 92) ** 2)) if height > 12 else 1.0
    reach = np.array([[-84.0, 84.0], [-122.0 if height < 12 else -104.0, 112.0]]) * narrow + [[-12, 12], [-12, 12]]
    middle = -np.array([gap[0], float(gap @ stack.down_column)])
    limits = (middle[:, None] + reach * 1.03) / stack.pixel
    ends = [(int(np.clip(a, 0, stack.size - 8)), int(np.clip(b, 8, stack.size))) for a, b in limits]
    return slice(*ends[1]), slice(*ends[0])


def upsampling(places: NDArray[np.float64], step: float = FIELD_STEP) -> tuple[NDArray[np.float64], sparse.csr_array]:
    """Points of the coarse grid along one axis (mm), and the cubic (Catmull-Rom) weights from them to `places`.

    Sparse and without BLAS, so that the result has the same bits whatever the number of threads.
    """
    first = places[0] - 1.5 * step
    at = (places - first) / step
    base = np.floor(at).astype(int)
    t = at - base
    taps = np.stack([-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2], axis=1) / 2
    index = base[:, None] + np.arange(-1, 3)
    n = int(index.max()) + 1
    starts = np.arange(len(places) + 1) * 4
    weights = sparse.csr_array((taps.astype(np.float32).ravel(), index.ravel(), starts), shape=(len(places), n))
    return first + step * np.arange(n), weights


def _upsample(fields: Fields, down: sparse.csr_array, across: sparse.csr_array) -> Iterator[tuple[slice, Fields]]:
    """Every field from the coarse grid (h, w) to the fine one (rows, columns); one that is constant stays a number.

    In strips of some rows, which fit a core's cache: twice as fast as whole planes.
    """
    constant = {name: field.flat[0] for name, field in fields.items() if field.min() == field.max()}
    names = [name for name in fields if name not in constant]
    h, w = fields[names[0]].shape
    block = np.stack([fields[name].T for name in names], axis=1).reshape(w, -1)  # (w, fields * h)
    np.clip(block, -60, 400, out=block)
    block = (across @ block).reshape(-1, len(names), h)  # (columns, fields, h)
    block = np.ascontiguousarray(block.transpose(2, 1, 0)).reshape(h, -1)  # (h, fields * columns)
    n = STRIP_PIXELS // across.shape[0] + 1
    for top in range(0, down.shape[0], n):
        fine = (down[top : top + n] @ block).reshape(-1, len(names), across.shape[0])  # (strip, fields, columns)
        yield slice(top, top + n), constant | {name: fine[:, i] for i, name in enumerate(names)}


def _plane_fields(
    head: Head,
    bleeds: list[Bleed],
    stack: Stack,
    pose: Pose,
    index: int,
    part: float,
    v: NDArray[np.float64],
    u: NDArray[np.float64],
) -> Fields:
    """Coarse fields on the plane at `part` of the thickness from the slice's middle."""
    start = stack.origins[index] + part * stack.thickness[index] * stack.normal - pose.centre
    x, y, z = (
        ((start @ axis + v * (stack.down_column @ axis))[:, None] + (u * axis[0])[None, :]).astype(np.float32)
        / np.float32(scale)
        for axis, scale in zip(pose.axes, head.scale, strict=True)
    )
    push = midline_shift(bleeds)
    shift = None
    if push:
        r2 = sum(((p - c) / w) ** 2 for p, c, w in zip((x, y, z), SHIFT_CENTRE, SHIFT_WIDTH, strict=True))
        shift = np.float32(push) * np.exp(-r2)
    fields = head_fields(head, x, y, z, shift)
    add_face(head, fields, x, y, z)
    if bleeds:
        fall = down_in_head(pose)
        bleed_fields(bleeds, fields, x, y, z, x * fall[0] + y * fall[1] + z * fall[2])
        for number, bleed in enumerate(bleeds):
            if not reaches(bleed, fields[f"bleed{number}"]):
                del fields[f"bleed{number}"]
    for name in ("q", "below", "vault"):
        del fields[name]
    return fields


def down_in_head(pose: Pose) -> NDArray[np.float32]:
    """The way that gravity pulls a patient on the back, in the head's axes."""
    return pose.axes[:, 1].astype(np.float32)


def finish(rng: np.random.Generator, scanner: Scanner, picture: Picture, stack: Stack, pose: Pose, index: int) -> Array:
    """The whole image (size, size) in HU: couch, streaks and noise added to the head."""
    size = stack.size
    image = np.full((size, size), AIR, np.float32)
    if scanner.table:
        _add_table(image, scanner, stack, pose, index)
    box = image[picture.box]
    np.copyto(box, picture.hu, where=picture.hu > -700)
    box += _streaks(rng, scanner, picture)
    image += scan_noise(rng, scanner, size)
    return image


def scan_noise(rng: np.random.Generator, scanner: Scanner, size: int) -> Array:
    """Noise (size, size) in HU, as if an image of 512 pixels had been averaged to this size.

    A larger image has the noise of one of 512 pixels.
    """
    sigma, ratio = 1.6 * scanner.kernel, 512 / size
    # Variance, along one axis, of the mean of `side` neighbours; the standard deviation over both axes is the same.
    side = max(1.0, ratio)
    impulse = np.eye(1, 9, 4)[0]
    kernel = ndimage.gaussian_filter1d(impulse, sigma, truncate=2)
    alike = np.correlate(kernel, kernel, "full")  # at lags -8 to 8
    spread = (alike * np.clip(side - np.abs(np.arange(-8, 9)), 0, None)).sum() / alike[8] / side**2
    noise = rng.standard_normal((size, size), dtype=np.float32)
    smooth = ndimage.gaussian_filter(noise, sigma / ratio, truncate=2)
    return smooth * np.float32(scanner.noise * spread / max(float(smooth.std()), 1e-6))


def _add_table(image: Array, scanner: Scanner, stack: Stack, pose: Pose, index: int) -> None:
    """The head rest: a thin shell around the back and the sides of the head, along z."""
    size = stack.size
    steps = np.arange(size, dtype=np.float32) * np.float32(stack.pixel)
    x: Array = np.float32(stack.origins[index, 0] - pose.centre[0]) + steps
    first_y = np.float32(stack.origins[index, 1] - pose.centre[1] - scanner.table_bottom + scanner.table_radius)
    y: Array = first_y + steps * np.float32(stack.down_column[1])
    r = np.sqrt((x * x)[None, :] + (y * y)[:, None])
    shell = np.clip(1.6 - np.abs(r - scanner.table_radius), 0, 1) * (y > 0)[:, None]
    image += shell * np.float32(scanner.table_hu - AIR)


def _streaks(rng: np.random.Generator, scanner: Scanner, picture: Picture) -> Array:
    """Dark and bright bands from side to side where much bone lies left and right in the same row."""
    hu = picture.hu
    bone = np.clip(hu - 300, 0, 1000).mean(axis=1) / 300
    soft_tissue = (hu > -150) & (hu < 200)
    rows = rng.standard_normal(len(bone), dtype=np.float32)
    rows = ndimage.gaussian_filter1d(rows, max(1.0, len(bone) / 90)) * np.float32(np.sqrt(len(bone) / 25))
    amount = np.float32(9 * scanner.streaks) * np.clip(bone - 0.6, 0, 1.2)
    return (rows * amount - 0.5 * amount)[:, None] * soft_tissue
