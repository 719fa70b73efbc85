"""Writes made-up patients as DICOM in the layout and with the bare headers of the RSNA 2019 set."""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed

from ichseq.errors import ConfigError, DataError
from ichseq.files import is_taken
from ichseq.phantom.bleeding import draw_bleeds, draw_kinds, fit_levels
from ichseq.phantom.choices import DEFAULT_HEADS, DONOR_SHARE, HEADS
from ichseq.phantom.dicom_file import SliceWriter
from ichseq.phantom.donor import Donor, read_donors
from ichseq.phantom.donor_exam import donor_exam
from ichseq.phantom.drawn_exam import drawn_exam, write_drawn_exam
from ichseq.phantom.exam import write_exam
from ichseq.phantom.head import draw_head
from ichseq.phantom.icbm152 import FILE
from ichseq.phantom.scanner import down_in_head, draw_scanner, draw_stack, finish, take_slice
from ichseq.phantom.truth import PARTS, BleedTable, Truth, exam_names, slice_name, write_tables
from ichseq.seeds import DEFAULT_SEED
from ichseq.workers import deaths_explained, from_the_start


@dataclass(frozen=True)
class Source:
    """Where the heads of a set come from: donors and their share, and the share of drawn ones among the others."""

    donors: list[Donor]
    donor_share: float
    drawn_share: float


def generator_hash() -> str:
    """Hash of the code that makes phantoms: with it and a seed, the same scans again."""
    sources = [*sorted(Path(__file__).parent.glob("*.py")), FILE]
    return hashlib.blake2b(b"".join(path.read_bytes() for path in sources), digest_size=5).hexdigest()


def write_phantoms(
    out: Path,
    *,
    patients: int,
    test_patients: int,
    size: int,
    seed: int = DEFAULT_SEED,
    workers: int | None = None,
    donors: Sequence[Path] = (),
    donor_share: float = DONOR_SHARE,
    heads: str = DEFAULT_HEADS,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write made-up head CT as DICOM: seeded, labelled, with the truth beside it.

    The same arguments give the same bytes, whatever the number of workers; a patient depends on the seed and the
    patient's number alone. Half of the exams bleed (see `bleeding`); `truth.SEEN_SHARE` states when a slice is
    positive. Everything is written into `<out>.partial` first and renamed at the end.

    Args:
        out: folder to make; may exist if empty. Gets stage_2_train/, stage_2_test/, stage_2_train.csv,
            stage_2_sample_submission.csv, truth/stage_2_test.csv, truth/bleeds.csv and truth/places.csv.
        patients: number of patients in the training part, one series each.
        test_patients: number of patients in the test part.
        size: rows and columns of an image; the field of view stays at 232 to 252 mm, so a larger pixel has
            less noise.
        seed: of everything that is drawn.
        workers: processes; the number of cores if None.
        donors: folders of real head CT without bleeding, of which exams are made too (see `donor`).
        donor_share: share of the exams, drawn for each, that are made from donors' heads where there are any.
        heads: what heads that are not a donor's are: "analytic" (of formulas), "drawn" (from tissue maps of real
            brains, see `drawn`) or "mixed" (half of each).
        progress: called with (patients done, patients in all).

    Raises:
        ConfigError: a number out of its range.
        ScanError: a folder of donors has no head that can be one.
        DataError: the folder has something in it, cannot be written, an earlier run into it was interrupted, or a
            worker process died.
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
    if not 0 <= donor_share <= 1:
        raise ConfigError(f"donor_share: {donor_share!r} does not fit; give a number from 0 to 1")
    if heads not in HEADS:
        raise ConfigError(f"heads: {heads!r} does not fit; give one of {', '.join(HEADS)}")
    out = Path(out)
    given = Source(read_donors(donors), donor_share, HEADS[heads])
    partial = _start(out)
    try:
        jobs = [(0, i) for i in range(patients)] + [(1, i) for i in range(test_patients)]
        truths = []
        with deaths_explained("run the same command again, with fewer --workers if memory was short"):
            for done, truth in enumerate(_run(jobs, partial, seed, size, workers, given), 1):
                truths.append(truth)
                if progress is not None:
                    progress(done, len(jobs))
        write_tables(partial, truths[:patients], truths[patients:])
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
    if is_taken(out):
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


def _run(
    jobs: list[tuple[int, int]], folder: Path, seed: int, size: int, workers: int | None, source: Source
) -> Iterable[Truth]:
    workers = min(workers or os.cpu_count() or 1, len(jobs))
    calls = [(folder, (seed, part, number), size, source) for part, number in jobs]
    if workers == 1:
        return (_write_exam(*call) for call in calls)
    pool = Parallel(n_jobs=workers, return_as="generator", batch_size=1, **from_the_start())
    return pool(delayed(_write_exam)(*call) for call in calls)


def _write_exam(folder: Path, who: tuple[int, int, int], size: int, source: Source) -> Truth:
    """One exam, from a donor or made up; which of them follows from seed, part and number (`who`)."""
    rng = np.random.default_rng([*who, 3])
    if source.donors and rng.random() < source.donor_share:
        exam = donor_exam(rng, source.donors[int(rng.integers(len(source.donors)))], draw_kinds(*who), size)
        return write_exam(rng, folder, who, exam)
    if source.drawn_share and rng.random() < source.drawn_share:
        return write_drawn_exam(rng, folder, who, drawn_exam(rng, draw_kinds(*who), size))
    return write_patient(folder, *who, size)


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
    names = exam_names(seed, part, number)
    writer = SliceWriter(names, stack, unsigned=bool(rng.random() < 0.08), padded=scanner.circle)
    labels = []
    counter = BleedTable(bleeds, stack)
    for index in range(len(stack.origins)):
        picture = take_slice(head, bleeds, stack, pose, index)
        hu = finish(rng, scanner, picture, stack, pose, index)
        sop = slice_name(seed, part, number, index)
        writer.write(folder / f"stage_2_{PARTS[part]}" / f"{sop}.dcm", sop, stack.origins[index], hu)
        labels.append((sop, counter.add(index, picture)))
    return counter.truth(names, PARTS[part], labels)
