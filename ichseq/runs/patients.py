"""Whom a run has seen: patients as hashes, which tell whether two runs share one and no more."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from ichseq.data.index import Index
from ichseq.errors import RunError
from ichseq.networks.named import data_key_of_network, is_network, name_of
from ichseq.networks.shipped import is_shipped
from ichseq.runs.records import read_run


def patient_hashes(patient_ids: Iterable[str]) -> list[str]:
    """A short hash of each different patient, sorted: enough to tell whether two runs share a patient."""
    return sorted({hashlib.sha256(str(patient).encode()).hexdigest()[:16] for patient in patient_ids})


def refuse_seen_patients(leaf: Path, index: Index, fold: int) -> list[str]:
    """Hashes of the patients that the run of `leaf` has trained on, if none is in this fold's validation part.

    A network keeps no list of its patients, and gives none; of one, its own set is refused, if it does not ship.

    Raises:
        RunError: some are, so that the fold's figures would be those of patients seen in training; or a network was
            trained on this very set.
    """
    if is_network(leaf):
        _refuse_its_set(leaf, index)
        return []
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

    A network keeps no list of its patients; of one, its own set is refused, if it does not ship.

    Args:
        folders: of the models: leaves, or epochs of one.
        index: the set.

    Raises:
        RunError: they have.
    """
    of_set = set(patient_hashes(index.patients()))
    for folder in folders:
        if is_network(folder):
            _refuse_its_set(folder, index)
            continue
        shared = len(of_set & set(read_run(folder)["patients"]))
        if shared:
            raise RunError(
                f"{folder}: was trained on {shared} of the {len(of_set)} patients of {index.folder}, and figures on "
                "them would be those of patients seen in training; name a fold that it kept (--fold), or another set"
            )


def _refuse_its_set(network: Path, index: Index) -> None:
    if not is_shipped(network) and data_key_of_network(network) == index.key:
        raise RunError(f"{name_of(network)}: was trained on {index.folder}, and which of its patients it has seen is "
                       "not known; name the run that it was made of, or another set")  # fmt: skip
