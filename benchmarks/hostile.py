"""Hostile input and sudden ends, counted: whatever happens has to be an error of ichseq's, and nothing else.

Each case follows from the seed, its kind and its number, and can be tried alone: --case compressed:17.
"""

import os
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from hostile_child import (
    DEAD,
    HANG,
    MEMORY,
    OUTSIDE,
    REFUSED,
    SILENT,
    TAKEN,
    UNTYPED,
    Child,
    Ended,
    Trial,
    peak_of,
    trial_of,
    tried,
)

FAULTS = (UNTYPED, HANG, DEAD, SILENT, OUTSIDE, MEMORY)
_SHOWN = 40  # faults that are listed below the table


@dataclass(frozen=True)
class Kind:
    """A kind of cases.

    Attributes:
        trial: "module:class", which tries them.
        cases: of the whole campaign.
        bound: seconds that one may take.
        words: what they are.
        share: of a sample's time.
    """

    trial: str
    cases: int
    bound: float
    words: str
    share: float


KINDS = {
    "dicom": Kind("hostile_dicom:Dicom", 10_000, 20, "mutated DICOM files, each between two sound ones", 0.2),
    "compressed": Kind("hostile_compressed:Compressed", 2_400, 20, "damaged compressed files, likewise", 0.2),
    "zip": Kind("hostile_zip:Zips", 42, 30, "zip archives", 0.1),
    "flips": Kind("hostile_flips:Flips", 1_000, 20, "changed files of a set, a model, a run", 0.2),
    "settings": Kind("hostile_settings:Settings", 100, 30, "settings, models, sets and store files made to harm", 0.1),
    "kills": Kind("hostile_kills:Kills", 40, 240, "kills of prepare and predict, and the same again", 0.2),
}


@dataclass
class Counted:
    """What came of a kind's cases."""

    ended: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    peak: int = 0
    seconds: float = 0.0

    def add(self, name: str, ended: Ended) -> None:
        self.ended[ended.how] += 1
        self.peak = max(self.peak, ended.peak)
        if ended.how in FAULTS:
            self.faults.append(f"{name}: {ended.how}: {ended.what}")
            print(self.faults[-1], file=sys.stderr)


def main() -> None:
    from common import parser  # here, since children import this file and need no torch for it

    options = parser(__doc__)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS), help="the kinds to try")
    options.add_argument("--minutes", type=float, help="a sample of every kind that takes so long; no table is kept")
    options.add_argument("--case", metavar="KIND:NUMBER", help="one case, in this process, with where it failed")
    asked = options.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # where flushing to disk takes no time
    with tempfile.TemporaryDirectory(prefix="hostile-", dir=memory) as place:
        work = Path(place).resolve()
        (work / "tmp").mkdir()
        os.environ["TMPDIR"] = tempfile.tempdir = str(work / "tmp")  # of all children too: what they may write to
        if asked.case:
            alone(asked.case, work, asked.seed)
            return
        found, end = dict[str, Counted](), time.monotonic()
        for name in asked.kinds:
            share = KINDS[name].share / sum(KINDS[one].share for one in asked.kinds)
            end += 60 * (asked.minutes or 0) * share
            found[name] = campaign(name, work, asked.seed, None if asked.minutes is None else end)
    show(found, sample=asked.minutes is not None or set(asked.kinds) != set(KINDS))
    if any(one.faults for one in found.values()):
        raise SystemExit(1)


def alone(case: str, work: Path, seed: int) -> None:
    """Try one case where a debugger reaches it."""
    name, _, number = case.partition(":")
    trial = trial_of(KINDS[name].trial)
    cases = trial(made(trial, work, seed), seed)
    print(tried(cases, int(number), peak_of(os.getpid()), show=True))


def made(trial: type[Trial], work: Path, seed: int) -> Path:
    """The folder of what the cases of a kind start from."""
    ground = work / trial.ground
    if not ground.is_dir():
        ground.mkdir()
        trial.make(ground, seed)
    return ground


def campaign(name: str, work: Path, seed: int, end: float | None) -> Counted:
    """All cases of a kind; of a sample, as many, in an order of its own, as can be tried until then, one at least."""
    kind, counted, started = KINDS[name], Counted(), time.monotonic()
    child = Child(kind.trial, made(trial_of(kind.trial), work, seed), seed, kind.bound)
    step = 1 if end is None else next(k for k in (7919, 7907) if kind.cases % k)
    child.start()
    for k in range(kind.cases):
        number = k * step % kind.cases
        counted.add(f"{name}:{number}", child.case(number))
        if end is not None and time.monotonic() > end:
            break
    child.stop()
    counted.seconds = time.monotonic() - started
    print(f"{name}: {counted.ended.total()} cases, {len(counted.faults)} faults, {counted.seconds:.0f} s",
          file=sys.stderr)  # fmt: skip
    return counted


def show(found: dict[str, Counted], *, sample: bool) -> None:
    """Print the table; keep that of a whole campaign."""
    from common import report

    rows: list[list[object]] = [["what", "cases", "refused or named", "taken", "untyped errors", "hangs",
                                 "dead processes", "silent changes", "writes outside", "over 1 GB", "peak MB",
                                 "s"]]  # fmt: skip
    for name, one in found.items():
        rows.append([f"{KINDS[name].words} ({name})", one.ended.total(), one.ended[REFUSED], one.ended[TAKEN],
                     *(one.ended[how] for how in FAULTS), one.peak >> 20, f"{one.seconds:.0f}"])  # fmt: skip
    faults = [line for one in found.values() for line in one.faults]
    notes = [*NOTES, "\n".join(f"- {line}" for line in faults[:_SHOWN])] if faults else NOTES
    report("hostile", "Hostile input and sudden ends", rows, notes, keep=not sample)


NOTES = (
    "Refused or named: an error of ichseq/errors.py, or the file stands among those left out with its reason; taken: "
    "used, and what came out is what came of the sound one, or nothing tells that it should be (a DICOM file has no "
    "hash of its own: another value in it is another scan).",
    "Silent changes: of sets, models and runs, what was loaded (every table, setting, weight and pixel) differs from "
    "the sound one's and no error says so; of compressed files, pixels came out though header and stream contradict "
    "each other in rows or columns; of zips, a slice has other probabilities; of kills, the same command again "
    "ended with other files or other bytes than one that was left alone, or a worker went on after its parent.",
    "Hangs: 20 s a file, 30 s an archive or a model, 240 s a kill with what follows it. Writes: whatever Python opens "
    "to write, makes, renames or removes outside the output folder and its own folder of temporary files, and every "
    "connection; of kills, whatever differs in the folders around. Peak: the resident memory of the process that "
    "tries the cases, less what it had before the first of them, with that of its own children; kills are not "
    "measured.",
)


if __name__ == "__main__":
    main()
