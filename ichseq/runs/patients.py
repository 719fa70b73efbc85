"""Whom a run has seen: patients as hashes, which tell whether two runs share one and no more."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from ichseq.data.index import Index
from ichseq.errors import RunError
from ichseq.networks.shipped import is_shipped
from ichseq.runs.records import read_run


def patient_hashes(patient_ids: Iterable[str]) -> list[str]:
    """A short hash of each different patient, sorted: enough to tell whether two runs share a patient."""
    return sorted({hashlib.sha256(str(patient).encode()).hexdigest()[:16] for patient in patient_ids})


def refuse_seen_patients(leaf: Path, index: Index, fold: int) -> list[str]:
    """Hashes of the patients that the run of `leaf` has trained on, if none is in this fold's validation part.

    Raises:
        RunError: some are, so that the fold's figures would be those of patients seen in training.
    """
    patients = index.patients()
    validation = set(patient_hashes(patients[i] for i in index.validation_series(fold)))
    seen = read_run(leaf)["patients"]
    shared = len(validation & set(seen))
    if shared:
        raise RunError(
            f"{leaf}: was trained on {shared} of the {len(validation)} patients of this set's fold {fold}, which is "
            "kept for validation; start from a run of the same fold"
        )
    return seen


def refuse_seen_set(folders: Iterable[Path], index: Index) -> None:
    """Refuse a set of which the trainings of some models, or those that they began from, have seen a patient.

    A network that ships keeps no list of its patients; its card names them.

    Args:
        folders: of the models: leaves, or epochs of one.
        index: the set.

    Raises:
        RunError: they have.
    """
    of_set = set(patient_hashes(index.patients()))
    for folder in folders:
        if is_shipped(folder):
            continue
        shared = len(of_set & set(read_run(folder)["patients"]))
        if shared:
            raise RunError(
                f"{folder}: was trained on {shared} of the {len(of_set)} patients of {index.folder}, and figures on "
                "them would be those of patients seen in training; name a fold that it kept (--fold), or another set"
            )
