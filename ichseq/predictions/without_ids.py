"""Tables with pseudonyms in the place of ids and names of files, and back where the scans are at hand."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import pandas as pd

from ichseq.predictions.schema import CHOSEN, EXAM_KEY, ExamId
from ichseq.pseudonyms import Pseudonyms, is_pseudonym

_WITHOUT_IDS: Final = ("warnings", "weights", CHOSEN)
"""Columns of text that ichseq has written; any other may be out of a header, and is emptied."""


def without_ids(table: pd.DataFrame, names: Pseudonyms) -> pd.DataFrame:
    """A table of slices, of exams or of studies with pseudonyms; the same rows in the same order.

    A column whose name ends with series_uid may hold several UIDs, as "1.2; 1.3".
    """
    patients = [patient or study for patient, study in zip(table["patient_id"], table["study_uid"], strict=True)]
    new = {"patient_id": _each(patients, names.patient)}
    for name in map(str, table.columns):
        if name == "file":
            new[name] = _each(table[name], names.file)
        elif name in ("study_uid", "sop_uid"):
            new[name] = _each(table[name], names.uid)
        elif name.endswith("series_uid"):
            new[name] = _each(table[name], lambda text: "; ".join(map(names.uid, text.split("; "))))
    texts = {str(name) for name, kind in table.dtypes.items() if not pd.api.types.is_numeric_dtype(kind)}
    new |= {name: [""] * len(table) for name in sorted(texts - new.keys() - set(_WITHOUT_IDS))}
    return table.assign(**new)


def _each(texts: Iterable[str], make: Callable[[str], str]) -> list[str]:
    texts = list(texts)
    made = {text: make(text) for text in set(texts)}
    return [made[text] for text in texts]


def with_ids(table: pd.DataFrame, scans: Iterable[tuple[ExamId, Sequence[str]]], names: Pseudonyms) -> pd.DataFrame:
    """A table that `without_ids` has made, with the ids of those of its exams that are among the scans.

    Args:
        table: of slices or of exams.
        scans: of each series, who it is and its SOPInstanceUIDs.
        names: the pseudonyms that the table was made with.
    """
    exams, uids = dict[tuple[str, ...], ExamId](), dict[str, str]()
    for exam, own in scans:
        exams[names.exam(*exam)] = exam
        uids |= {names.uid(uid): uid for uid in own}
    keys = zip(*(table[name].tolist() for name in EXAM_KEY), strict=True)
    rows = [exams.get(key, ExamId(*key)) for key in keys]
    new: dict[str, list[str]] = {name: [row[k] for row in rows] for k, name in enumerate(EXAM_KEY)}
    if "sop_uid" in table.columns:
        new["sop_uid"] = [uids.get(uid, uid) for uid in table["sop_uid"].tolist()]
    return table.assign(**new)


def has_pseudonyms(table: pd.DataFrame) -> bool:
    """Whether the patients of a table have pseudonyms by a salt."""
    return all(map(is_pseudonym, table["patient_id"].unique()))
