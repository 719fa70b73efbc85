"""What the benchmarks share: the machine's name, tables, files of results, and a set of phantoms to measure on."""

import argparse
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch

from ichseq.data.prepare import prepare
from ichseq.phantom import write_phantoms

HERE = Path(__file__).parent
DATA = HERE.parent / "data" / "benchmark"


def machine() -> str:
    """The processor or GPU and how many, as it goes into a file's name: "amd-epyc-2-cores"."""
    if torch.cuda.is_available():
        name, count = torch.cuda.get_device_name(), f"{torch.cuda.device_count()}"
    else:
        info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
        found = re.search(r"model name\s*:\s*(.+)", info)
        name, count = found[1] if found else platform.processor() or platform.machine(), f"{os.cpu_count()}-cores"
    return re.sub(r"[^a-z0-9]+", "-", f"{name} {count}".lower()).strip("-")


def report(
    benchmark: str, title: str, rows: Sequence[Sequence[object]], notes: Sequence[str] = (), *, keep: bool = True
) -> None:
    """Print a table, and keep it in results/ under the machine's name and torch's version.

    Args:
        benchmark: its name, first part of the file's name.
        title: what was measured.
        rows: the first one holds the headings.
        notes: sentences below the table.
        keep: False: print it only.
    """
    cells = [[str(cell) for cell in row] for row in rows]
    table = "\n".join("| " + " | ".join(row) + " |" for row in (cells[0], ["---"] * len(cells[0]), *cells[1:]))
    packages = ", ".join(
        f"{package} {version(package)}" for package in ("torch", "timm", "kornia", "blosc2", "pydicom")
    )
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True)
    command = "python " + " ".join(["benchmarks/" + Path(sys.argv[0]).name, *sys.argv[1:]])
    facts = [
        f"    {command}",
        f"{machine()}, Python {platform.python_version()}, {packages}; commit {commit.stdout.strip() or 'unknown'}, "
        f"{time.strftime('%Y-%m-%d')}. Times on a shared machine: read the ratios.",
    ]
    text = "\n\n".join([f"# {title}", facts[0], table, *notes, facts[1]]) + "\n"
    print(text)
    if not keep:
        return
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    (folder / f"{benchmark}-{machine()}-torch-{version('torch').split('+')[0]}.md").write_text(text, encoding="utf-8")


def parser(description: str, *, patients: int = 0, size: int = 512) -> argparse.ArgumentParser:
    """An argument parser; with the phantom set's options if `patients` is given."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    if patients:
        made.add_argument("--patients", type=int, default=patients, help="phantoms to measure on")
        made.add_argument("--size", type=int, default=size, help="rows and columns of a phantom's slice")
    return made


def phantoms(patients: int, size: int) -> Path:
    """A folder of phantoms as DICOM, made once and kept."""
    folder = DATA / f"raw-{patients}-{size}"
    if not folder.is_dir():
        print(f"making {patients} phantoms ...", file=sys.stderr)
        write_phantoms(folder, patients=patients, test_patients=0, size=size)
    return folder


def prepared(patients: int, size: int) -> Path:
    """The phantoms as a prepared set, made once and kept."""
    folder = DATA / f"prepared-{patients}-{size}"
    prepare(phantoms(patients, size), folder)
    return folder


def timed(function: Callable[[], object]) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def compare(functions: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each function, called in turns so that a busy machine slows all of them."""
    return rounds_of({name: partial(timed, function) for name, function in functions.items()}, rounds)


def rounds_of(measures: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Median of what each function gives, seconds that it has measured itself, called in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            seconds[name].append(measure())
    return {name: statistics.median(found) for name, found in seconds.items()}
