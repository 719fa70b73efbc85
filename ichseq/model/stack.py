"""The slices of a batch, stacked: which of them belong together, and how the stack is cut into chunks."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from torch import Tensor


class Span(NamedTuple):
    """Slices of a series that follow each other in a stack, and share one crop box and one warp.

    Slices are counted through the stack; a stop is the last one + 1.

    Attributes:
        number: of the crop box and the warp.
        first: first slice.
        stop: last slice + 1.
        series_first: first slice of the whole series.
        series_stop: last slice + 1 of the whole series.
        rows: of the series' images, without padding.
        columns: the same.
    """

    number: int
    first: int
    stop: int
    series_first: int
    series_stop: int
    rows: int
    columns: int

    @property
    def slices(self) -> int:
        """How many it holds."""
        return self.stop - self.first

    @property
    def series(self) -> tuple[int, int]:
        """First slice and last slice + 1 of the whole series."""
        return self.series_first, self.series_stop

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows, self.columns


def series_spans(hu: Tensor, lengths: Tensor, sizes: Sequence[tuple[int, int]] | None) -> list[Span]:
    """A span for each series of a stack.

    Args:
        hu: (S, H, W), or (S, seen with each, H, W).
        lengths: (P,) slices of each series, on the CPU.
        sizes: true (rows, columns) of each series; None: all (H, W).

    Raises:
        ValueError: a shape that does not fit, or lengths that do not add up to S.
    """
    if hu.ndim not in (3, 4):
        raise ValueError(f"hu has shape {tuple(hu.shape)}; it has to be (slices, rows, columns), or with neighbours "
                         "(slices, seen with each, rows, columns)")  # fmt: skip
    if lengths.ndim != 1 or int(lengths.sum()) != len(hu) or int(lengths.min()) < 1:
        raise ValueError(f"lengths {lengths.tolist()} do not add up to the {len(hu)} slices of hu")
    if sizes is None:
        sizes = [(hu.shape[-2], hu.shape[-1])] * len(lengths)
    stops = lengths.cumsum(0).tolist()
    return [
        Span(i, stop - n, stop, stop - n, stop, *sizes[i])
        for i, (n, stop) in enumerate(zip(lengths.tolist(), stops, strict=True))
    ]


def slice_spans(series: Sequence[Span]) -> list[Span]:
    """A span for each slice, numbered by its place in the stack, of spans that are whole series."""
    return [span._replace(number=k, first=k, stop=k + 1) for span in series for k in range(span.first, span.stop)]


def in_chunks(spans: Sequence[Span], chunk_size: int) -> Iterator[list[Span]]:
    """A whole stack in chunks of about equal size, at most chunk_size; a chunk may hold parts of several series."""
    slices = spans[-1].stop
    count = -(-slices // chunk_size)
    for k in range(count):
        yield within(spans, k * slices // count, (k + 1) * slices // count)


def within(spans: Sequence[Span], low: int, high: int) -> list[Span]:
    """The parts of the spans between two places of the stack."""
    return [
        span._replace(first=max(span.first, low), stop=min(span.stop, high))
        for span in spans
        if span.first < high and span.stop > low
    ]


def with_neighbours(chunk: Sequence[Span], spans: Sequence[Span], reach: int) -> list[Span]:
    """A chunk with so many slices more to each side, none of them of another series.

    Args:
        chunk: some of `spans`, or parts of them, that follow each other.
        spans: of the whole stack.
        reach: how many slices.
    """
    low = max(chunk[0].first - reach, chunk[0].series_first)
    high = min(chunk[-1].stop + reach, chunk[-1].series_stop)
    return within(spans, low, high)


def slices_of_series(chunk: Sequence[Span]) -> list[int]:
    """How many slices of each series a chunk holds."""
    return [sum(span.slices for span in spans) for _, spans in groupby(chunk, key=lambda span: span.series)]
