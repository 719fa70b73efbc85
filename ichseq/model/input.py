"""From Hounsfield units to what the backbone sees: crop, warp and resize in one resampling, appearance, windows.

Windows and normalisation are buffers and settings of the model, so that training, prediction and other code agree.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ichseq.appearance import Appearance
from ichseq.config import InputConfig
from ichseq.geometry import NO_SLICE_HU, rows_around
from ichseq.model.appearance import show
from ichseq.model.centre import centre_box, centred
from ichseq.model.channels import channels_of
from ichseq.model.stack import Span, series_spans, slice_spans
from ichseq.windows import AIR_HU, WINDOWS, range_read

BODY_HU: Final = -100
"""Above it: head, table and head rest; below: air and noise in air."""

_AT_ONCE: Final = 32  # slices compared with BODY_HU at a time, so that a long series takes no more memory


class Arranged(NamedTuple):
    """The slices of a batch as they are read.

    They are spans, by their numbers crop boxes (P, 4) and warps (P, 3, 3), and the appearance of each slice.
    """

    spans: list[Span]
    boxes: Tensor
    warp: Tensor | None
    appearance: Appearance | None


class NetworkInput(nn.Module):
    """Crops, warps, resizes and windows slices.

    Attributes:
        config: what the backbone sees.
        hu_range: in HU; what lies outside is clipped before the slices are resampled.

    Raises:
        ConfigError: a window that can't be normalised.
    """

    scale: Tensor  # (1, C, 1, 1) each
    offset: Tensor
    least: Tensor
    most: Tensor

    def __init__(self, config: InputConfig) -> None:
        super().__init__()
        self.config = config
        self.hu_range = range_read(config.windows)
        channels = channels_of(config.windows, config.normalise, self.hu_range[0])
        for name, values in zip(("scale", "offset", "least", "most"), channels, strict=True):
            self.register_buffer(name, values, persistent=False)
        # What is black in every window; the published crop cut away what was.
        self.black = min(WINDOWS[name][0] - WINDOWS[name][1] / 2 for name in config.windows)

    @torch.no_grad()
    def body_of(self, hu: Tensor) -> Tensor:
        """(H, W) bool: where some slice of hu (n, H, W) has body; false everywhere if the model does not crop.

        For a series that is read in pieces: the pieces' answers joined by `|` are the whole's, and `box_of` takes them.
        """
        body = torch.zeros(hu.shape[1:], dtype=torch.bool, device=hu.device)
        if self.config.crop == "series":
            for part in hu.split(_AT_ONCE):
                body |= (part > BODY_HU).any(0)
        return body

    def box_of(self, body: Tensor) -> Tensor:
        """(4,) crop box, as a row of `crop_boxes`, around what `body_of` found."""
        if self.config.crop == "centre":
            return centre_box(body.shape[0], body.shape[1], self.config.image_size).to(body.device)
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

    def crop_boxes(self, hu: Tensor, lengths: Tensor, sizes: Sequence[tuple[int, int]] | None) -> Tensor:
        """A crop box for each series, or for each slice; see `ichseq.Model.crop_boxes`."""
        hu = hu[:, hu.shape[1] // 2] if hu.ndim == 4 else hu
        spans = series_spans(hu, lengths, sizes)
        if self.config.crop == "slice":
            return self.slice_boxes(hu, torch.tensor([span.size for span in slice_spans(spans)]))
        bodies = [self.body_of(hu[span.first : span.stop, : span.rows, : span.columns]) for span in spans]
        return torch.stack([self.box_of(body) for body in bodies])

    def arrange(
        self,
        hu: Tensor,
        lengths: Tensor,
        sizes: Sequence[tuple[int, int]] | None,
        boxes: Tensor | None,
        warp: Tensor | None,
        appearance: Appearance | None,
    ) -> Arranged:
        """The slices of a batch, given as to `ichseq.Model`, for `forward`.

        A span is a series; or a slice, where each has a crop box or a warp of its own.
        """
        if hu.ndim == 4 and hu.shape[1] != 1 + 2 * self.config.neighbours:
            raise ValueError(f"hu has {hu.shape[1]} slices seen together; model.neighbours is {self.config.neighbours}")
        spans = series_spans(hu, lengths, sizes)
        if appearance is not None:
            appearance = appearance.for_each_slice(lengths.tolist()).to(self.offset.device)
        if boxes is None:
            boxes = self.crop_boxes(hu, lengths, sizes)
        if len(boxes) > len(spans) or (warp is not None and len(warp) > len(spans)):
            boxes = _for_each_slice(boxes, spans)
            warp = None if warp is None else _for_each_slice(warp, spans)
            spans = slice_spans(spans)
        return Arranged(spans, boxes.to(self.offset.device), warp, appearance)

    def forward(
        self,
        hu: Tensor,
        spans: Sequence[Span],
        boxes: Tensor,
        warp: Tensor | None = None,
        appearance: Appearance | None = None,
    ) -> Tensor:
        """What the backbone sees of the slices of `spans`: (n, C, size, size), windowed and normalised.

        With neighbours, every slice has the channels of all slices seen with it, in their order.

        Args:
            hu: (S, H, W) in HU, all slices of a batch, or (S, 2 neighbours + 1, H, W), each slice between its
                neighbours; may stay on the CPU.
            spans: that follow each other.
            boxes: (P, 4) from `box_of` or `slice_boxes`, by the spans' numbers.
            warp: (P, 3, 3), from output to input coordinates, both -1..1 over the cropped square.
            appearance: of each of the S slices.
        """
        if self.config.neighbours and hu.ndim == 3:
            return self._between_neighbours(hu, spans, boxes, warp, appearance)
        same_size = (list(group) for _, group in groupby(spans, key=lambda span: span.size))
        if self.config.window_first:
            squares = torch.cat([self._squares(hu, group, boxes, warp, appearance) for group in same_size])
            return squares.unflatten(1, (-1, len(self.least[0]))).add_(self.least).flatten(1, 2)
        squares = torch.cat([self._squares(hu, group, boxes, warp, None) for group in same_size])
        return self.windowed(self._shown(squares, spans, appearance)).flatten(1, 2)

    def _between_neighbours(
        self, hu: Tensor, spans: Sequence[Span], boxes: Tensor, warp: Tensor | None, appearance: Appearance | None
    ) -> Tensor:
        """`forward` where the neighbours are still to be found in the stack, in the chunk or beyond it."""
        reach = self.config.neighbours
        single = all(span.slices == 1 for span in spans)
        device = hu.device if single else self.offset.device
        groups = [list(group) for _, group in groupby(spans, key=lambda span: span.series)]
        found = [rows_around(part[0].first, part[-1].stop, *part[0].series, reach, device=device) for part in groups]
        rows, there = (torch.cat(parts) for parts in zip(*found, strict=True))
        if single:  # each with a box and a warp of its own, which are its neighbours' too
            stack = hu[rows].masked_fill_(~there[:, :, None, None], NO_SLICE_HU)
            alone = [span._replace(first=k, stop=k + 1) for k, span in enumerate(spans)]
            own = None if appearance is None else appearance[spans[0].first : spans[-1].stop]
            return self.forward(stack, alone, boxes, warp, own)
        # The slices of a series are cropped and warped alike, so that each is resampled once, for all that see it.
        wide = [
            span._replace(
                first=max(span.first - reach, span.series_first), stop=min(span.stop + reach, span.series_stop)
            )
            for span in spans
        ]
        seen = self.forward(hu[:, None], wide, boxes, warp, appearance)
        seen = seen[rows - wide[0].first]  # (n, K, C, size, size)
        if self.config.edge == "zero":
            seen = torch.where(there[:, :, None, None, None], seen, self.least)
        return seen.flatten(1, 2)

    def with_ends(self, slices: Tensor) -> Tensor:
        """Slices (n, K, H, W), each between its neighbours, with what is seen beyond the ends of a series."""
        there = slices[:, :, 0, 0] != NO_SLICE_HU  # (n, K)
        if self.config.edge == "zero":
            return slices.masked_fill(~there[:, :, None, None], AIR_HU)  # which is black in every window
        first, stop = (place[:, None].long() for place in _extent(there))
        places = torch.arange(slices.shape[1], device=slices.device).clamp(first, stop - 1)  # (n, K)
        return slices[torch.arange(slices.shape[0], device=slices.device)[:, None], places]

    def windowed(self, values: Tensor) -> Tensor:
        """(n, K, H, W) -> (n, K, C, H, W), window and normalisation in one multiplication and one clamp."""
        return torch.addcmul(self.offset, values[:, :, None], self.scale).clamp_(self.least, self.most)

    def _shown(self, slices: Tensor, spans: Sequence[Span], appearance: Appearance | None) -> Tensor:
        """The spans' slices (n, K, H, W), counted from the range's lower end, in their appearance."""
        if appearance is None:
            return slices
        lowest = self.hu_range[0]
        return show(slices + lowest, appearance[spans[0].first : spans[-1].stop], lowest) - lowest

    def _squares(
        self, hu: Tensor, spans: Sequence[Span], boxes: Tensor, warp: Tensor | None, appearance: Appearance | None
    ) -> Tensor:
        """Neighbouring series of one size, cropped, warped and resized: (n, K, size, size), HU above the range's end.

        K is 1, or for hu (S, K, H, W) the slices seen together. 0 is the range's lower end, so what lies outside the
        image is air. With the windows first, (n, K x C, size, size) above black.
        """
        (low, high), side = self.hu_range, self.config.image_size
        rows, columns = spans[0].size
        slices = hu[spans[0].first : spans[-1].stop, ..., :rows, :columns].to(self.offset.device)
        slices = slices[:, None] if slices.ndim == 3 else slices
        slices = self.with_ends(slices) if slices.shape[1] > 1 else slices
        if self.config.crop == "centre":
            slices, rows, columns = centred(slices, side), side, side
            boxes = torch.full_like(boxes, side / 2)
        slices = slices.clone() if slices.dtype == torch.float32 else slices.float()
        slices = slices.clamp_(low, high).sub_(low)  # in place: such a stack is large; (n, K, H, W)
        if self.config.window_first:
            slices = self.windowed(self._shown(slices, spans, appearance)).sub_(self.least).flatten(1, 2)
        if self.config.crop == "centre" and warp is None:
            return slices  # each pixel is one of the scan's
        # Halving (or more) by means before sampling keeps fine noise from aliasing into small images.
        factor = max(1, int(0.7 * max(rows, columns) / side))
        if factor > 1:
            slices = F.pad(slices, (0, -columns % factor, 0, -rows % factor))
            slices = F.avg_pool2d(slices, factor)
        numbers = slice(spans[0].number, spans[-1].number + 1)
        centre_x, centre_y = boxes[numbers, 0], boxes[numbers, 1]
        half = boxes[numbers, 2:].amax(1)
        if warp is None:
            matrix = torch.eye(2, 3, device=boxes.device).expand(len(spans), 2, 3)
        else:
            matrix = warp[numbers, :2].to(boxes)
        # output square (-1..1) -> cropped square (-1..1) -> pixels -> -1..1 over the image
        per_x, per_y = 2 / (slices.shape[-1] * factor), 2 / (slices.shape[-2] * factor)
        scale = torch.stack([half * per_x, half * per_y], dim=1)[:, :, None]
        shift = torch.stack([centre_x * per_x - 1, centre_y * per_y - 1], dim=1)[:, :, None]
        matrix = torch.cat([matrix[:, :, :2] * scale, matrix[:, :, 2:] * scale + shift], dim=2)
        grids = F.affine_grid(
            matrix, [len(spans), 1, self.config.image_size, self.config.image_size], align_corners=False
        )
        counts = [span.slices for span in spans]
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


def _extent(inside: Tensor) -> tuple[Tensor, Tensor]:
    """First and last + 1 true place along the last dimension, the whole of it where none is true.

    Without asking the GPU for an answer.
    """
    last = inside.shape[-1] - inside.flip(-1).int().argmax(-1)
    return inside.int().argmax(-1).float(), last.float()


def _for_each_slice(given: Tensor, series: Sequence[Span]) -> Tensor:
    """What was given for each series, or for each slice already, for each slice."""
    slices = series[-1].stop
    if len(given) == slices:
        return given
    counts = torch.tensor([span.slices for span in series], device=given.device)
    return given.repeat_interleave(counts, dim=0, output_size=slices)
