"""What predicting starts from: the series of all sources together, and the sources that gave none."""

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from ichseq.ct.choice import USUAL_MM, PassedOver, choose, study_of
from ichseq.ct.left_out import LeftOut
from ichseq.ct.order import Order
from ichseq.ct.series import Series, SeriesCollection, load_series
from ichseq.errors import ScanError

NO_HEAD: Final = "surely no plain head CT"


class Asked(NamedTuple):
    """The series that are predicted.

    Attributes:
        series: in the order in which they are predicted.
        why: the reason for each of them, in words.
        others: the series that are not.
        passed_over: why each of `others` is not; its `by` counts `series`, its `number` counts `others`.
        learned_mm: what the choice went by.
    """

    series: Sequence[Series]
    why: list[str]
    others: Sequence[Series]
    passed_over: list[PassedOver]
    learned_mm: tuple[float, float]

    def not_asked(self, unreadable: Collection[int] = ()) -> list[tuple[Series, str]]:
        """Each series that is not predicted, with the reason, but those of `instead_of`."""
        return [(self.others[one.number], one.reason) for one in self.passed_over if one.by not in unreadable]

    def instead_of(self, unreadable: Collection[int]) -> "Asked":
        """What to predict where some of `series` can't be: of those that they stood for, again the best."""
        left = [self.others[one.number] for one in self.passed_over if one.by in unreadable]
        again = asked_of(left, self.learned_mm)
        return again._replace(why=[f"a better series could not be predicted; {why}" for why in again.why])


def asked_of(
    found: Sequence[Series], learned_mm: tuple[float, float] | None = None, *, all_series: bool = False
) -> Asked:
    """Which of the series of some sources are predicted: of each study those that `choose` takes, or all."""
    learned_mm = learned_mm or USUAL_MM
    if all_series:
        words = ["all series of its study were asked for"] * len(found)
        return Asked(found, words, [], [], learned_mm)
    choice = choose(found, learned_mm)
    place = {number: k for k, number in enumerate(choice.asked)}
    others = [one.number for one in choice.passed_over]
    passed = [PassedOver(k, place[one.by], one.reason) for k, one in enumerate(choice.passed_over)]
    taken, left = (SeriesCollection([found[k] for k in numbers], ()) for numbers in (choice.asked, others))
    return Asked(taken, choice.why, left, passed, learned_mm)


def no_heads_among(no_heads: Sequence[tuple[Series, str]], answered: Sequence[Series]) -> list[LeftOut]:
    """The first file of each series that is surely no plain picture of a head, with the reason.

    As expected ones those of studies that have an answer from another series.

    Args:
        no_heads: the series, and why.
        answered: the series that were predicted.
    """
    studies = {study_of(series) for series in answered}
    reason = f"{NO_HEAD} ({{}}); --any-series predicts it all the same"
    return [LeftOut(one.files[0], reason.format(why), expected=study_of(one) in studies) for one, why in no_heads]


def load_sources(
    sources: Sequence[str | Path | Sequence[str | Path]], *, order: Order
) -> tuple[SeriesCollection, list[LeftOut]]:
    """Load all sources as one, so that a series may lie in several of them, and in a file for each slice.

    Args:
        sources: folders, archives, files, or lists of them.
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
