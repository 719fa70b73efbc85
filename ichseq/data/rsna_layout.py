"""The layout of the RSNA 2019 set: which of a source's files are prepared, and where their labels are."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from ichseq.ct.archive import FileList
from ichseq.data.label_files import LabelFiles, read_label_files
from ichseq.data.label_table import read_labels
from ichseq.errors import DataError

TRAIN_CSV: Final = "stage_2_train.csv"
"""The label file; the slices that it labels lie beside it, in stage_2_train/."""


def choose_files(
    files: FileList, sources: Sequence[Path], labels: str | Path | Sequence[str | Path] | None
) -> tuple[FileList, LabelFiles]:
    """The files to prepare, and their labels; of the RSNA 2019 layout the training part.

    Args:
        files: of all sources.
        sources: as they were named.
        labels: label tables; None: the layout's own, if it is there.

    Raises:
        DataError: bad labels, or two label files of the layout.
    """
    found = files.find(TRAIN_CSV)
    chosen = files
    if len(found) == 1 and (inside := _beside(files, found[0])).any():
        chosen = files.take(np.flatnonzero(inside))
    if labels is not None:
        given = [labels] if isinstance(labels, str | Path) else labels
        return chosen, read_label_files([Path(one) for one in given])
    if len(found) > 1:
        raise DataError(f"{files.name(found[0])} and {files.name(found[1])}: two label files; name one with --labels")
    if found:
        with files.open(found[0]) as stream:
            return chosen, LabelFiles(read_labels(stream, files.name(found[0])))
    for source in sources:  # stage_2_train/ was named itself, and its labels lie beside it
        path = source.resolve().parent / TRAIN_CSV
        if source.resolve().name == TRAIN_CSV.removesuffix(".csv") and path.is_file():
            return chosen, LabelFiles(read_labels(path, str(source.parent / TRAIN_CSV)))
    return chosen, LabelFiles()


def _beside(files: FileList, csv_number: int) -> np.ndarray:
    """Bool (n,): which files lie in stage_2_train/ beside the label file; compared as bytes, a letter at a time."""
    starts = np.concatenate([[0], files.ends[:-1]])
    name = files.names[starts[csv_number] : files.ends[csv_number]].tobytes()
    prefix = name.removesuffix(b".csv") + b"/"
    inside = (files.archive == files.archive[csv_number]) & (files.ends - starts > len(prefix))
    for k, letter in enumerate(prefix):
        inside[inside] = files.names[starts[inside] + k] == letter
    return inside
