"""How an exam and its score are called where a person reads them."""

import hashlib
from typing import Final

from ichseq.predictions.schema import ExamId
from ichseq.pseudonyms import Pseudonyms, is_pseudonym

SALTED_NOTE: Final = "patients are called by a keyed hash of their PatientID; whoever has the salt can compute it"
PSEUDONYM_NOTE: Final = (
    "patients are called by a hash of their PatientID; whoever knows an ID can compute it, so it hides names from "
    "a glance and is no anonymisation"
)


def pseudonym(exam: ExamId, names: Pseudonyms | None = None) -> str:
    """Eight digits for a patient, the same everywhere; of a scan without a PatientID, for its series.

    Args:
        exam: of the patient. Where its PatientID is a pseudonym by a salt, that is what they are called.
        names: what they are called instead.
    """
    if is_pseudonym(exam.patient_id):
        return exam.patient_id
    if names is not None:
        return names.exam(*exam)[0]
    identity = f"patient\0{exam.patient_id}" if exam.patient_id else f"series\0{exam.study_uid}\0{exam.series_uid}"
    return hashlib.sha256(identity.encode()).hexdigest()[:8]


def score_text(score: float) -> str:
    """Two digits, and no 0 or 1 where it is not exactly that."""
    if 0 < score < 0.005:
        return "<0.01"
    return ">0.99" if 0.995 <= score < 1 else f"{score:.2f}"
