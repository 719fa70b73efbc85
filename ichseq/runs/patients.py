"""Whom a run has seen: patients as pseudonyms, which tell whether a set shares one.

run.json holds the pseudonyms and the ids of the salts that they were made with; the salts lie beside it, in the file
`salt`. Without that file known ids can't be tried on the pseudonyms, and a set of ids can't be compared with the run.
A set that has pseudonyms itself is compared by these, where its salt is one of the run's.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from ichseq.data.index import Index
from ichseq.errors import RunError, counted
from ichseq.networks.named import data_key_of_network, is_network, name_of
from ichseq.networks.shipped import is_shipped
from ichseq.pseudonyms import SALT, Pseudonyms, read_salts, write_salts
from ichseq.runs.records import folder_of, read_run

_UNKNOWN: Final = (
    "whether it was trained on a patient of {} can't be known, as the ids were made pseudonyms with a salt that is not "
    "here; figures on patients seen in training are better than on new ones"
)


@dataclass(frozen=True)
class Seen:
    """The patients that a run, and the runs that it began from, were trained on.

    Attributes:
        patients: their pseudonyms.
        salt_ids: of the salts of these.
        salts: those of them that are here.
    """

    patients: frozenset[str]
    salt_ids: frozenset[str]
    salts: tuple[Pseudonyms, ...]

    @classmethod
    def of(cls, index: Index, series: np.ndarray, starts: Iterable[Path] = ()) -> "Seen":
        """Those of a new run: of some series of a set, and those of the leaves that it begins from.

        Raises:
            RunError, DataError: a start's files are missing or damaged.
        """
        before = [cls.read(start) for start in starts]
        salts = tuple({one.salt_id: one for seen in before for one in seen.salts}.values())
        ids, own = _patients(index, series), index.settings.get("pseudonyms")
        if own is None:
            salts = salts or (Pseudonyms.draw(),)
            own, ids = salts[0].salt_id, {salts[0].patient(patient) for patient in ids}
        return cls(
            frozenset(ids).union(*(seen.patients for seen in before)),
            frozenset([own]).union(*(seen.salt_ids for seen in before)),
            salts,
        )

    @classmethod
    def read(cls, leaf: Path) -> "Seen":
        """Those of a leaf, or of one of its epochs.

        Raises:
            RunError: run.json is missing or damaged.
            DataError: the file of salts is damaged.
        """
        run, path = read_run(leaf), folder_of(leaf) / SALT
        ids = frozenset(run.get("salts", []))
        salts = tuple(one for one in read_salts(path) if one.salt_id in ids) if path.exists() else ()
        return cls(frozenset(run["patients"]), ids, salts)

    def record(self) -> dict[str, Any]:
        """What run.json keeps of them."""
        return {"patients": sorted(self.patients), "salts": sorted(self.salt_ids)}

    def write_salts(self, leaf: Path) -> None:
        """Write the file of salts beside run.json, if there are any.

        Raises:
            DataError: it can't be written.
        """
        if self.salts:
            write_salts(leaf / SALT, self.salts)

    def shared_with(self, index: Index, series: np.ndarray) -> tuple[int, bool]:
        """How many patients of some series are among them, and whether all could be compared."""
        ids, own = _patients(index, series), index.settings.get("pseudonyms")
        salts = {one.salt_id: one for one in self.salts}
        comparable = {own} & self.salt_ids if own is not None else salts.keys() & self.salt_ids
        shared = {patient for salt_id in comparable for patient in ids
                  if (patient if own is not None else salts[salt_id].patient(patient)) in self.patients}  # fmt: skip
        return len(shared), comparable == self.salt_ids and bool(comparable or not self.patients)


def refuse_seen_patients(leaf: Path, index: Index, fold: int) -> list[str]:
    """See that a run has trained on no patient of a fold's validation part.

    Returns:
        What a person should know: whether some patients could not be compared.

    Raises:
        RunError: it has, so that the fold's figures would be those of patients seen in training.
    """
    series = index.validation_series(fold)
    shared, known = Seen.read(leaf).shared_with(index, series)
    if shared:
        raise RunError(
            f"{leaf}: was trained on {shared} of the {len(_patients(index, series))} patients of this set's fold "
            f"{fold}, which is kept for validation; start from a run of the same fold"
        )
    return [] if known else [f"{leaf}: {_UNKNOWN.format(f'fold {fold}')}"]


def refuse_seen_set(folders: Iterable[Path], index: Index) -> list[str]:
    """Refuse a set of which the trainings of some models, or those that they began from, have seen a patient.

    A network keeps no list of its patients; see `refuse_set_of_network`.

    Args:
        folders: of the models: leaves, or epochs of one.
        index: the set.

    Returns:
        What a person should know: of which models some patients could not be compared.

    Raises:
        RunError: they have.
    """
    every, remarks = np.arange(index.n_series), []
    for folder in folders:
        if is_network(folder):
            refuse_set_of_network(folder, index)
            continue
        shared, known = Seen.read(folder).shared_with(index, every)
        if shared:
            raise RunError(
                f"{folder}: was trained on {shared} of the {counted(index.n_patients, 'patient')} of {index.folder}, "
                "and figures on them would be those of patients seen in training; name a fold that it kept (--fold), "
                "or another set"
            )
        if not known:
            remarks.append(f"{folder}: {_UNKNOWN.format(index.folder)}")
    return remarks


def refuse_set_of_network(folder: Path, index: Index) -> None:
    """Refuse the set that a network was trained on: which of its patients it has seen, its folder does not say.

    One that ships has seen made-up scans of its own. Of a run nothing is asked.

    Raises:
        RunError: it is that set.
    """
    if is_network(folder) and not is_shipped(folder) and data_key_of_network(folder) == index.key:
        raise RunError(f"{name_of(folder)}: was trained on {index.folder}, and which of its patients it has seen is "
                       "not known; name the run that it was made of, or another set")  # fmt: skip


def _patients(index: Index, series: Sequence[int] | np.ndarray) -> set[str]:
    patients = index.patients()
    return {patients[i] for i in series}
