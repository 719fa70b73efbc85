"""Folds by patient, stratified by what the patients bleed.

Iterative stratification (Sechidis, Tsoumakas and Vlahavas, ECML PKDD 2011): the rarest property is dealt out first,
each patient to the fold that lacks it most. What is drawn depends on the seed and the patients alone, and patients that
have a fold keep it.
"""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from ichseq.errors import ConfigError, counted
from ichseq.labels import LABELS


def assign_folds(
    patients: Sequence[str],
    labels: np.ndarray,
    *,
    folds: int,
    seed: int,
    kept: Mapping[str, int] | None = None,
) -> np.ndarray:
    """Draw a fold for every patient; a patient in one fold only.

    Args:
        patients: one identifier a patient.
        labels: (patients, 6): the highest label of each patient's slices, NaN where none is known.
        folds: how many.
        seed: of the draw.
        kept: folds of patients drawn before, which stay.

    Returns:
        int16 (patients,), 0 to folds - 1.

    Raises:
        ConfigError: fewer than one fold, or more folds than patients.
    """
    kept = kept or {}
    if folds < 1:
        raise ConfigError(f"{folds} folds asked for; at least 1 is needed")
    if folds > len(patients):
        raise too_many_folds(folds, len(patients))
    # a hash of seed and name instead of a shuffle: a patient's turn depends on no other patient
    turn = [hashlib.sha256(f"{seed}\n{patient}".encode()).digest() for patient in patients]
    order = np.array(sorted(range(len(patients)), key=turn.__getitem__))
    properties = _properties(labels)
    fold = np.array([kept.get(patient, -1) for patient in patients], np.int16)
    wanted = np.repeat(properties.sum(axis=0)[None] / folds, folds, axis=0)  # (folds, properties), still to come
    room = np.full(folds, len(patients) / folds)
    for i in np.flatnonzero(fold >= 0):
        wanted[fold[i]] -= properties[i]
        room[fold[i]] -= 1
    while (fold < 0).any():
        left = properties[fold < 0].sum(axis=0)
        rarest = int(np.argmin(np.where(left > 0, left, np.inf)))
        for i in order[(fold[order] < 0) & properties[order, rarest]]:
            f = max(range(folds), key=lambda f: (wanted[f, rarest], room[f], -f))
            fold[i] = f
            wanted[f] -= properties[i]
            room[f] -= 1
    return fold


def too_many_folds(folds: int, patients: int) -> ConfigError:
    """The error for more folds than patients."""
    source = f"the source holds {counted(patients, 'patient')}"
    return ConfigError(f"{folds} folds asked for, but {source}; ask for at most {patients}")


def _properties(labels: np.ndarray) -> np.ndarray:
    """Bool (patients, 8): each label present; no bleeding known; nothing known. Every patient has at least one."""
    present = labels == 1
    unknown = np.isnan(labels).all(axis=1)
    none = ~present.any(axis=1) & ~unknown
    return np.column_stack([present, none, unknown])


def patient_labels(codes: np.ndarray, labels: np.ndarray, patients: int) -> np.ndarray:
    """The highest known label of each patient's slices.

    Args:
        codes: int (slices,), the patient of each slice.
        labels: (slices, 6), NaN where unknown.
        patients: number of patients.

    Returns:
        float32 (patients, 6), NaN where no slice's label is known.
    """
    highest = np.full((patients, len(LABELS)), -1, np.float32)
    np.maximum.at(highest, codes, np.nan_to_num(labels, nan=-1))
    return np.where(highest < 0, np.nan, highest).astype(np.float32)
