"""A prepared set without ids: what stands in its tables instead, and the salt that this follows from."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from ichseq.ct.left_out import LeftOut
from ichseq.data.index_files import read_settings
from ichseq.data.owned import INDEX
from ichseq.errors import DataError
from ichseq.pseudonyms import SALT, Pseudonyms, kept_salt


def names_of_set(out: Path, given: Pseudonyms | None) -> Pseudonyms:
    """The pseudonyms of a set that is prepared, or prepared again.

    Args:
        out: the prepared folder, of which this process has the lock, with its index.json.
        given: those of a salt that is kept elsewhere; None: the salt lies in the folder, and is drawn if it is new.

    Raises:
        DataError: the salt is missing or damaged, or is not the one that the set was prepared with.
    """
    settings = read_settings(out)
    known = settings.get("pseudonyms") if settings["finished"] else None
    if given is None and known is not None and not (out / SALT).exists():
        raise DataError(f"{out / SALT}: is missing, so the set's pseudonyms can't be made again; restore it, or name "
                        "it with --salt-file")  # fmt: skip
    names = given or kept_salt(out / SALT)
    if known not in (None, names.salt_id):
        raise DataError(f"{out / INDEX}: the set's pseudonyms were made with another salt; name that one with "
                        "--salt-file, or prepare into another folder")  # fmt: skip
    return names


def without_ids(series: pa.Table, slices: pa.Table, names: Pseudonyms) -> tuple[pa.Table, pa.Table]:
    """The tables of a set, with pseudonyms for ids and names of files."""
    keys = ("patient_id", "study_uid", "series_uid")
    exams = [names.exam(*row) for row in zip(*(series[key].to_pylist() for key in keys), strict=True)]
    for key, column in zip(keys, zip(*exams, strict=True), strict=True):
        series = _with(series, key, list(column))
    slices = _with(slices, "sop_uid", [names.uid(uid) for uid in slices["sop_uid"].to_pylist()])
    return series, _with(slices, "file", [names.file(file) for file in slices["file"].to_pylist()])


def _with(table: pa.Table, name: str, values: list[str]) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, pa.array(values, pa.string()))


def settings_without_ids(settings: dict[str, Any], names: Pseudonyms) -> dict[str, Any]:
    """What index.json keeps: names of folders and tables may be those of patients; which salt was used, it says."""
    labels = settings["labels"]
    return {
        **settings,
        "source": [names.file(name) for name in settings["source"]],
        "labels": None if labels is None else names.file(labels),
        "pseudonyms": names.salt_id,
    }


def left_out_without_ids(left_out: list[LeftOut], names: Pseudonyms) -> list[LeftOut]:
    """The files that are in no series; after a colon, a reason may name another file."""
    return sorted(LeftOut(names.file(item.file), item.reason.partition(":")[0], item.expected) for item in left_out)
