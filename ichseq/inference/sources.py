"""What predicting starts from: the series of all sources together, and the sources that gave none."""

import os
from collections.abc import Sequence
from pathlib import Path

from ichseq.ct.left_out import LeftOut
from ichseq.ct.order import Order
from ichseq.ct.series import SeriesCollection, load_series
from ichseq.errors import ScanError


def load_sources(
    sources: Sequence[str | Path | Sequence[str | Path]], *, order: Order
) -> tuple[SeriesCollection, list[LeftOut]]:
    """Load all sources as one, so that a series may lie in several of them, and in a file for each slice.

    Args:
        sources: folders, zips, files, or lists of them.
        order: of the slices, as for `load_series`.

    Returns:
        The series, and the sources that are missing or hold none. A file that is a source itself is not among these:
        it stands in `left_out` with its own reason, which may be a good one.

    Raises:
        ScanError: there is no series in any source.
    """
    every = [path for source in sources for path in ([source] if isinstance(source, str | Path) else source)]
    there = [path for path in every if os.path.exists(path)]
    gone = [LeftOut(str(path), "no such file or folder; check the path") for path in every if not os.path.exists(path)]
    found = load_series(there or every, order=order)
    return found, [*gone, *_fruitless(there, found, order)]


def _fruitless(sources: Sequence[str | Path], found: SeriesCollection, order: Order) -> list[LeftOut]:
    """The sources without a slice in any series, unless their slices are there under another name."""
    listed = {os.path.abspath(item.file) for item in found.left_out}
    used: set[str] = set()
    for series in found:
        for file in series.files:
            place = os.path.abspath(file)
            while place not in used:  # the file, its archive if it has one, and all folders above
                used.add(place)
                place = os.path.dirname(place)
    fruitless = []
    for source in sources:
        if os.path.abspath(source) in used | listed:
            continue
        try:
            load_series(source, order=order)
        except ScanError as error:
            fruitless.append(LeftOut(str(source), error.reason))
    return fruitless
