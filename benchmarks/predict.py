"""From typing `ichseq predict` to the answer: seconds of a fresh process, slices a second after that, peak memory."""

import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from common import compare, parser, phantoms, report

from ichseq.ct.series import load_series
from ichseq.networks.shipped import DEFAULT

USUAL = 35  # slices of a series


def main() -> None:
    options = parser(__doc__, patients=6)
    options.add_argument("--run", default=DEFAULT, help="a run, or the name of a network that ships")
    options.add_argument("--rounds", type=int, default=3)
    asked = options.parse_args()
    every = load_series(phantoms(asked.patients, asked.size))
    one = min(every, key=lambda series: abs(len(series) - USUAL))
    seconds_of: dict[str, list[str | Path]] = {}
    with tempfile.TemporaryDirectory() as folder:
        predict = [sys.executable, "-m", "ichseq", "predict", "--run", asked.run, "-o", Path(folder) / "table.csv"]
        seconds_of["import torch and timm, and nothing else"] = [sys.executable, "-c", "import torch, timm"]
        seconds_of[f"ichseq predict, {len(one)} slices"] = [*predict, *one.files]
        slices = sum(len(series) for series in every)
        files = [file for series in every for file in series.files]
        seconds_of[f"ichseq predict, {slices} slices of {len(every)} series"] = [*predict, *files]
        memory: dict[str, float] = {}
        runs = {name: partial(fresh, name, command, memory) for name, command in seconds_of.items()}
        seconds = compare(runs, asked.rounds)
    reference, single, several = seconds.values()
    rate = (slices - len(one)) / (several - single)
    rows = [["fresh process", "seconds", "ratio to the imports", "peak memory, MB"]]
    rows += [
        [name, f"{taken:.1f}", f"{taken / reference:.1f}", f"{memory[name]:.0f}"] for name, taken in seconds.items()
    ]
    report("predict", f"Predicting {asked.size} x {asked.size} slices with {asked.run}", rows, [
        f"Median of {asked.rounds} rounds, from start to exit. After the first answer: {rate:.0f} slices a second. "
        f"Load of the machine in the last minute: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.",
    ])  # fmt: skip


def fresh(name: str, command: list[str | Path], memory: dict[str, float]) -> None:
    """Run a command to its end, and note the most memory that it had."""
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{name}: ended with code {process.returncode}")
    memory[name] = usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
