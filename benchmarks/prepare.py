"""Preparing: slices a second from DICOM to the store, against DICOM to JPEG the published way."""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from functools import partial
from pathlib import Path

import psutil
from common import HERE, parser, phantoms, report, rounds_of, timed
from published import convert

from ichseq.files import replacing

PREPARE = """
import sys, time
from ichseq.data.prepare import prepare
source, out, workers = sys.argv[1:]
before = time.perf_counter()
prepare(source, out, workers=int(workers))
print(time.perf_counter() - before)
"""


def main() -> None:
    options = parser(__doc__, patients=160)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--before", type=Path, help="a checkout of an earlier commit, measured in the same rounds")
    asked = options.parse_args()
    source = phantoms(asked.patients, asked.size)
    files = sorted((source / "stage_2_train").iterdir())
    here = HERE.parent
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        ways = {"published, 1 process": partial(published, files, place / "jpeg")}
        if asked.before:
            name = f"prepare at {commit_of(asked.before)}"
            ways |= {f"{name}, {n} worker(s)": partial(prepare, asked.before, source, place / "b", n) for n in (1, 2)}
        ways |= {f"prepare, {n} worker(s)": partial(prepare, here, source, place / "a", n) for n in (1, 2)}
        for method, name in ((zipfile.ZIP_STORED, "stored"), (zipfile.ZIP_DEFLATED, "deflated")):
            archive = zipped(source, source.with_name(f"{source.name}-{name}.zip"), method)
            ways[f"prepare of a zip ({name}), 1 worker"] = partial(prepare, here, archive, place / "a", 1)
        busy: dict[str, float] = {}
        seconds = rounds_of({name: partial(counted, name, run, busy) for name, run in ways.items()}, asked.rounds)
        sizes = {name: size_of(place / out) for name, out in (("published", "jpeg"), ("at", "b"), ("", "a"))}
    reference = seconds["published, 1 process"]
    rows = [["way", "slices/s", "ratio to published", "ratio to 1 worker", "cores busy", "KB a slice"]]
    for name, taken in seconds.items():
        one = seconds.get(name.replace("2 worker", "1 worker"), taken)
        kind = next(kind for kind in sizes if kind in name)
        rows.append([
            name, f"{len(files) / taken:.0f}", f"{reference / taken:.2f}", f"{one / taken:.2f}", f"{busy[name]:.2f}",
            f"{sizes[kind] / len(files) / 1000:.1f}",
        ])  # fmt: skip
    report("prepare", f"Preparing {len(files)} slices of {asked.size} x {asked.size}", rows, [
        f"Median of {asked.rounds} rounds, the ways in turns. The store is lossless in its range, the JPEG (quality "
        "95) is not. Reading headers, grouping, ordering, labels, folds and flushing every file to disk are part of "
        "ichseq's time; starting its workers as well. Cores busy: processor time of the whole machine over the time "
        f"taken, of {os.cpu_count()} cores, in the last round; it bounds what a second worker can add: one worker "
        "reads and compresses while a thread of it writes and the system flushes.",
    ])  # fmt: skip


def counted(name: str, run: "partial[float]", busy: dict[str, float]) -> float:
    """Run, and note how many cores of the machine were busy meanwhile; gives the seconds."""
    before = psutil.cpu_times()
    taken = [0.0]
    whole = timed(lambda: taken.append(run()))
    after = psutil.cpu_times()
    idle = after.idle - before.idle + getattr(after, "iowait", 0) - getattr(before, "iowait", 0)
    busy[name] = psutil.cpu_count() - idle / whole
    return taken[-1]


def published(files: list[Path], out: Path) -> float:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    return timed(lambda: [convert(file, out / f"{file.stem}.jpg") for file in files])


def prepare(checkout: Path, source: Path, out: Path, workers: int) -> float:
    """Prepare anew with the code of a checkout; the seconds, less those of starting Python."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-c", PREPARE, str(source), str(out), str(workers)]
    environment = os.environ | {"PYTHONPATH": str(checkout.resolve())}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    return float(done.stdout)


def commit_of(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def zipped(source: Path, path: Path, method: int) -> Path:
    """The files of a folder as a zip, made once and kept."""
    if path.is_file():
        return path
    with replacing(path) as beside, zipfile.ZipFile(beside, "w", method) as archive:
        for file in sorted(source.rglob("*")):
            archive.write(file, file.relative_to(source))
    return path


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.suffix in (".jpg", ".b2nd"))


if __name__ == "__main__":
    main()
