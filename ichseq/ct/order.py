"""The order of a series' slices: one orientation and size each, duplicates, ties. Files' order on disk never matters.

The rules and the measurements behind them: n = row x column direction, n_z > 0; s = position . n, ascending from the
feet to the head. This holds with gantry tilt, where sorting by x, y and z fails on a jitter of a micrometre.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np

from ichseq.ct.dicom import NO_END, NOTED_BY_PYDICOM
from ichseq.ct.elements import NO_NUMBER
from ichseq.ct.left_out import LeftOut, SliceError
from ichseq.ct.passes import cut_passes
from ichseq.ct.scan import Headers
from ichseq.ct.stack import SAME_POSITION_MM, along_normal, far_apart, gaps, groups_of, is_useless
from ichseq.ct.together import remarks
from ichseq.errors import counted

Order = Literal["position", "instance", "file"]
_GAPS_SHOWN: Final = 3
SAME_DIRECTION: Final = 0.01
"""Components of two orientations that differ by less (about half a degree) are one orientation."""


@dataclass
class Part:
    """Rows of a header table that form one series: in slice order, once `arrange` has seen them."""

    rows: np.ndarray
    positions: np.ndarray = field(default_factory=lambda: np.empty(0))
    warnings: list[str] = field(default_factory=list)


def arrange(
    headers: Headers, names: list[str], read: Callable[[int], np.ndarray], order: Order
) -> tuple[list[Part], list[LeftOut]]:
    """Split the slices of one SeriesInstanceUID into series, and put each in order.

    Args:
        headers: the slices, in any order.
        names: their files' names.
        read: row -> Hounsfield units; called for slices at one position only, and may raise SliceError.
        order: "position"; or "instance" (InstanceNumber) or "file" (name, numbers in it as numbers), if asked for.
    """
    left_out: list[LeftOut] = []
    rows = np.arange(len(headers))
    if order == "instance":
        numbered = headers.numbers["instance"] != NO_NUMBER
        reason = "no InstanceNumber, so no place in the series; ask for file order to read it all the same"
        left_out = [LeftOut(names[row], reason) for row in rows[~numbered]]
        rows = rows[numbered]
    finished: list[Part] = []
    for part in _split_by_shape(headers, rows):
        ties = _ties(headers, names, part, order)
        digests: dict[int, str] = {}
        gone: set[int] = set()
        for tie in ties:
            digests.update((row, _digest(row, read)) for row in tie)
            gone |= _drop_identical(headers, names, tie, digests, left_out)
        kept = np.array([row for row in part.rows if row not in gone], np.intp)
        ties = [left for tie in ties if len(left := [row for row in tie if row not in gone]) > 1]
        part = Part(kept, warnings=part.warnings)
        reason, expected = _no_order(headers, part, order)
        if reason:
            left_out += [LeftOut(names[row], reason, expected) for row in part.rows]
            continue
        for piece in _cut(headers, names, part, ties, order, left_out):
            finished.append(_sorted(headers, names, piece, digests, order))
    finished.sort(key=lambda part: min(headers.sop_uid[part.rows].tolist()))
    return finished, left_out


def _split(part: Part, codes: np.ndarray, what: str) -> list[Part]:
    pieces = [part.rows[codes == code] for code in np.unique(codes)]
    if len(pieces) == 1:
        return [part]
    warning = f"one SeriesInstanceUID, but {len(pieces)} {what}: read as {len(pieces)} series"
    return [Part(piece, warnings=[*part.warnings, warning]) for piece in pieces]


def _split_by_shape(headers: Headers, rows: np.ndarray) -> list[Part]:
    """One orientation, then one image size, for each part."""
    if len(rows) == 0:
        return []
    parts = [Part(rows)]
    orientation = headers.numbers["orientation"][rows]
    if np.all(np.isfinite(orientation)):
        parts = _split(parts[0], _clusters(orientation), "orientations")
    parts = [piece for part in parts for piece in _split_apart(headers, part)]
    finished = []
    for part in parts:
        numbers = headers.numbers[part.rows]
        codes = np.unique(numbers["rows"].astype(np.int64) << 32 | numbers["columns"], return_inverse=True)[1]
        finished += _split(part, codes, "image sizes")
    return finished


def _split_apart(headers: Headers, part: Part) -> list[Part]:
    """Slices that lie too far from each other to be of one head."""
    positions = along_normal(headers.numbers[part.rows])
    if not np.isfinite(positions).all():
        return [part]
    codes = np.empty(len(positions), np.intp)
    for code, piece in enumerate(far_apart(positions)):
        codes[piece] = code
    return _split(part, codes, "places far from each other")


def _no_order(headers: Headers, part: Part, order: Order) -> tuple[str, bool]:
    """Why slices have no order, if their positions or numbers are nearly all the same; and whether that is expected.

    A scanner that waits for contrast medium takes one place at several times. An export that loses positions leaves
    zeros, or the first one's.
    """
    numbers = headers.numbers[part.rows]
    if order == "instance" and is_useless(numbers["instance"], 1):
        return (
            "InstanceNumber is nearly always the same, so no place in the series; ask for file order to read it",
            False,
        )
    if order != "position" or not is_useless(along_normal(numbers), SAME_POSITION_MM):
        return "", False
    times = numbers["acquired_s"]
    if (times >= 0).all() and len(np.unique(times)) == len(times) and numbers["position"].any():
        return "one place at several times (contrast medium is waited for), not a series of a head", True
    return (
        "ImagePositionPatient is nearly always the same, so no place in the series; predict --order instance (or file) "
        "reads it all the same"
    ), False


def _clusters(orientation: np.ndarray) -> np.ndarray:
    """Number the orientations, (n, 6), equal within SAME_DIRECTION; the same for any order of the rows."""
    codes = np.full(len(orientation), -1)
    order = np.lexsort(orientation.T[::-1])
    for row in order:
        if codes[row] < 0:
            near = np.max(np.abs(orientation - orientation[row]), axis=1) < SAME_DIRECTION
            codes[near & (codes < 0)] = codes.max() + 1
    return codes


def _ties(headers: Headers, names: list[str], part: Part, order: Order) -> list[list[int]]:
    """Rows that stand at one place: at one position, under one number, or, in file order, under one SOPInstanceUID."""
    if order == "position":
        groups = groups_of(along_normal(headers.numbers[part.rows]), SAME_POSITION_MM)
    elif order == "instance":
        groups = groups_of(headers.numbers["instance"][part.rows], 1)
    else:
        groups = groups_of(np.unique(headers.sop_uid[part.rows], return_inverse=True)[1], 1)
    groups = [part.rows[group] for group in groups]
    by_name = (sorted(group.tolist(), key=lambda row: (headers.sop_uid[row], names[row])) for group in groups)
    return [group for group in by_name if len(group) > 1]


def _digest(row: int, read: Callable[[int], np.ndarray]) -> str:
    try:
        return hashlib.sha256(np.ascontiguousarray(read(row)).tobytes()).hexdigest()
    except SliceError:
        return ""  # found and reported when the slice is read


def _drop_identical(
    headers: Headers, names: list[str], tie: list[int], digests: dict[int, str], left_out: list[LeftOut]
) -> set[int]:
    """Of slices with equal pixels at one place, all but the first by SOPInstanceUID."""
    gone: set[int] = set()
    kept: dict[str, int] = {}
    for row in tie:
        first = kept.setdefault(digests[row] or f"unreadable {row}", row)
        if first != row:
            gone.add(row)
            reason = f"duplicate: same place and pixels as {names[first]}, which is kept"
            left_out.append(LeftOut(names[row], reason, expected=True))
    return gone


def _cut(
    headers: Headers, names: list[str], part: Part, ties: list[list[int]], order: Order, left_out: list[LeftOut]
) -> list[Part]:
    """The passes over a head that stand under one UID (ichseq.ct.passes)."""
    if order == "file" or len(part.rows) == 0:
        return [part]
    numbers = headers.numbers[part.rows]
    places = along_normal(numbers) if order == "position" else numbers["instance"]
    cut = cut_passes(headers, part.rows, places, steps_count=order == "position")
    reason = "a later time of a perfusion, of which the first alone is read"
    left_out += [LeftOut(names[row], reason, expected=True) for row in cut.later]
    warnings = [*part.warnings, *([cut.warning] if cut.warning else [])]
    return [Part(piece, warnings=[*warnings, *_tied(ties, piece)]) for piece in cut.pieces]


def _tied(ties: list[list[int]], rows: np.ndarray) -> list[str]:
    """What a person should know of places that several slices share."""
    left = [shared for tie in ties if len(shared := np.intersect1d(tie, rows)) > 1]
    if not left:
        return []
    count = sum(len(tie) for tie in left)
    return [f"{count} slices with different pixels share {len(left)} place(s); ordered there by SOPInstanceUID"]


def _natural(name: str) -> tuple[tuple[int, int | str], ...]:
    return tuple((0, int(piece)) if piece.isdecimal() else (1, piece) for piece in re.split(r"([0-9]{1,18})", name))


def _sorted(headers: Headers, names: list[str], part: Part, digests: dict[int, str], order: Order) -> Part:
    rows, numbers = part.rows, headers.numbers[part.rows]
    positions = along_normal(numbers)
    if is_useless(positions, SAME_POSITION_MM):
        positions = np.full(len(rows), np.nan)
    if order == "file":
        by = np.array(sorted(range(len(rows)), key=lambda k: (_natural(names[rows[k]]), names[rows[k]])))
    else:
        key = positions if order == "position" else numbers["instance"]
        by = np.argsort(key, kind="stable")
        # Near-equal positions count as one place, in which the UID (then the pixels) decide.
        step = SAME_POSITION_MM if order == "position" else 1
        place = np.empty(len(rows), np.int64)
        place[by] = np.cumsum(np.concatenate([[0], np.diff(key[by]) >= step]))
        uids = headers.sop_uid[rows]
        by = np.array(sorted(range(len(rows)), key=lambda k: (place[k], uids[k], digests.get(int(rows[k]), ""))))
    warnings = list(part.warnings)
    repeated = len(rows) - len(np.unique(headers.sop_uid[rows]))
    if repeated:
        warnings.append(f"{repeated} slices repeat the SOPInstanceUID of another slice of the series")
    rows, positions = rows[by], positions[by]
    if order == "position" and (warning := _gaps_in_words(positions, headers.numbers["instance"][rows])):
        warnings.append(warning)
    return Part(rows, positions, [*warnings, *_lacking(headers.take(rows), positions)])


def _gaps_in_words(positions: np.ndarray, instances: np.ndarray) -> str:
    """Where slices are missing within the series; "" if none are."""
    found = gaps(positions, instances)
    if not found:
        return ""
    count = sum(gap.missing for gap in found)
    places = ", ".join(f"{gap.start:.4g} and {gap.end:.4g} mm" for gap in found[:_GAPS_SHOWN])
    more = f" and at {len(found) - _GAPS_SHOWN} more places" if len(found) > _GAPS_SHOWN else ""
    return f"{counted(count, 'slice')} {'seems' if count == 1 else 'seem'} to be missing: between {places}{more}"


def _lacking(headers: Headers, positions: np.ndarray) -> list[str]:
    """What the headers of a series' slices, in order, lack or leave in doubt."""
    spacing = headers.numbers["spacing"]
    found = remarks(headers.numbers)
    if np.isnan(spacing).any():
        found.append(f"{int(np.isnan(spacing).any(axis=1).sum())} slices have no PixelSpacing")
    elif np.ptp(spacing, axis=0).max() > 1e-3:
        found.append("PixelSpacing differs between slices; the first slice's is given")
    if np.isnan(positions).any():
        found.append(f"{int(np.isnan(positions).sum())} slices have no position")
    if not headers.text("patient_id", 0):
        found.append("no PatientID")
    noted = headers.numbers["noted"]
    if endless := int(np.count_nonzero(noted & NO_END)):
        found.append(f"compressed pixel data of {counted(endless, 'file')} end without their mark; they are whole")
    if doubted := int(np.count_nonzero(noted & NOTED_BY_PYDICOM)):
        found.append(
            f"pydicom doubts the headers of {doubted} files (its words may hold patient data and are withheld)"
        )
    return found
