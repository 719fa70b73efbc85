"""Which series of a study the network is asked on: one for each part of the body that the study shows.

A study of the head comes as several series of the same head: thin and thick, with a kernel for brain and one for bone,
reformatted. Localizers and images that are not axial are no series here already (ichseq.ct.dicom). Of those left, the
best goes first (`_Rank`), and one is passed over only if better ones show what it shows (`_shown`): a choice may ask
one series too many, and loses no exam.
"""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ichseq.ct.elements import NO_NUMBER
from ichseq.ct.reconstruction import ENHANCED, MAP, REFORMATTED, SHARP, SOFT
from ichseq.ct.series import Series

USUAL_MM: Final = (2.5, 6.0)
"""Distances of slices in head CT, for a network of which it is not known what it has learned."""

SHOWN: Final = 0.8
"""Share of a series' slices that better ones have to show before it is passed over."""

HEAD_MM: Final = (100.0, 220.0)
"""A head's height: a series that is as high as the first shows a whole one, one higher than the second shows more."""

NO_PICTURE: Final = "no plain picture (a map, a projection or a subtraction)"


class PassedOver(NamedTuple):
    """A series that is not asked.

    Attributes:
        number: of the series.
        by: number of the one that is asked in its stead.
        reason: in words.
    """

    number: int
    by: int
    reason: str


class Choice(NamedTuple):
    """Which series are asked.

    Attributes:
        asked: their numbers, ascending.
        why: the reason for each of them, in words.
        passed_over: the others.
    """

    asked: list[int]
    why: list[str]
    passed_over: list[PassedOver]


class _Rank(NamedTuple):
    """What is better is less; the first difference decides."""

    no_picture: bool
    enhanced: bool
    sharpness: int  # 0 soft, 1 not known, 2 sharp
    off: float  # thickness or distance outside what was learned: factors of 1.1
    reformatted: bool
    slices: int  # negative
    number: int
    key: str


def choose(found: Sequence[Series], learned_mm: tuple[float, float] = USUAL_MM) -> Choice:
    """Choose of each study the series to ask.

    Args:
        found: series of any number of studies. Those of one patient with one StudyInstanceUID are a study; a series
            without that UID is one of its own.
        learned_mm: from which to which distance of slices the network has learned.

    Example:
        >>> import ichseq
        >>> from ichseq.ct.choice import choose
        >>> choose(ichseq.load_series("scans/stage_2_test")).why
        ['the only axial series of its study']
    """
    studies: dict[tuple[str, ...], list[int]] = {}
    for k, series in enumerate(found):
        studies.setdefault(study_of(series), []).append(k)
    why: dict[int, str] = {}
    passed_over: list[PassedOver] = []
    for numbers in studies.values():
        chosen, others = _of_study([found[k] for k in numbers], learned_mm)
        why |= {numbers[k]: words for k, words in chosen.items()}
        passed_over += [PassedOver(numbers[one.number], numbers[one.by], one.reason) for one in others]
    return Choice(sorted(why), [why[k] for k in sorted(why)], passed_over)


def study_of(series: Series) -> tuple[str, ...]:
    """What is the same for all series of a study: one without StudyInstanceUID is a study of its own."""
    return (series.patient_id, series.study_uid, *([] if series.study_uid else [series.key]))


def distance_mm(series: Series) -> float:
    """The usual distance of a series' slices in mm; NaN where it has one slice, or no positions."""
    steps = np.diff(series.positions_mm)
    return float(np.median(steps)) if len(steps) and np.isfinite(steps).all() else math.nan


def _of_study(found: list[Series], learned_mm: tuple[float, float]) -> tuple[dict[int, str], list[PassedOver]]:
    """The series of one study that are asked, with reasons, and the others."""
    if len(found) == 1:
        return {0: "the only axial series of its study"}, []
    ranks = [_rank(series, learned_mm) for series in found]
    asked: list[int] = []
    passed: list[PassedOver] = []
    for k in sorted(range(len(found)), key=lambda k: ranks[k]):
        better = [n for n in asked if _comparable(found[n], found[k])]
        if better and _shown(found[k], [found[n] for n in better]):
            by = max(better, key=lambda n: _share_within(found[k], _reach(found[n])))
            passed.append(PassedOver(k, by, _less(found[k], ranks[k], found[by], ranks[by], learned_mm)))
        else:
            asked.append(k)
    why = {}
    for k in asked:
        rivals = [one.reason for one in passed if one.by == k]
        of = f"of {len(found)} axial series of its study"
        if rivals:
            why[k] = f"chosen {of}: {_described(found[k])}; not asked: {', '.join(_numbered(rivals))}"
        else:
            why[k] = f"one {of}, and no better one shows the same: {_described(found[k])}"
    return why, passed


def _rank(series: Series, learned_mm: tuple[float, float]) -> _Rank:
    made = series.reconstruction
    sharpness = 2 if made.marks & SHARP else 0 if made.marks & SOFT else 1
    number = made.number if made.number != NO_NUMBER else np.iinfo(np.int64).max
    return _Rank(bool(made.marks & MAP), _enhanced(series), sharpness, _off(series, learned_mm),
                 bool(made.marks & REFORMATTED), -len(series), int(number), series.key)  # fmt: skip


def _enhanced(series: Series) -> bool:
    return series.contrast or bool(series.reconstruction.marks & ENHANCED)


def _thickness(series: Series) -> float:
    """SliceThickness, or else the distance of the slices; NaN where neither is known."""
    thickness = series.reconstruction.thickness_mm
    return thickness if math.isfinite(thickness) else distance_mm(series)


def _off(series: Series, learned_mm: tuple[float, float]) -> float:
    """How far the thickness is from what was learned, in whole factors of 1.1; what is not known is a little off."""
    low, high = learned_mm
    thickness = _thickness(series)
    if not math.isfinite(thickness):
        return 0.5
    return float(round(max(math.log(low / thickness), math.log(thickness / high), 0) / math.log(1.1)))


def _comparable(one: Series, other: Series) -> bool:
    """Whether heights of the two can be compared: known, and not of two frames of reference."""
    frames = {one.reconstruction.frame, other.reconstruction.frame} - {0}
    return len(frames) < 2 and all(np.isfinite(of.reconstruction.heights_mm).all() for of in (one, other))


def _shown(series: Series, better: Sequence[Series]) -> bool:
    """Whether better series show what this one does: nearly all its slices, or a whole head of more than a head."""
    heights = series.reconstruction.heights_mm
    reaches = [_reach(of) for of in better]
    inside = np.any([(heights >= low) & (heights <= high) for low, high in reaches], axis=0)
    if inside.mean() >= SHOWN:
        return True
    low, high = _reach(series)
    within = [_share_within(of, (low, high)) >= SHOWN for of in better]
    whole = [top - bottom >= HEAD_MM[0] for bottom, top in reaches]
    return high - low > HEAD_MM[1] and any(a and b for a, b in zip(within, whole, strict=True))


def _share_within(series: Series, reach: tuple[float, float]) -> float:
    """Share of the slices whose middle lies within two heights."""
    heights = series.reconstruction.heights_mm
    return float(np.mean((heights >= reach[0]) & (heights <= reach[1])))


def _reach(series: Series) -> tuple[float, float]:
    """From where to where slices show the body: half a distance beyond the first and the last; a slice is a plane."""
    heights: NDArray[np.float64] = np.sort(series.reconstruction.heights_mm)
    half = float(np.median(np.diff(heights))) / 2 if len(heights) > 1 else 0.0
    return float(heights[0]) - half, float(heights[-1]) + half


def _described(series: Series) -> str:
    marks = series.reconstruction.marks
    kernel = "sharp kernel" if marks & SHARP else "soft kernel" if marks & SOFT else "kernel not known"
    words = ["with contrast medium"] * _enhanced(series) + ["no plain picture"] * bool(marks & MAP)
    return ", ".join([*words, kernel, f"{_mm(series)} thick" if math.isfinite(_thickness(series)) else "no thickness"])


def _less(series: Series, own: _Rank, by: Series, better: _Rank, learned_mm: tuple[float, float]) -> str:
    """Why a series comes after a better one: the first difference of their ranks, in words."""
    first = next(name for name in _Rank._fields if getattr(own, name) != getattr(better, name))
    return {
        "no_picture": NO_PICTURE,
        "enhanced": "with contrast medium",
        "sharpness": "sharp kernel (bone)" if own.sharpness == 2 else "kernel not known, the other's is soft",
        "off": f"thickness farther from the {learned_mm[0]:g} to {learned_mm[1]:g} mm that the network learned on: "
        f"{_mm(series)}, the other's {_mm(by)}",
        "reformatted": "reformatted, the other one is not",
        "slices": "fewer slices than one that is alike",
        "number": "like another one by all that the header tells, with a higher series number",
        "key": "like another one by all that the header tells",
    }[first]


def _mm(series: Series) -> str:
    thickness = _thickness(series)
    return f"{thickness:.3g} mm" if math.isfinite(thickness) else "not known"


def _numbered(reasons: Sequence[str]) -> list[str]:
    """Each reason once, with how many series it stands for where these are several."""
    short = [reason.partition(":")[0] if reason.startswith("thickness") else reason for reason in reasons]
    return [f"{short.count(one)} x {one}" if short.count(one) > 1 else one for one in dict.fromkeys(short)]
