"""How an exam and a number are called on a page."""

import hashlib
from typing import Final

import numpy as np

from ichseq.predictions.schema import ExamId

PSEUDONYM_NOTE: Final = (
    "patients are called by a hash of their PatientID; whoever knows an ID can compute it, so it hides names from "
    "a glance and is no anonymisation"
)


def pseudonym(exam: ExamId) -> str:
    """Eight digits for a patient, the same in every report; of a scan without a PatientID, for its study."""
    identity = f"patient\0{exam.patient_id}" if exam.patient_id else f"study\0{exam.study_uid}\0{exam.series_uid}"
    return hashlib.sha256(identity.encode()).hexdigest()[:8]


def score_text(score: float) -> str:
    """Two digits, and no 0 or 1 where it is not exactly that."""
    if 0 < score < 0.005:
        return "<0.01"
    return ">0.99" if 0.995 <= score < 1 else f"{score:.2f}"


def sides_of(orientation: np.ndarray) -> dict[str, str]:
    """Which side of the patient lies at the left, right, top and bottom of a slice; nothing where it is not known.

    Args:
        orientation: (6,), ImageOrientationPatient: the directions along a row and down a column (DICOM PS3.3
            C.7.6.2.1.1), towards the patient's left, back and head.
    """
    if not np.isfinite(orientation).all():
        return {}
    sides = {}
    for direction, before, after in ((orientation[:3], "left", "right"), (orientation[3:], "top", "bottom")):
        axis = int(np.abs(direction).argmax())
        back, front = ("RL", "AP", "FH")[axis][:: 1 if direction[axis] > 0 else -1]
        sides |= {before: back, after: front}
    return sides
