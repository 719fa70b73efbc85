"""From Hounsfield units to what the backbone sees: crop, warp and resize in one resampling, then windows.

Windows and normalisation are buffers and settings of the model, so that training, prediction and other code agree.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ichseq.errors import ConfigError
from ichseq.geometry import rows_around
from ichseq.windows import CHANNEL_MEAN, CHANNEL_STD, HU_RANGE, WINDOWS

BODY_HU: Final = -100
"""Above it: head, table and head rest; below: air and noise in air."""

_AT_ONCE: Final = 32  # slices compared with BODY_HU at a time, so that a long series takes no more memory

Span = tuple[int, int, int, int, int]
"""Series, first slice, last slice + 1 (both counted through the stack), the series' rows, its columns."""


class NetworkInput(nn.Module):
    """Crops, warps, resizes and windows slices.

    Args:
        windows: names of `ichseq.windows.WINDOWS`, a channel each.
        normalise: subtract the published mean of each window and divide by its standard deviation.
        crop: "series", "slice" or "none".
        image_size: side in pixels of the result.
        window_first: window before the resampling, as the published pipeline did, and not after it.
        neighbours: slices on each side that are seen with a slice; beyond the ends of a series its last slice is
            repeated.

    Raises:
        ConfigError: an unknown window or crop, a window that reaches beyond the stored range, or a number below 0.
    """

    scale: Tensor  # (1, C, 1, 1) each
    offset: Tensor
    least: Tensor
    most: Tensor

    def __init__(
        self,
        windows: Sequence[str],
        normalise: bool,
        crop: str,
        image_size: int,
        window_first: bool = False,
        neighbours: int = 0,
    ) -> None:
        super().__init__()
        if crop not in ("series", "slice", "none"):
            raise ConfigError(f"model.crop is {crop!r}; choose series, slice or none")
        if neighbours < 0:
            raise ConfigError(f"model.neighbours is {neighbours}; it has to be a number of at least 0")
        self.crop, self.image_size, self.window_first, self.neighbours = crop, image_size, window_first, neighbours
        for name, values in zip(("scale", "offset", "least", "most"), _channels(windows, normalise), strict=True):
            self.register_buffer(name, values, persistent=False)
        # What is black in every window; the published crop cut away what was.
        self.black = min(WINDOWS[name][0] - WINDOWS[name][1] / 2 for name in windows)

    @torch.no_grad()
    def body_of(self, hu: Tensor) -> Tensor:
        """(H, W) bool: where some slice of hu (n, H, W) has body; false everywhere if the model does not crop.

        For a series that is read in pieces: the pieces' answers joined by `|` are the whole's, and `box_of` takes them.
        """
        body = torch.zeros(hu.shape[1:], dtype=torch.bool, device=hu.device)
        if self.crop == "series":
            for part in hu.split(_AT_ONCE):
                body |= (part > BODY_HU).any(0)
        return body

    @staticmethod
    def box_of(body: Tensor) -> Tensor:
        """(4,) crop box, as a row of `crop_boxes`, around what `body_of` found."""
        (top, bottom), (left, right) = _extent(body.any(1)), _extent(body.any(0))
        return torch.stack([left + right, top + bottom, right - left, bottom - top]) / 2

    @torch.no_grad()
    def slice_boxes(self, hu: Tensor, sizes: Tensor) -> Tensor:
        """(S, 4) crop boxes of single slices, square: what is not black in every window, as the published crop.

        The square begins at the top left of what is cut out, so that the rest of it lies at the bottom or the right.

        Args:
            hu: (S, H, W).
            sizes: (S, 2) true rows and columns of each slice, for one that is black everywhere.
        """
        parts = []
        for part in hu.split(_AT_ONCE):
            inside = part > self.black
            parts.append(torch.stack([*_extent(inside.any(1)), *_extent(inside.any(2))], dim=1))
        left, right, top, bottom = torch.cat(parts).unbind(1)
        empty = (right - left == hu.shape[2]) & (bottom - top == hu.shape[1])
        rows, columns = sizes.to(left).unbind(1)
        right, bottom = torch.where(empty, columns, right), torch.where(empty, rows, bottom)
        half = torch.maximum(right - left, bottom - top) / 2
        return torch.stack([left + half, top + half, half, half], dim=1)

    def forward(
        self,
        hu: Tensor,
        spans: Sequence[Span],
        boxes: Tensor,
        warp: Tensor | None = None,
        borders: Sequence[tuple[int, int]] = (),
    ) -> Tensor:
        """What the backbone sees of the slices of `spans`: (n, C, size, size), windowed and normalised.

        With neighbours, every slice has the channels of all slices seen with it, in their order.

        Args:
            hu: (S, H, W) in HU, all slices of a batch, or (S, 2 neighbours + 1, H, W), each slice between its
                neighbours; may stay on the CPU.
            spans: parts of neighbouring series.
            boxes: (P, 4) from `box_of`, one a series of the batch.
            warp: (P, 3, 3), from output to input coordinates, both -1..1 over the cropped square.
            borders: first slice and last slice + 1 of the whole series that each number in `spans` stands for; with
                neighbours, what (S, H, W) needs.
        """
        if self.neighbours and hu.ndim == 3:
            return self._between_neighbours(hu, spans, boxes, warp, borders)
        same_size = (list(group) for _, group in groupby(spans, key=lambda span: span[3:]))
        squares = [self._squares(hu, group, boxes, warp) for group in same_size]
        if self.window_first:
            return torch.cat(squares).unflatten(1, (-1, len(self.least[0]))).add_(self.least).flatten(1, 2)
        return self._windowed(torch.cat(squares)).flatten(1, 2)

    def _between_neighbours(
        self,
        hu: Tensor,
        spans: Sequence[Span],
        boxes: Tensor,
        warp: Tensor | None,
        borders: Sequence[tuple[int, int]],
    ) -> Tensor:
        """`forward` where the neighbours are still to be found in the stack, in the chunk or beyond it."""
        reach = self.neighbours
        alone = all(stop - first == 1 for _, first, stop, _, _ in spans)
        rows = [
            rows_around(part[0][1], part[-1][2], *of_series, reach, device=hu.device if alone else self.offset.device)
            for of_series, group in groupby(spans, key=lambda span: borders[span[0]])
            for part in [list(group)]
        ]
        if alone:  # each with a box and a warp of its own, which are its neighbours' too
            spans = [(i, k, k + 1, h, w) for k, (i, _, _, h, w) in enumerate(spans)]
            return self.forward(hu[torch.cat(rows)], spans, boxes, warp)
        # The slices of a series are cropped and warped alike, so that each is resampled once, for all that see it.
        wide = [
            (i, max(first - reach, borders[i][0]), min(stop + reach, borders[i][1]), h, w)
            for i, first, stop, h, w in spans
        ]
        seen = self.forward(hu[:, None], wide, boxes, warp)
        return seen[torch.cat(rows) - wide[0][1]].flatten(1, 2)

    def _windowed(self, values: Tensor) -> Tensor:
        """(n, K, H, W) -> (n, K, C, H, W), window and normalisation in one multiplication and one clamp."""
        return torch.addcmul(self.offset, values[:, :, None], self.scale).clamp_(self.least, self.most)

    def _squares(self, hu: Tensor, spans: Sequence[Span], boxes: Tensor, warp: Tensor | None) -> Tensor:
        """Neighbouring series of one size, cropped, warped and resized: (n, K, size, size), HU above the range's end.

        K is 1, or for hu (S, K, H, W) the slices seen together. 0 is the range's lower end, so what lies outside the
        image is air. With the windows first, (n, K x C, size, size) above black.
        """
        low, high = HU_RANGE
        rows, columns = spans[0][3:]
        slices = hu[spans[0][1] : spans[-1][2], ..., :rows, :columns].to(self.offset.device)
        slices = slices[:, None] if slices.ndim == 3 else slices
        slices = slices.clone() if slices.dtype == torch.float32 else slices.float()
        slices = slices.clamp_(low, high).sub_(low)  # in place: such a stack is large; (n, K, H, W)
        if self.window_first:
            slices = self._windowed(slices).sub_(self.least).flatten(1, 2)
        # Halving (or more) by means before sampling keeps fine noise from aliasing into small images.
        factor = max(1, int(0.7 * max(rows, columns) / self.image_size))
        if factor > 1:
            slices = F.pad(slices, (0, -columns % factor, 0, -rows % factor))
            slices = F.avg_pool2d(slices, factor)
        series = slice(spans[0][0], spans[-1][0] + 1)
        centre_x, centre_y = boxes[series, 0], boxes[series, 1]
        half = boxes[series, 2:].amax(1)
        if warp is None:
            matrix = torch.eye(2, 3, device=boxes.device).expand(len(spans), 2, 3)
        else:
            matrix = warp[series, :2].to(boxes)
        # output square (-1..1) -> cropped square (-1..1) -> pixels -> -1..1 over the image
        per_x, per_y = 2 / (slices.shape[-1] * factor), 2 / (slices.shape[-2] * factor)
        scale = torch.stack([half * per_x, half * per_y], dim=1)[:, :, None]
        shift = torch.stack([centre_x * per_x - 1, centre_y * per_y - 1], dim=1)[:, :, None]
        matrix = torch.cat([matrix[:, :, :2] * scale, matrix[:, :, 2:] * scale + shift], dim=2)
        grids = F.affine_grid(matrix, [len(spans), 1, self.image_size, self.image_size], align_corners=False)
        counts = [stop - first for _, first, stop, _, _ in spans]
        if max(counts) == 1:
            return F.grid_sample(slices, grids, padding_mode="zeros", align_corners=False)
        # The slices of a series share a grid: as channels of one image they are sampled at once.
        parts = zip(slices.split(counts), grids.split(1), strict=True)
        sampled = [
            F.grid_sample(part.flatten(0, 1)[None], grid, padding_mode="zeros", align_corners=False)[0].unflatten(
                0, part.shape[:2]
            )
            for part, grid in parts
        ]
        return torch.cat(sampled)


def _channels(windows: Sequence[str], normalise: bool) -> list[Tensor]:
    """Scale, offset, least and most of each channel, (1, C, 1, 1), for values counted from HU_RANGE's lower end.

    clamp(value x scale + offset, least, most) is the window scaled to 0..1, clipped, and normalised.
    """
    if not windows:
        raise ConfigError("model.windows is empty; name at least one of " + ", ".join(WINDOWS))
    rows = []
    for name in windows:
        if name not in WINDOWS:
            raise ConfigError(f"model.windows: no window {name!r}; there are {', '.join(WINDOWS)}")
        centre, width = WINDOWS[name]
        low = centre - width / 2
        if low < HU_RANGE[0] or centre + width / 2 > HU_RANGE[1]:
            raise ConfigError(f"model.windows: {name} reaches beyond the stored range {HU_RANGE} HU")
        mean, std = (CHANNEL_MEAN[name], CHANNEL_STD[name]) if normalise else (0.0, 1.0)
        rows.append((1 / (width * std), ((HU_RANGE[0] - low) / width - mean) / std, -mean / std, (1 - mean) / std))
    return [torch.tensor(column).view(1, -1, 1, 1) for column in zip(*rows, strict=True)]


def _extent(inside: Tensor) -> tuple[Tensor, Tensor]:
    """First and last + 1 true place along the last dimension, the whole of it where none is true; waits for nobody."""
    last = inside.shape[-1] - inside.flip(-1).int().argmax(-1)
    return inside.int().argmax(-1).float(), last.float()


def series_spans(hu: Tensor, lengths: Tensor, sizes: Sequence[tuple[int, int]] | None) -> list[Span]:
    if hu.ndim not in (3, 4):
        raise ValueError(f"hu has shape {tuple(hu.shape)}; it has to be (slices, rows, columns), or with neighbours "
                         "(slices, seen with each, rows, columns)")  # fmt: skip
    if lengths.ndim != 1 or int(lengths.sum()) != len(hu) or int(lengths.min()) < 1:
        raise ValueError(f"lengths {lengths.tolist()} do not add up to the {len(hu)} slices of hu")
    if sizes is None:
        sizes = [(hu.shape[-2], hu.shape[-1])] * len(lengths)
    stops = lengths.cumsum(0).tolist()
    return [(i, stop - n, stop, *sizes[i]) for i, (n, stop) in enumerate(zip(lengths.tolist(), stops, strict=True))]


def chunks(series: list[Span], slices: int, chunk_size: int) -> Iterator[list[Span]]:
    """The same slices in chunks of about equal size, at most chunk_size; a chunk may hold parts of several series."""
    count = -(-slices // chunk_size)
    for k in range(count):
        low, high = k * slices // count, (k + 1) * slices // count
        yield within(series, low, high)


def within(series: Sequence[Span], low: int, high: int) -> list[Span]:
    """The parts of the series between two places of the stack."""
    return [(i, max(a, low), min(b, high), h, w) for i, a, b, h, w in series if a < high and b > low]


def widened(
    spans: Sequence[Span], every: Sequence[Span], borders: Sequence[tuple[int, int]], by: int
) -> tuple[list[Span], list[int]]:
    """Neighbouring spans with so many slices more to each side, none of another series; and the slices of each series.

    Args:
        spans: some of `every`, or parts of them.
        every: all spans.
        borders: first slice and last slice + 1 of each whole series, in order.
        by: how many slices.
    """
    low, high = spans[0][1], spans[-1][2]
    first = next(start for start, stop in borders if low < stop)
    last = next(stop for _, stop in borders if high <= stop)
    low, high = max(low - by, first), min(high + by, last)
    counts = [min(stop, high) - max(start, low) for start, stop in borders if start < high and stop > low]
    return within(every, low, high), counts
