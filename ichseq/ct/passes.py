"""Which slices of one SeriesInstanceUID are one pass over one head: a UID alone does not make them that.

Under one UID arrive two reconstructions, thick and thin slices, two acquisitions that overlap, the times of a
perfusion, two patients. A pass has one value of what `_COLUMNS` names, or another one for each zone of the head, and
its slices lie in steps of nearly one size. Slices are cut into passes where some column does so cleanly.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from ichseq.ct.elements import NO_NUMBER
from ichseq.ct.scan import Headers
from ichseq.ct.stack import FEWEST, SAME_POSITION_MM, groups_of, in_turn

SHARED: Final = 0.2
"""Share of the smaller of two sets of slices, and at least two of each, that lie in the reach of the other one before
they are two passes: two zones of a head may meet, and share a place there."""

SAME_PLACES_MM: Final = 0.5
TIMES: Final = 3
"""So many passes or more over the same places are those of a perfusion."""

_KINDS: Final = 8  # more values of a column number the slices, or nearly

_COLUMNS: Final[dict[str, Callable[[Headers], np.ndarray]]] = {
    "PatientID": lambda headers: headers.numbers["patient"],
    "ConvolutionKernel": lambda headers: headers.kernel,
    "SliceThickness": lambda headers: np.round(headers.numbers["thickness"].astype(np.float64), 1),
    "ImageType": lambda headers: headers.numbers["kind"],
    "SeriesNumber": lambda headers: headers.numbers["series_number"],
    "AcquisitionNumber": lambda headers: headers.numbers["acquisition"],
}
_IN_TIME: Final[dict[str, Callable[[Headers], np.ndarray]]] = {
    "AcquisitionTime": lambda headers: headers.numbers["acquired_s"],
    "ContentTime": lambda headers: headers.numbers["content_s"],
}
"""Each slice may have a time of its own, in any order: times cut only what is no single pass."""

_OF_A_PERFUSION: Final = ("AcquisitionNumber", *_IN_TIME, "InstanceNumber")


@dataclass
class Cut:
    """What one set of slices is cut into.

    Attributes:
        pieces: row numbers of each pass.
        warning: what a person should know of the cut, or of what can't be cut; "" for nothing.
        later: row numbers of a perfusion's later times, which are in no piece.
    """

    pieces: list[np.ndarray]
    warning: str = ""
    later: np.ndarray = field(default_factory=lambda: np.empty(0, np.intp))


def cut_passes(headers: Headers, rows: np.ndarray, places: np.ndarray, *, steps_count: bool) -> Cut:
    """Cut slices into passes.

    Args:
        headers: a table of slices.
        rows: those in question; duplicates among them are gone.
        places: of each row in question: position in mm, or its number if the user orders by that.
        steps_count: whether the steps between places tell of passes; not those between numbers.
    """
    slices = _Slices(headers.take(rows), places.astype(np.float64), steps_count)
    doubtful = slices.ties(np.arange(len(rows))) > 1 or not slices.is_even(np.arange(len(rows)))
    for name, codes in slices.keys(doubtful):
        if (passes := slices.passes(codes)) is None:
            continue
        if name in _OF_A_PERFUSION and len(passes) >= TIMES and slices.same_places(passes):
            warning = (
                f"{len(passes)} times over the same places, as of a perfusion: the first alone is read (by {name})"
            )
            return Cut([rows[passes[0]]], warning, rows[np.concatenate(passes[1:])])
        warning = f"one SeriesInstanceUID, but {len(passes)} sets of slices (by {name}): read as {len(passes)} series"
        return Cut([rows[one] for one in passes], warning)
    return Cut([rows], slices.in_doubt())


class _Slices:
    """Slices in question, with what may tell their passes apart."""

    def __init__(self, headers: Headers, places: np.ndarray, steps_count: bool) -> None:
        self.headers, self.places, self.steps_count = headers, places, steps_count
        self.apart = SAME_POSITION_MM if steps_count else 1.0

    def ties(self, entries: np.ndarray) -> int:
        """How many places have several slices."""
        return sum(len(group) > 1 for group in groups_of(self.places[entries], self.apart))

    def is_even(self, entries: np.ndarray) -> bool:
        return not self.steps_count or in_turn(self.places[entries]) is None

    def keys(self, doubtful: bool) -> Iterator[tuple[str, np.ndarray]]:
        """What may tell passes apart, by name, with a code for each slice in the order of its values."""
        columns = {**_COLUMNS, **(_IN_TIME if doubtful else {})}
        codes = {name: np.unique(get(self.headers), return_inverse=True)[1] for name, get in columns.items()}
        codes = {name: code for name, code in codes.items() if code.any()}
        yield from codes.items()
        for first, second in itertools.combinations(codes, 2):
            pair = codes[first].astype(np.int64) * len(self.places) + codes[second]
            yield f"{first} and {second}", np.unique(pair, return_inverse=True)[1]
        if doubtful and (ranks := self._ranks()) is not None:
            yield "InstanceNumber", ranks

    def _ranks(self) -> np.ndarray | None:
        """Which of the slices at its place each one is, by InstanceNumber, where each place has equally many."""
        instances = self.headers.numbers["instance"]
        groups = groups_of(self.places, self.apart)
        if (instances == NO_NUMBER).any() or len({len(group) for group in groups}) > 1 or len(groups[0]) < 2:
            return None
        by_number = [group[np.argsort(instances[group], kind="stable")] for group in groups]
        table = instances[np.array(by_number)]  # (places, passes)
        along = np.diff(table, axis=0)
        if not (np.diff(table, axis=1) > 0).all() or not ((along > 0).all() or (along < 0).all()):
            return None
        ranks = np.empty(len(instances), np.intp)
        ranks[np.array(by_number)] = np.arange(table.shape[1])
        return ranks

    def passes(self, codes: np.ndarray) -> list[np.ndarray] | None:
        """The slices by code, codes that are zones of one pass together; None where these are no clean passes."""
        by = np.lexsort([codes, self.places])
        stretches = (np.diff(codes[by]) != 0).sum() + 1
        if stretches == codes.max() + 1 or FEWEST * (codes.max() + 1) > len(codes):  # zones, or a code a slice
            return None
        found: list[np.ndarray] = []
        for code in range(codes.max() + 1):
            own = np.flatnonzero(codes == code)
            for k, one in enumerate(found):
                if not self._are_two(one, own):
                    found[k] = np.concatenate([one, own])
                    break
            else:
                found.append(own)
        clean = all(len(one) >= FEWEST and self.ties(one) <= 1 and self.is_even(one) for one in found)
        return found if len(found) > 1 and clean else None

    def _are_two(self, one: np.ndarray, other: np.ndarray) -> bool:
        """Whether two sets of slices are two passes: they overlap, or would not be one together."""
        inside = [self._within(a, b) for a, b in ((one, other), (other, one))]
        if min(inside) >= 2 and max(inside[0] / len(one), inside[1] / len(other)) >= SHARED:
            return True
        return self.ties(np.concatenate([one, other])) > 1

    def _within(self, entries: np.ndarray, others: np.ndarray) -> int:
        low, high = self.places[others].min(), self.places[others].max()
        return int(((self.places[entries] >= low) & (self.places[entries] <= high)).sum())

    def same_places(self, passes: list[np.ndarray]) -> bool:
        """Whether every pass lies where the first one does; a slice of one may be lost."""
        first = self.places[passes[0]]
        near = [np.abs(self.places[one][:, None] - first).min(axis=1) <= SAME_PLACES_MM for one in passes]
        return all(there.mean() >= 1 - SHARED for there in near)

    def in_doubt(self) -> str:
        """Why slices that can't be cut may be no single pass."""
        if self.steps_count and (steps := in_turn(self.places)):
            return f"steps of {steps[0]:.3g} to {steps[1]:.3g} mm in turn: two passes or two patients may be mixed"
        for name, codes in self.keys(doubtful=False):
            sets = [np.flatnonzero(codes == code) for code in range(codes.max() + 1)]
            if len(sets) <= _KINDS and self._lie_within(sets):
                return f"slices of {len(sets)} kinds (by {name}) lie between each other, and are no series of their own"
        return ""

    def _lie_within(self, sets: list[np.ndarray]) -> bool:
        """Whether two of the sets lie between each other."""
        pairs = itertools.combinations(sets, 2)
        return any(min(self._within(one, other), self._within(other, one)) >= 2 for one, other in pairs)
