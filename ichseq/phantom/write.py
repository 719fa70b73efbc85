"""Writes made-up patients as DICOM in the layout and with the bare headers of the RSNA 2019 set."""

import csv
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray

from ichseq.errors import ConfigError, DataError
from ichseq.labels import LABELS
from ichseq.phantom.bleeding import Bleed, draw_bleeds, draw_kinds, fit_levels
from ichseq.phantom.dicom_file import SliceWriter
from ichseq.phantom.head import draw_head
from ichseq.phantom.scanner import (
    Picture,
    Pose,
    Stack,
    down_in_head,
    draw_scanner,
    draw_stack,
    finish,
    take_slice,
)
from ichseq.seeds import DEFAULT_SEED

SEEN_SHARE, SEEN_AREA = 1 / 3, 50.0
"""A slice is positive for a kind where at least 50 mm2 of its pixels hold a third of blood of that kind or more,
counted across the slice's thickness: a spot 8 mm across or a film of 2 by 25 mm, 10 HU above the brain, which a careful
reader marks when the neighbours confirm it. Less is left unlabelled: the faint end of a bleed."""

BLEED_COLUMNS = (
    "patient_id", "series_uid", "part", "bleed", "kind", "volume_ml", "mean_hu", "x_mm", "y_mm", "z_mm",
    "slice_index", "row", "column", "min_slice", "max_slice", "min_row", "max_row", "min_column", "max_column",
)  # fmt: skip

PARTS = ("train", "test")


@dataclass(frozen=True)
class Truth:
    """What one patient adds to the tables: (SOPInstanceUID, six labels) a slice, and a row a bleed."""

    slices: list[tuple[str, tuple[int, ...]]]
    bleeds: list[tuple[Any, ...]]


def generator_hash() -> str:
    """Hash of the code that makes phantoms: with it and a seed, the same scans again."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.blake2b(b"".join(path.read_bytes() for path in sources), digest_size=5).hexdigest()


def write_phantoms(
    out: Path,
    *,
    patients: int,
    test_patients: int,
    size: int,
    seed: int = DEFAULT_SEED,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write made-up head CT as DICOM: seeded, labelled, with the truth beside it.

    The same arguments give the same bytes, whatever the number of workers; a patient depends on the seed and the
    patient's number alone. Half of the exams bleed (see `bleeding`); `SEEN_SHARE` states when a slice is positive.
    Everything is written into `<out>.partial` first and renamed at the end.

    Args:
        out: folder to make; may exist if empty. Gets stage_2_train/, stage_2_test/, stage_2_train.csv,
            stage_2_sample_submission.csv, truth/stage_2_test.csv and truth/bleeds.csv.
        patients: number of patients in the training part, one series each.
        test_patients: number of patients in the test part.
        size: rows and columns of an image; the field of view stays at 232 to 252 mm, so a larger pixel has
            less noise.
        seed: of everything that is drawn.
        workers: processes; the number of cores if None.
        progress: called with (patients done, patients in all).

    Raises:
        ConfigError: a number out of its range.
        DataError: the folder has something in it, cannot be written, or an earlier run into it was interrupted.
    """
    for name, value, low, high in (
        ("patients", patients, 1, 100_000),
        ("test_patients", test_patients, 0, 100_000),
        ("size", size, 32, 1024),
        ("seed", seed, 0, 2**63),
        ("workers", 1 if workers is None else workers, 1, 1024),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ConfigError(f"{name}: {value!r} does not fit; give a whole number from {low} to {high}")
    out = Path(out)
    partial = _start(out)
    try:
        jobs = [(0, i) for i in range(patients)] + [(1, i) for i in range(test_patients)]
        truths = []
        for done, truth in enumerate(_run(jobs, partial, seed, size, workers), 1):
            truths.append(truth)
            if progress is not None:
                progress(done, len(jobs))
        _write_tables(partial, truths[:patients], truths[patients:])
        if out.exists():
            out.rmdir()
        partial.rename(out)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise DataError(f"{out}: cannot be written ({error.strerror}); choose another folder or make room") from error
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _start(out: Path) -> Path:
    """Make the folder `<out>.partial`, having checked that `out` is free."""
    partial = out.with_name(out.name + ".partial")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: is not an empty folder; phantoms are written into a new one only, choose another")
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        for name in ("truth", *(f"stage_2_{part}" for part in PARTS)):
            (partial / name).mkdir()
    except FileExistsError as error:
        raise DataError(f"{partial}: left over from an interrupted run, or one is running; delete it first") from error
    except OSError as error:
        raise DataError(f"{out}: cannot be made ({error.strerror}); choose a folder that can be written") from error
    return partial


def _run(jobs: list[tuple[int, int]], folder: Path, seed: int, size: int, workers: int | None) -> Iterable[Truth]:
    workers = min(workers or os.cpu_count() or 1, len(jobs))
    if workers == 1:
        return (write_patient(folder, seed, part, number, size) for part, number in jobs)
    pool = Parallel(n_jobs=workers, return_as="generator", batch_size=1)
    return pool(delayed(write_patient)(folder, seed, part, number, size) for part, number in jobs)


def write_patient(folder: Path, seed: int, part: int, number: int, size: int) -> Truth:
    """Make one patient and write the slices into `folder`/stage_2_<part>.

    Args:
        folder: of the whole set.
        seed: of the set.
        part: 0 for train, 1 for test.
        number: of the patient in the part.
        size: rows and columns.
    """
    rng = np.random.default_rng([seed, part, number, 0])
    head = draw_head(rng)
    stack, pose = draw_stack(rng, head, size)
    scanner = draw_scanner(rng)
    bleeds = fit_levels(head, draw_bleeds(rng, draw_kinds(seed, part, number)), tuple(down_in_head(pose)))
    names = [_identifier(seed, part, number, what) for what in ("patient", "study", "series")]
    writer = SliceWriter(names, stack, unsigned=bool(rng.random() < 0.08), padded=scanner.circle)
    labels = []
    counter = BleedTable(bleeds, stack, pose)
    for index in range(len(stack.origins)):
        picture = take_slice(head, bleeds, stack, pose, index)
        hu = finish(rng, scanner, picture, stack, pose, index)
        sop = "ID_" + _digest(seed, part, number, index)[:9]
        writer.write(folder / f"stage_2_{PARTS[part]}" / f"{sop}.dcm", sop, stack.origins[index], hu)
        labels.append((sop, counter.add(index, picture)))
    return Truth(labels, counter.rows(names[0], names[2], PARTS[part]))


def _digest(*what: object) -> str:
    return hashlib.sha256(repr(what).encode()).hexdigest()


def _identifier(seed: int, part: int, number: int, what: str) -> str:
    return "ID_" + _digest(seed, part, number, what)[: 8 if what == "patient" else 10]


class BleedTable:
    """Gathers, slice by slice, what each bleed fills: labels of the slice at once, a table row a bleed at the end."""

    def __init__(self, bleeds: list[Bleed], stack: Stack, pose: Pose) -> None:
        """Start with nothing seen; `stack` and `pose` say where the slices lie."""
        self.bleeds, self.stack, self.pose = bleeds, stack, pose
        self.mass = np.zeros((len(bleeds), 4))
        self.extents: list[list[tuple[int, ...]]] = [[] for _ in bleeds]

    def add(self, index: int, picture: Picture) -> tuple[int, ...]:
        """Count the slice in; returns its labels in the order of `labels.LABELS`."""
        area = self.stack.pixel**2
        top, left = picture.box[0].start, picture.box[1].start
        kinds: dict[str, NDArray[np.floating[Any]]] = {}
        for number, (bleed, share) in enumerate(zip(self.bleeds, picture.blood, strict=True)):
            kinds[bleed.kind] = kinds[bleed.kind] + share if bleed.kind in kinds else share
            ml = share.sum(dtype=np.float64) * area * self.stack.thickness[index] / 1000
            if not ml:
                continue
            rows, columns = share.sum(axis=1, dtype=np.float64), share.sum(axis=0, dtype=np.float64)
            row = (rows * np.arange(len(rows))).sum() / rows.sum() + top
            column = (columns * np.arange(len(columns))).sum() / columns.sum() + left
            self.mass[number] += ml * np.array([1, index, row, column])
            seen = share >= SEEN_SHARE
            if seen.sum() * area >= SEEN_AREA:
                down, across = np.flatnonzero(seen.any(axis=1)) + top, np.flatnonzero(seen.any(axis=0)) + left
                self.extents[number].append((index, int(down[0]), int(down[-1]), int(across[0]), int(across[-1])))
        found = [int((kinds[k] >= SEEN_SHARE).sum() * area >= SEEN_AREA) if k in kinds else 0 for k in LABELS[:5]]
        return (*found, max(found))

    def rows(self, patient: str, series: str, part: str) -> list[tuple[Any, ...]]:
        """A row a bleed in the order of `BLEED_COLUMNS`; the extent is empty where no slice shows enough of it."""
        rows = []
        for number, bleed in enumerate(self.bleeds):
            volume = self.mass[number, 0]
            if not volume:
                continue
            index, row, column = self.mass[number, 1:] / volume
            slices = np.arange(len(self.stack.origins))
            place = np.array([np.interp(index, slices, self.stack.origins[:, axis]) for axis in range(3)])
            place += self.stack.pixel * (row * self.stack.down_column + column * np.array([1.0, 0.0, 0.0]))
            extent: tuple[Any, ...] = ("",) * 6
            if self.extents[number]:
                s, r0, r1, c0, c1 = np.array(self.extents[number]).T
                extent = (s.min(), s.max(), r0.min(), r1.max(), c0.min(), c1.max())
            numbers = [f"{v:.2f}" for v in (volume, bleed.hu, *place, index, row, column)]
            rows.append((patient, series, part, number, bleed.kind, *numbers, *extent))
        return rows


def _write_tables(folder: Path, train: list[Truth], test: list[Truth]) -> None:
    _write_labels(folder / "stage_2_train.csv", train)
    _write_labels(folder / "truth" / "stage_2_test.csv", test)
    _write_labels(folder / "stage_2_sample_submission.csv", test, answer="0.5")
    with open(folder / "truth" / "bleeds.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(BLEED_COLUMNS)
        table.writerows(row for truth in train + test for row in truth.bleeds)


def _write_labels(path: Path, truths: list[Truth], answer: str | None = None) -> None:
    """Six rows a slice, slices in the order of their names, which says nothing about their order in the head."""
    slices = sorted(row for truth in truths for row in truth.slices)
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("ID", "Label"))
        for sop, labels in slices:
            for label, value in zip(LABELS, labels, strict=True):
                table.writerow((f"{sop}_{label}", value if answer is None else answer))
