"""Preparing: slices a second from DICOM to the store, against DICOM to JPEG the published way."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
from common import compare, parser, phantoms, report
from published import convert

from ichseq.data.prepare import prepare


def main() -> None:
    options = parser(__doc__, patients=160)
    options.add_argument("--rounds", type=int, default=3)
    asked = options.parse_args()
    source = phantoms(asked.patients, asked.size)
    files = sorted((source / "stage_2_train").iterdir())
    with tempfile.TemporaryDirectory() as folder:
        runs = {
            "published, 1 process": lambda: published(files, Path(folder) / "jpeg"),
            "ichseq prepare, 1 worker": lambda: prepare_anew(source, Path(folder) / "one", 1),
            "ichseq prepare, 2 workers": lambda: prepare_anew(source, Path(folder) / "two", 2),
        }
        busy: dict[str, float] = {}
        seconds = compare({name: partial(counted, name, run, busy) for name, run in runs.items()}, asked.rounds)
        sizes = {name: size_of(Path(folder) / place) for name, place in zip(runs, ("jpeg", "one", "two"), strict=True)}
    reference = seconds["published, 1 process"]
    one = seconds["ichseq prepare, 1 worker"]
    rows = [["way", "slices/s", "ratio to published", "ratio to 1 worker", "cores busy", "KB a slice"]]
    for name, taken in seconds.items():
        rows.append([
            name, f"{len(files) / taken:.0f}", f"{reference / taken:.2f}",
            f"{one / taken:.2f}" if "ichseq" in name else "", f"{busy[name]:.2f}",
            f"{sizes[name] / len(files) / 1000:.1f}",
        ])  # fmt: skip
    report("prepare", f"Preparing {len(files)} slices of {asked.size} x {asked.size}", rows, [
        f"Median of {asked.rounds} rounds, the ways in turns. The store is lossless in its range, the JPEG (quality "
        "95) is not. Reading headers, grouping, ordering, labels, folds and flushing every file to disk are part of "
        "ichseq's time; starting its processes as well. Cores busy: processor time of the whole machine over the time "
        f"taken, of {os.cpu_count()} cores, in the last round; it bounds what a second worker can add: one worker "
        "reads and compresses while a thread of it writes and the system flushes.",
    ])  # fmt: skip


def counted(name: str, run: Callable[[], object], busy: dict[str, float]) -> None:
    """Run, and note how many cores of the machine were busy meanwhile."""
    before, started = psutil.cpu_times(), time.perf_counter()
    run()
    after, seconds = psutil.cpu_times(), time.perf_counter() - started
    idle = after.idle - before.idle + getattr(after, "iowait", 0) - getattr(before, "iowait", 0)
    busy[name] = psutil.cpu_count() - idle / seconds


def published(files: list[Path], out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    for file in files:
        convert(file, out / f"{file.stem}.jpg")


def prepare_anew(source: Path, out: Path, workers: int) -> None:
    shutil.rmtree(out, ignore_errors=True)
    prepare(source, out, workers=workers)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.suffix in (".jpg", ".b2nd"))


if __name__ == "__main__":
    main()
