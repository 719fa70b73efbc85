"""What belongs together though its UIDs or patient ids differ, found in the headers of all files at once.

A study that stands under several PatientIDs is one patient's, and a series whose slices have a SeriesInstanceUID each,
perhaps a StudyInstanceUID each too, is one series. Both get one id, and say so in a warning (`remarks`).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from ichseq.ct.scan import Headers
from ichseq.ct.stack import HEAD_AND_NECK_MM, SAME_POSITION_MM, along_normal, in_turn

PATIENT, SERIES, STUDY, ALONE = 4, 8, 16, 32
"""Bits of the column `noted`, above those of `ichseq.ct.dicom`: what the slice shares with others though its header
does not say so; ALONE: it is one of many series of one slice, which do not make one series."""

MANY: Final = 5
"""So many series of one slice are no accident."""

_REMARKS: Final = {
    PATIENT: "its study stands under several PatientIDs: taken for one patient's",
    SERIES: "a SeriesInstanceUID for each slice: put together, as the slices lie evenly",
    STUDY: "a StudyInstanceUID for each slice: put together, as the slices lie evenly",
    ALONE: "one of many series of one slice, which do not lie evenly: perhaps a series was torn apart",
}


def put_together(headers: Headers) -> Headers:
    """The same slices, with one PatientID for each study, and one series for slices that are one.

    Several ids become the first one in the order of their bytes, whatever the order of the files.
    """
    if len(headers) == 0:
        return headers
    return _one_series(_one_patient(headers))


def remarks(numbers: np.ndarray) -> list[str]:
    """What a person should know of a series with these rows of `Headers.numbers`."""
    bits = int(np.bitwise_or.reduce(numbers["noted"])) if len(numbers) else 0
    return [text for bit, text in _REMARKS.items() if bits & bit]


def _marked(headers: Headers, rows: np.ndarray, bit: int) -> np.ndarray:
    numbers = headers.numbers.copy()
    numbers["noted"][rows] |= bit
    return numbers


def _one_patient(headers: Headers) -> Headers:
    """One PatientID for all studies that share a patient, and for all patients that share a study."""
    studies, study = np.unique(headers.study_uid, return_inverse=True)
    patients, patient = np.unique(headers.patient_id, return_inverse=True)
    named = (studies != b"")[study]
    pairs = np.unique(np.stack([study[named], patient[named]], axis=1), axis=0)
    several = np.bincount(pairs[:, 0], minlength=len(studies)) > 1
    if not several.any():
        return headers
    first = np.arange(len(patients))  # of each patient, the one that stands for it
    for of_study in np.flatnonzero(several):
        ids = [k for k in pairs[pairs[:, 0] == of_study, 1] if patients[k] != b""]
        roots = {_root(first, int(k)) for k in ids}
        for root in roots:
            first[root] = min(roots)
    stands = np.array([_root(first, k) for k in range(len(patients))])[patient]
    shared = named & several[study]
    for of_study in np.flatnonzero(several):  # where a part of a study has no PatientID, the other part's is its
        rows = named & (study == of_study)
        stands[rows] = max(set(stands[rows].tolist()))
    changed = shared | (stands != patient)
    return replace(headers, patient_id=patients[stands], numbers=_marked(headers, np.flatnonzero(changed), PATIENT))


def _root(first: np.ndarray, k: int) -> int:
    while first[k] != k:
        k = int(first[k])
    return k


def _one_series(headers: Headers) -> Headers:
    """One SeriesInstanceUID for slices of a study, or of a patient, that have one each and lie as a series does."""
    single = _alone(headers, "patient_id", "study_uid", "series_uid")
    by_study = _sets(headers, single, [headers.patient_id, headers.study_uid])
    for rows in by_study:
        headers = _joined(headers, rows, SERIES) if _is_stack(headers, rows) else _with(headers, rows, ALONE)
    named = _alone(headers, "patient_id", "study_uid") & single & (headers.patient_id != b"")
    for rows in _sets(headers, named, [headers.patient_id]):
        if _is_stack(headers, rows):
            headers = _joined(headers, rows, SERIES | STUDY)
    return headers


def _alone(headers: Headers, *names: str) -> np.ndarray:
    """Bool (n,): whether no other slice has the same ids."""
    code = np.zeros(len(headers), np.int64)
    for name in names:
        code = np.unique(code * len(headers) + _codes(getattr(headers, name)), return_inverse=True)[1]
    alone: np.ndarray = np.bincount(code)[code] == 1
    return alone


def _codes(values: np.ndarray) -> np.ndarray:
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def _sets(headers: Headers, chosen: np.ndarray, ids: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Rows among those chosen that could be one series: of one id, made alike; at least `MANY`."""
    rows = np.flatnonzero(chosen)
    if len(rows) < MANY:
        return []
    numbers = headers.numbers[rows]
    names = ("rows", "columns", "thickness", "kind", "series_number", "frame", "patient")
    keys = [*(column[rows] for column in ids), headers.kernel[rows], *(numbers[name] for name in names)]
    code = np.zeros(len(rows), np.int64)
    for key in keys:
        code = np.unique(code * len(rows) + _codes(key), return_inverse=True)[1]
    by = np.argsort(code, kind="stable")
    sets = np.split(rows[by], np.flatnonzero(np.diff(code[by])) + 1)
    return [found for found in sets if len(found) >= MANY]


def _is_stack(headers: Headers, rows: np.ndarray) -> bool:
    """Whether slices lie as those of one series: parallel, no two at one place, in even steps, in reach of a head."""
    numbers = headers.numbers[rows]
    if not np.isfinite(numbers["orientation"]).all() or np.ptp(numbers["orientation"], axis=0).max() >= 0.01:
        return False
    places = np.sort(along_normal(numbers))
    steps = np.diff(places)
    apart = bool(np.isfinite(places).all()) and bool(steps.min() >= SAME_POSITION_MM)
    return apart and np.ptp(places) <= HEAD_AND_NECK_MM and in_turn(places) is None


def _joined(headers: Headers, rows: np.ndarray, bits: int) -> Headers:
    """With one series UID, and one study UID, for the rows given: the first of theirs."""
    series_uid, study_uid = headers.series_uid.copy(), headers.study_uid.copy()
    series_uid[rows] = min(series_uid[rows].tolist())
    study_uid[rows] = min(study_uid[rows].tolist())
    return replace(headers, series_uid=series_uid, study_uid=study_uid, numbers=_marked(headers, rows, bits))


def _with(headers: Headers, rows: np.ndarray, bit: int) -> Headers:
    return replace(headers, numbers=_marked(headers, rows, bit))
