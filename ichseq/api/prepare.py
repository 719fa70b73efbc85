"""prepare: DICOM files to a set to train on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ichseq.api.progress import Bar, bar_of
from ichseq.data import DEFAULT_FOLDS, DEFAULT_SET
from ichseq.seeds import DEFAULT_SEED
from ichseq.windows import HU_RANGE

if TYPE_CHECKING:
    from ichseq.data.label_files import ExamSeries
    from ichseq.data.summary import Summary


def prepare(
    source: str | Path | Sequence[str | Path],
    out: str | Path = DEFAULT_SET,
    *,
    labels: str | Path | Sequence[str | Path] = (),
    exam_series: ExamSeries = "all",
    folds: int = DEFAULT_FOLDS,
    seed: int = DEFAULT_SEED,
    hu_range: tuple[int, int] = HU_RANGE,
    workers: int | None = None,
    scheduler: str | None = None,
    pseudonymise: bool = False,
    salt_file: str | Path | None = None,
    progress: bool | Bar = True,
) -> Summary:
    """Read the DICOM files of a source once into a set to train on; run again, it does what is missing.

    Args:
        source: a folder, a zip or tar (not unpacked to disk), a DICOM file, or a list of any of these.
        out: the prepared set; a new or empty folder, or one prepared before from the same series or some of them.
        labels: a label table, of slices or of exams, or several; none: the source's stage_2_train.csv, if it has one.
        exam_series: of several series of an exam, those that have its labels: "all"; "thin", the one with the most
            slices; "thick", the one with the fewest that reaches over the head as far as the others do.
        folds: how many, drawn by patient.
        seed: of the folds' draw.
        hu_range: Hounsfield units that the set keeps, what lies outside is clipped; wider ones, such as (-1024, 3071),
            for networks with the window bone.
        workers: processes; None: as many as there are cores.
        scheduler: address of a Dask cluster's scheduler that does the work, such as tcp://node1:8786.
        pseudonymise: put pseudonyms in the place of ids and names of files; the salt that they follow from is drawn and
            lies in the set, in the file `salt`.
        salt_file: the salt lies in this file instead, which is made if it is not there; pseudonymises then anyway.
        progress: whether a bar is shown on standard error.

    Returns:
        What was found and what was left out; `.index` is the set, `.text()` the summary in words.

    Raises:
        ScanError: the source does not exist, or has no usable CT slice.
        DataError: bad labels; an output that can't be written, holds something else, or is of another version; a salt
            that is missing or another one.
        ConfigError: more folds than patients, or a range narrower than (-200, 823); other folds, seed or range than the
            set has, pseudonyms where it has none, or none where it has them; no cluster.

    Example:
        >>> import ichseq
        >>> summary = ichseq.prepare("scans", "data/prepared", folds=5)
        >>> summary.index.n_patients
        10
    """
    from ichseq.cluster import dask_cluster
    from ichseq.data.prepare import prepare as prepare_set

    with dask_cluster(scheduler), bar_of(progress)("prepare", "files") as move:
        return prepare_set(
            source,
            out,
            labels=labels or None,
            exam_series=exam_series,
            folds=folds,
            seed=seed,
            hu_range=(int(hu_range[0]), int(hu_range[1])),
            workers=workers,
            pseudonymise=pseudonymise,
            salt_file=None if salt_file is None else Path(salt_file),
            progress=move,
        )
