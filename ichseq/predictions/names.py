"""How an exam and its score are called where a person reads them."""

import hashlib
from typing import Final

from ichseq.predictions.schema import ExamId

PSEUDONYM_NOTE: Final = (
    "patients are called by a hash of their PatientID; whoever knows an ID can compute it, so it hides names from "
    "a glance and is no anonymisation"
)


def pseudonym(exam: ExamId) -> str:
    """Eight digits for a patient, the same everywhere; of a scan without a PatientID, for its series."""
    identity = f"patient\0{exam.patient_id}" if exam.patient_id else f"series\0{exam.study_uid}\0{exam.series_uid}"
    return hashlib.sha256(identity.encode()).hexdigest()[:8]


def score_text(score: float) -> str:
    """Two digits, and no 0 or 1 where it is not exactly that."""
    if 0 < score < 0.005:
        return "<0.01"
    return ">0.99" if 0.995 <= score < 1 else f"{score:.2f}"
