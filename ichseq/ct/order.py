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

from ichseq.ct.elements import NO_NUMBER
from ichseq.ct.left_out import LeftOut, SliceError
from ichseq.ct.scan import Headers

Order = Literal["position", "instance", "file"]
SAME_POSITION_MM: Final = 0.01
"""Slices closer than this along n lie at one position."""

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
        for piece in _split_ties(headers, Part(kept, warnings=part.warnings), ties if order != "file" else []):
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
    finished = []
    for part in parts:
        numbers = headers.numbers[part.rows]
        codes = np.unique(numbers["rows"].astype(np.int64) << 32 | numbers["columns"], return_inverse=True)[1]
        finished += _split(part, codes, "image sizes")
    return finished


def _clusters(orientation: np.ndarray) -> np.ndarray:
    """Number the orientations, (n, 6), equal within SAME_DIRECTION; the same for any order of the rows."""
    codes = np.full(len(orientation), -1)
    order = np.lexsort(orientation.T[::-1])
    for row in order:
        if codes[row] < 0:
            near = np.max(np.abs(orientation - orientation[row]), axis=1) < SAME_DIRECTION
            codes[near & (codes < 0)] = codes.max() + 1
    return codes


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


def _ties(headers: Headers, names: list[str], part: Part, order: Order) -> list[list[int]]:
    """Rows that stand at one place: at one position, under one number, or, in file order, under one SOPInstanceUID."""
    if order == "position":
        key = along_normal(headers.numbers[part.rows])
        by = np.argsort(key, kind="stable")
        apart = np.diff(key[by]) >= SAME_POSITION_MM
    else:
        key = headers.numbers["instance"][part.rows] if order == "instance" else headers.sop_uid[part.rows]
        by = np.argsort(key, kind="stable")
        apart = key[by][1:] != key[by][:-1]
    groups = np.split(part.rows[by], np.flatnonzero(apart) + 1)
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


def _split_ties(headers: Headers, part: Part, ties: list[list[int]]) -> list[Part]:
    """Two reconstructions under one UID: split them by acquisition or kernel, where that resolves every tie."""
    if not ties:
        return [part]
    most = max(len(tie) for tie in ties)
    acquisition, kernel = headers.numbers["acquisition"], headers.kernel
    columns = {"AcquisitionNumber": [acquisition], "ConvolutionKernel": [kernel]}
    columns["AcquisitionNumber and ConvolutionKernel"] = [acquisition, kernel]
    for name, keys in columns.items():
        labels = [tuple(key[row].item() for key in keys) for row in range(len(headers))]
        parts = sorted({labels[row] for row in part.rows})
        resolves = all(len({labels[row] for row in tie}) == len(tie) for tie in ties)
        # Some scanners count an acquisition for every slice: that tells slices apart, not reconstructions.
        if resolves and len(parts) <= most:
            codes = np.array([parts.index(labels[row]) for row in part.rows])
            return _split(part, codes, f"sets of slices (by {name})")
    count = sum(len(tie) for tie in ties)
    warning = f"{count} slices with different pixels share {len(ties)} place(s); ordered there by SOPInstanceUID"
    return [Part(part.rows, warnings=[*part.warnings, warning])]


def _natural(name: str) -> tuple[tuple[int, int | str], ...]:
    return tuple((0, int(piece)) if piece.isdecimal() else (1, piece) for piece in re.split(r"([0-9]{1,18})", name))


def _sorted(headers: Headers, names: list[str], part: Part, digests: dict[int, str], order: Order) -> Part:
    rows, numbers = part.rows, headers.numbers[part.rows]
    positions = along_normal(numbers)
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
    return Part(rows, positions, [*warnings, *_lacking(headers.take(rows), positions)])


def _lacking(headers: Headers, positions: np.ndarray) -> list[str]:
    """What the headers of a series' slices, in order, lack or leave in doubt."""
    spacing = headers.numbers["spacing"]
    found = []
    if np.isnan(spacing).any():
        found.append(f"{int(np.isnan(spacing).any(axis=1).sum())} slices have no PixelSpacing")
    elif np.ptp(spacing, axis=0).max() > 1e-3:
        found.append("PixelSpacing differs between slices; the first slice's is given")
    if np.isnan(positions).any():
        found.append(f"{int(np.isnan(positions).sum())} slices have no position")
    if not headers.text("patient_id", 0):
        found.append("no PatientID")
    if noted := int(headers.numbers["noted"].sum()):
        found.append(f"pydicom doubts the headers of {noted} files (its words may hold patient data and are withheld)")
    return found
