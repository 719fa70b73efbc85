"""Where slices lie along the normal of their series: ties, steps, gaps, and whether one pass over a head lies so."""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ichseq.ct.elements import NO_NUMBER

SAME_POSITION_MM: Final = 0.01
"""Slices closer than this along n lie at one position."""

ALIKE: Final = 0.2
"""Share of the smaller one by which two steps may differ and be one size: positions are rounded, some to 1 mm."""

EXACT: Final = 0.03
"""Share of a step by which its multiples may be off."""

IN_TURN: Final = 4
"""So many steps in a row, none of the size of one beside it, are those of two passes that lie between each other.

A zone of another distance (the base in 4 mm, the vertex in 7) makes one such step, and a missing slice one.
"""

MANY_GAPS: Final = 3
ZONE: Final = 4
"""Steps in a row of a size of their own that are a zone, and no gaps."""

FAR_MM: Final = 100.0
HEAD_AND_NECK_MM: Final = 300.0
"""A series that is longer than this, with nothing for `FAR_MM` in it, is of two places."""

FEWEST: Final = 3
"""Slices that a pass has at least."""

USELESS: Final = 0.8
"""Share of a series' slices that lie at one position from which on its positions are no positions."""


class Gap(NamedTuple):
    """Where slices are missing: how many, between two positions in mm."""

    missing: int
    start: float
    end: float


def along_normal(numbers: np.ndarray) -> np.ndarray:
    """Position of each slice along the series' normal, in mm from feet to head: float64 (n,); NaN where unknown."""
    known = numbers["orientation"][np.isfinite(numbers["orientation"]).all(axis=1)]
    if len(known) == 0:
        return np.full(len(numbers), np.nan)
    normal = np.median(
        np.cross(known[:, :3], known[:, 3:]), axis=0
    )  # any one slice's would do; the median is the same for any order of the rows
    normal = normal / np.linalg.norm(normal)
    return numbers["position"] @ (normal if normal[2] >= 0 else -normal)


def groups_of(values: np.ndarray, apart: float) -> list[np.ndarray]:
    """Entries by value, ascending: a new group where the next value is at least `apart` higher."""
    by = np.argsort(values, kind="stable")
    return np.split(by, np.flatnonzero(np.diff(values[by]) >= apart) + 1)


def is_useless(values: np.ndarray, apart: float) -> bool:
    """Whether positions, or numbers, of at least `FEWEST` slices are nearly all the same one."""
    if len(values) < FEWEST:
        return False
    most = max(len(group) for group in groups_of(values, apart))
    return most == len(values) or (len(values) >= 5 and most >= USELESS * len(values))


def places_of(positions: np.ndarray) -> np.ndarray:
    """The different positions, ascending."""
    return np.array([positions[group[0]] for group in groups_of(positions, SAME_POSITION_MM)])


def _alike(one: np.ndarray, other: np.ndarray) -> NDArray[np.bool_]:
    return np.abs(one - other) <= np.maximum(ALIKE * np.minimum(one, other), SAME_POSITION_MM)


def in_turn(positions: np.ndarray) -> tuple[float, float] | None:
    """The steps that change in turn, from the smallest to the largest, if one pass over a head would not lie so."""
    steps = np.diff(places_of(positions))
    turning = _turning(steps)
    if len(turning) < IN_TURN or _are_missing(steps, turning):
        return None
    return float(steps[turning].min()), float(steps[turning].max())


def _turning(steps: np.ndarray) -> NDArray[np.intp]:
    """The longest row of steps, none of which is of the size of one beside it."""
    if len(steps) < IN_TURN:
        return np.empty(0, np.intp)
    same = _alike(steps[1:], steps[:-1])
    lonely = np.concatenate([[True], ~same]) & np.concatenate([~same, [True]])
    runs = np.split(np.arange(len(steps)), np.flatnonzero(np.diff(lonely)) + 1)
    return max((run for run in runs if lonely[run[0]]), key=len, default=np.empty(0, np.intp))


def _are_missing(steps: np.ndarray, turning: np.ndarray) -> bool:
    """Whether many slices of one pass are missing: steps are multiples of the smallest one, and do not repeat."""
    base = float(steps.min())
    multiples = np.all(np.abs(steps - base * np.round(steps / base)) <= EXACT * base + SAME_POSITION_MM)
    own = steps[turning]
    return bool(multiples) and not bool(_alike(own[2:], own[:-2]).all())


def far_apart(positions: np.ndarray) -> list[np.ndarray]:
    """Entries of each of several places that are too far from each other to be of one head; all, if it is one."""
    pieces = groups_of(positions, FAR_MM)
    whole = len(pieces) == 1 or np.ptp(positions) <= HEAD_AND_NECK_MM
    return [np.arange(len(positions))] if whole or min(map(len, pieces)) < FEWEST else pieces


def gaps(positions: np.ndarray, instances: np.ndarray) -> list[Gap]:
    """Where slices are missing.

    A step that is a multiple of equal steps on both sides is a gap, and one that is longer than one beside it while the
    numbers of the slices skip. Zones of another distance are none: their numbers go on, and their steps come in rows.

    Args:
        positions: float64 (n,), in the order of the slices.
        instances: int64 (n,), InstanceNumber of each; NO_NUMBER where the header has none.
    """
    steps = np.diff(positions)
    if len(steps) < 2 or not np.isfinite(steps).all():
        return []
    if in_turn(positions):  # it is no one pass
        return []
    times = _times(steps)
    if times is not None:
        return [Gap(int(times[k]) - 1, float(positions[k]), float(positions[k + 1])) for k in np.flatnonzero(times > 1)]
    skipped = _skipped(instances)
    found = []
    for k, step in enumerate(steps):
        beside = np.array([steps[n] for n in (k - 1, k + 1) if 0 <= n < len(steps)])
        usual = float(beside.min())
        if usual < SAME_POSITION_MM:
            continue
        times = round(step / usual)
        between = len(beside) == 2 and bool(_alike(beside[:1], beside[1:])[0])
        if between and times >= 2 and abs(step - times * beside.mean()) <= ALIKE * usual:
            found.append(Gap(times - 1, float(positions[k]), float(positions[k + 1])))
        elif skipped[k] and step >= 1.5 * usual:
            found.append(Gap(int(skipped[k]), float(positions[k]), float(positions[k + 1])))
    return found


def _times(steps: np.ndarray) -> NDArray[np.int64] | None:
    """How many times the smallest step each one is, where many slices are missing here and there; None elsewhere."""
    base = float(steps.min())
    if base < SAME_POSITION_MM:
        return None
    times = np.round(steps / base).astype(np.int64)
    rows = np.split(times, np.flatnonzero(np.diff(times)) + 1)
    longer = [row for row in rows if row[0] > 1]
    here_and_there = len(longer) >= MANY_GAPS and max(map(len, longer)) < ZONE
    exact = np.all(np.abs(steps - base * times) <= EXACT * base + SAME_POSITION_MM)
    return times if here_and_there and exact else None


def _skipped(instances: np.ndarray) -> NDArray[np.int64]:
    """How many numbers lie between those of neighbours, where numbers run along the series; 0 elsewhere."""
    nothing = np.zeros(len(instances) - 1, np.int64)
    if (instances == NO_NUMBER).any():
        return nothing
    jumps = np.diff(instances)
    usual = int(np.median(jumps))
    if usual == 0 or np.any(jumps % usual) or np.any(jumps // usual < 1):
        return nothing
    return jumps // usual - 1
