"""Prepare a data set: from DICOM files to a store, tables and folds.

Headers in parallel, series, the store in parallel, labels, folds, tables. Nothing is redone that is there: a series'
file is named after its content, appears whole or not at all, and is taken as it is when `prepare` runs again. The
tables come last, and what was this set's and they no longer name is removed after them, so a run that was killed leaves
the state before it, and files that the next run takes up.
"""

import csv
import functools
import io
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import joblib
import numpy as np
import pyarrow as pa

from ichseq.ct.archive import FileList, list_files
from ichseq.ct.left_out import LeftOut
from ichseq.ct.scan import Headers, group_headers, nothing_usable
from ichseq.ct.together import put_together
from ichseq.data import DEFAULT_FOLDS
from ichseq.data.exam_labels import completed
from ichseq.data.folds import assign_folds, patient_labels, too_many_folds
from ichseq.data.index import Index
from ichseq.data.index_files import SERIES_SCHEMA, patients_of, write_index
from ichseq.data.label_files import ExamSeries, LabelFiles
from ichseq.data.labelling import check_labels, label, refuse_shared_uids
from ichseq.data.output import Identity, alone, begin, check_output, check_same_source, discard, places_there
from ichseq.data.owned import LEFT_OUT, Owned, sweep
from ichseq.data.packing import Packed, pack_batch, scan_piece
from ichseq.data.pseudonymise import left_out_without_ids, names_of_set, settings_without_ids, without_ids
from ichseq.data.rsna_layout import choose_files
from ichseq.data.source_states import keep_states
from ichseq.data.store import write_whole
from ichseq.data.summary import Summary
from ichseq.errors import ConfigError
from ichseq.labels import LABELS
from ichseq.predictions.cells import to_cell
from ichseq.predictions.schema import ExamId
from ichseq.pseudonyms import Pseudonyms, kept_salt
from ichseq.seeds import DEFAULT_SEED
from ichseq.windows import HU_RANGE
from ichseq.workers import deaths_explained, from_the_start

Progress = Callable[[int, int], None]

_HEADERS_AT_ONCE: Final = 1000
_SLICES_AT_ONCE: Final = 300
_AGAIN: Final = "run the same command again, which does only what is missing, with fewer --workers if memory was short"


def prepare(
    source: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    labels: str | Path | Sequence[str | Path] | None = None,
    exam_series: ExamSeries = "all",
    folds: int = DEFAULT_FOLDS,
    seed: int = DEFAULT_SEED,
    hu_range: tuple[int, int] = HU_RANGE,
    workers: int | None = None,
    pseudonymise: bool = False,
    salt_file: Path | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Prepare the CT series of a source for training, or add what is new in it to a set prepared before.

    Of the RSNA 2019 layout (a folder or zip with stage_2_train.csv beside stage_2_train/) the training part alone is
    taken; prepare stage_2_test/ by itself, as an unlabelled set. Without labels every label is unknown, and the folds
    are drawn all the same.

    Args:
        source: a folder, a zip or tar (not unpacked to disk), a DICOM file, or a list of any of these.
        out: the prepared folder; new, empty, or prepared before from the same series or some of them.
        labels: label tables of slices (ichseq.data.label_table) or of exams (ichseq.data.exam_table), one or several;
            None: the source's stage_2_train.csv, if it has one.
        exam_series: which of several series of an exam have its labels (ichseq.data.label_files).
        folds: how many; patients that have a fold keep it.
        seed: of the folds' draw.
        hu_range: in HU, that the store keeps; what lies outside is clipped.
        workers: processes; None: as many as there are cores, or whatever an enclosing `joblib.parallel_config` says.
        pseudonymise: put pseudonyms in the place of ids and names of files; their salt lies in the set.
        salt_file: or lies in this file, which is made if it is not there; pseudonymises then anyway.
        progress: called with (done, total); a file counts once for its header and once for its pixels.

    Raises:
        ScanError: the source does not exist, or has no usable CT slice.
        DataError: bad labels; an output that cannot be written, holds something else, or was made by another version; a
            salt that is missing or another one.
        ConfigError: more folds than patients, or a range narrower than HU_RANGE; other folds, seed or range than the
            set has, pseudonyms where it has none, or none where it has them.
    """
    out = Path(out)
    sources = [Path(source)] if isinstance(source, str | Path) else [Path(item) for item in source]
    if folds < 1 or (workers is not None and workers < 1):
        raise ConfigError(f"folds {folds}, workers {workers}: at least 1 of each is needed")
    every_file = list_files(source)
    files, tables = choose_files(every_file, sources, labels)
    has: dict[str, Any] = {"labelled": tables.name is not None, "exams_labelled": bool(tables.exams)}
    pseudonymise = pseudonymise or salt_file is not None
    has |= {"folds": folds, "seed": seed, "hu_range": hu_range, "pseudonymise": pseudonymise}
    check = functools.partial(check_output, out, sources, **has)
    check()
    given = None if salt_file is None else kept_salt(salt_file)
    how: dict[str, Any] = {"return_as": "generator_unordered", "batch_size": 1, **from_the_start()}
    parallel = joblib.Parallel(n_jobs=_jobs(workers), **how)
    work = _Progress(progress, 2 * len(files))

    headers = _scan(files, parallel, work)
    left_out = [*every_file.left_out, *headers.left_out]
    if not len(headers):
        raise nothing_usable(files, headers.dicom_files, left_out)
    groups = group_headers(headers)
    identities = _check_headers(headers, groups, folds, tables)
    settings = {
        "folds": folds,
        "seed": seed,
        "source": [item.resolve().name for item in sources],  # names alone: a path may say more than it should
        "labels": tables.name,
        **({"exam_series": exam_series} if tables.exams else {}),
    }
    with alone(out):
        there, exists = check()  # again: another run may have finished a set here while the headers were read
        if not exists:
            begin(out, hu_range)
        names = names_of_set(out, given) if pseudonymise else None
        check_same_source(out, there, identities if names is None else {names.exam(*one) for one in identities})
        sweep(out)
        owned = Owned(out)
        if exists:
            owned.add(places_there(out))
        packed, read = _pack(files, headers, groups, out, parallel, work, left_out, owned, names, hu_range)
        if not packed:
            discard(out, owned)
            raise nothing_usable(files, headers.dicom_files, left_out)
        series, slices = _tables(packed)
        slices, exams, counts = label(series, slices, tables, exam_series)
        kept = dict(there.values())
        left_out = listed = sorted(left_out)
        if names is not None:
            series, slices = without_ids(series, slices, names)
            listed, settings = left_out_without_ids(left_out, names), settings_without_ids(settings, names)
        series = _with_folds(series, slices, exams, folds=folds, seed=seed, kept=kept)
        write_whole(out / LEFT_OUT, _csv(listed))
        write_index(out, series, slices, exams, hu_range=hu_range, **settings)
        used = set(series["store"].to_pylist())
        owned.keep_only(used)
        keep_states(out, used)
    work.done()
    index = Index.load(out)
    return Summary(index, left_out, counts, read, len(every_file) - len(files), index.n_patients - len(set(kept)))


class _Progress:
    """Counts work done and reports it to the function that the caller gave."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._report, self._done, self._total = progress, 0, total

    def add(self, count: int) -> None:
        self._done += count
        if self._report is not None:
            self._report(self._done, self._total)

    def done(self) -> None:
        self.add(self._total - self._done)


def _jobs(workers: int | None) -> int | None:
    if workers is not None:
        return workers
    configured = joblib.parallel.get_active_backend()[1]  # what parallel_config asks for; 1 where it was not used
    return None if configured not in (None, 1) else -1


def _scan(files: FileList, parallel: Any, work: _Progress) -> Headers:
    step = min(_HEADERS_AT_ONCE, max(32, len(files) // 64))
    tasks = (
        joblib.delayed(scan_piece)(files.take(slice(first, first + step)), first)
        for first in range(0, len(files), step)
    )
    parts = []
    with deaths_explained(_AGAIN):
        for part, count in parallel(tasks):
            parts.append(part)
            work.add(count)
    headers = Headers.concatenate(parts)
    kept = headers.take(np.argsort(headers.numbers["file"], kind="stable"))  # the workers end in any order
    return put_together(replace(kept, left_out=headers.left_out, dicom_files=headers.dicom_files))


def _check_headers(headers: Headers, groups: list[np.ndarray], folds: int, tables: LabelFiles) -> set[Identity]:
    """What can be refused before a pixel is read; returns the identities of the series found."""
    shared = ExamId._fields  # by all of a group
    found = [ExamId(*(headers.text(name, first) for name in shared)) for first, *_ in groups]
    patients = len({patient or study for patient, study, _ in found})
    if folds > patients:
        raise too_many_folds(folds, patients)
    if groups:
        refuse_shared_uids(tables, pa.array(_images(headers, groups)).cast(pa.string()))
        check_labels(tables, found, headers.sop_uid[np.concatenate(groups)], np.array([len(one) for one in groups]))
    return set(found)


def _images(headers: Headers, groups: list[np.ndarray]) -> np.ndarray:
    """SOPInstanceUIDs of the images; copies of one, which the headers don't tell apart, once."""
    rows = np.concatenate(groups)
    uids, uid = np.unique(headers.sop_uid[rows], return_inverse=True)
    series = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    place = np.unique(headers.numbers["position"][rows, 2], return_inverse=True)[1]
    return uids[np.unique(np.stack([uid, series, place], axis=1), axis=0)[:, 0]]


def _pack(
    files: FileList,
    headers: Headers,
    groups: list[np.ndarray],
    out: Path,
    parallel: Any,
    work: _Progress,
    left_out: list[LeftOut],
    owned: Owned,
    names: Pseudonyms | None,
    hu_range: tuple[int, int],
) -> tuple[list[Packed], int]:
    work.add(len(files) - len(headers))
    packed, read = list[Packed](), 0
    folder = out.resolve()  # workers may stand elsewhere
    key = "" if names is None else names.key_for("store")
    with deaths_explained(_AGAIN) as notes:
        tasks = (
            joblib.delayed(pack_batch)(_pieces(files, headers, batch), folder, notes, key, hu_range)
            for batch in _batches(groups)
        )
        for found, missing, count, done in parallel(tasks):
            packed += found
            owned.add(item.row["store"] for item in found)
            left_out += missing
            read += count
            work.add(done)
    return sorted(packed, key=functools.partial(_place, names)), read


def _place(names: Pseudonyms | None, item: Packed) -> tuple[Any, ...]:
    """Sorts series; by their pseudonyms, where they have some: the order of ids would tell which is whose."""
    return item.order if names is None else (*names.exam(*item.order[:3]), *item.order[3:])


def _pieces(files: FileList, headers: Headers, groups: list[np.ndarray]) -> list[tuple[FileList, Headers]]:
    parts = [headers.take(group) for group in groups]
    return [(files.take(part.numbers["file"]), part) for part in parts]


def _batches(groups: list[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Groups of several series each, so that a worker reads one while the last one is written."""
    slices = sum(len(group) for group in groups)
    target = min(_SLICES_AT_ONCE, max(100, slices // 64))
    ends = np.cumsum([len(group) for group in groups]) // target
    for _, batch in itertools.groupby(zip(ends, groups, strict=True), key=lambda pair: pair[0]):
        yield [group for _, group in batch]


def _tables(packed: list[Packed]) -> tuple[pa.Table, pa.Table]:
    """The two tables, but for labels and folds."""
    lengths = np.array([item.row["n_slices"] for item in packed], np.int64)
    slices = pa.Table.from_batches([item.slices for item in packed]).combine_chunks()
    slices = slices.append_column("series", pa.array(np.repeat(np.arange(len(packed), dtype=np.int32), lengths)))
    rows = {name: [item.row[name] for item in packed] for name in packed[0].row}
    rows["series"] = list(range(len(packed)))
    rows["first_row"] = (np.cumsum(lengths) - lengths).tolist()
    return pa.table({name: pa.array(rows[name], SERIES_SCHEMA.field(name).type) for name in rows}), slices


def _with_folds(
    series: pa.Table, slices: pa.Table, exams: pa.Table | None, *, folds: int, seed: int, kept: dict[str, int]
) -> pa.Table:
    patients = patients_of(series).dictionary_encode()
    of_series = patients.indices.to_numpy(zero_copy_only=False)
    of_slice = np.repeat(of_series, series["n_slices"].to_numpy())
    labels = np.column_stack([slices[label].to_numpy() for label in LABELS])
    if exams is not None:  # a patient bleeds as a slice of theirs does, or an exam
        of_slice = np.concatenate([of_slice, of_series])
        labels = np.concatenate([labels, completed(np.column_stack([exams[label].to_numpy() for label in LABELS]))])
    names = patients.dictionary.to_pylist()
    drawn = assign_folds(names, patient_labels(of_slice, labels, len(names)), folds=folds, seed=seed, kept=kept)
    return series.append_column(SERIES_SCHEMA.field("fold"), pa.array(drawn[of_series], pa.int16()))


def _csv(left_out: list[LeftOut]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("file", "reason"))
    writer.writerows((to_cell(item.file), to_cell(item.reason)) for item in left_out)
    return text.getvalue().encode("utf-8", "backslashreplace")
