"""An index of the size of RSNA 2019: seconds and memory to load it, draw folds, plan epochs, and read through it.

The rows are made up: identifiers of the real lengths, labels at the real prevalence, and every series' file is one and
the same.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
from common import DATA, parser, report

from ichseq.data.batches import read_batch
from ichseq.data.feed import feed
from ichseq.data.folds import assign_folds, patient_labels
from ichseq.data.index import Index
from ichseq.data.index_files import SERIES_SCHEMA, SLICES_SCHEMA, write_index
from ichseq.data.owned import place_of
from ichseq.data.plan import plan_epoch, plan_slices
from ichseq.data.store import write_series
from ichseq.labels import LABELS

PREVALENCE = (0.0041, 0.0483, 0.0352, 0.0476, 0.0630, 0.1440)  # of slices, stage 1 of the set


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--series", type=int, default=21_700)
    options.add_argument("--slices", type=int, default=752_803)
    options.add_argument("--reads", type=int, default=4000, help="batches that are read through the index")
    options.add_argument("--one", help=argparse.SUPPRESS)
    asked = options.parse_args()
    folder = DATA / f"index-{asked.series}-{asked.slices}"
    if asked.one:
        print(json.dumps(globals()[asked.one](folder, asked.reads)))
        return
    if not folder.is_dir():
        make(folder, asked.series, asked.slices)
    rows = [["what", "seconds", "memory, MB"]]
    for task in ("loading", "folds", "epochs", "reading"):
        rows += in_a_process(task)
    report("scale", f"An index of {asked.slices:,} slices in {asked.series:,} series", rows, [
        "Each line from a process of its own. Memory: resident memory that the step added; for reading, all of the "
        "process's. Reading: batches of 4 series of 64 x 64 pixels by two threads.",
    ])  # fmt: skip


def in_a_process(task: str) -> list[list[str]]:
    command = [sys.executable, __file__, *sys.argv[1:], "--one", task]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def resident() -> float:
    return psutil.Process().memory_info().rss / 1e6


def loading(folder: Path, _reads: int) -> list[list[str]]:
    before, started = resident(), time.perf_counter()
    index = Index.load(folder)
    seconds, added = time.perf_counter() - started, resident() - before
    return [[f"load the index ({index.n_slices:,} rows)", f"{seconds:.2f}", f"{added:.0f}"]]


def folds(folder: Path, _reads: int) -> list[list[str]]:
    index = Index.load(folder)
    names = [f"ID_{k:08x}" for k in range(index.n_patients)]
    codes = np.repeat(index.patient_codes, index.lengths)
    before, started = resident(), time.perf_counter()
    drawn = assign_folds(names, patient_labels(codes, index.labels, index.n_patients), folds=5, seed=0)
    seconds = time.perf_counter() - started
    return [[f"draw 5 folds of {len(drawn):,} patients", f"{seconds:.2f}", f"{resident() - before:.0f}"]]


def epochs(folder: Path, _reads: int) -> list[list[str]]:
    index = Index.load(folder)
    series, rows = index.training_series(0), []
    for name, plan, batch in (("series, 4 a batch", plan_epoch, 4), ("slices, 32 a batch", plan_slices, 32)):
        before, started = resident(), time.perf_counter()
        steps = plan(index, series, batch=batch, accumulate=1, processes=8, key=(0, 0))
        seconds = time.perf_counter() - started
        rows.append([f"plan an epoch of {name}, 8 processes ({len(steps):,} steps)", f"{seconds:.2f}",
                     f"{resident() - before:.0f}"])  # fmt: skip
    return rows


def reading(folder: Path, reads: int) -> list[list[str]]:
    index = Index.load(folder)
    plan = plan_epoch(index, index.training_series(0), batch=4, accumulate=1, processes=1, key=(0, 0))
    tasks, seen = [step[0][0] for step in plan[:reads]], []
    started = time.perf_counter()
    for number, _ in enumerate(feed(tasks, lambda items, allocate: read_batch(index, items, allocate), threads=2)):
        if number * 10 % len(tasks) < 10:
            seen.append(resident())
    seconds = time.perf_counter() - started
    return [
        [f"read {len(tasks):,} batches", f"{seconds:.2f}", f"{seen[1]:.0f} after a tenth, {seen[-1]:.0f} at the end"]
    ]


def make(folder: Path, n_series: int, n_slices: int) -> None:
    """Write the made-up set: tables as `prepare` writes them, and one file that stands for all."""
    rng = np.random.default_rng(0)
    lengths = np.full(n_series, n_slices // n_series)
    lengths[: n_slices - lengths.sum()] += 1
    longest = int(lengths.max())
    places = {n: place_of(f"{n:040x}", "0" * 16) for n in np.unique(lengths)}
    sums = {}
    for n, place in places.items():
        sums[n] = write_series(folder / place, rng.normal(30, 5, (longest, 64, 64)).astype(np.int16)[:n]).sums
    patients = rng.integers(0, int(n_series * 0.87), n_series)
    columns = {
        "series": np.arange(n_series, dtype=np.int32),
        "patient_id": [f"ID_{k:08x}" for k in patients],
        "study_uid": [f"ID_{k:010x}" for k in range(n_series)],
        "series_uid": [f"ID_{k + 7:010x}" for k in range(n_series)],
        "store": [places[n] for n in lengths],
        "n_slices": lengths,
        "rows": np.full(n_series, 64),
        "columns": np.full(n_series, 64),
        "spacing_row_mm": np.full(n_series, 0.48),
        "spacing_column_mm": np.full(n_series, 0.48),
        "fold": patients % 5,
        "phantom": np.ones(n_series, bool),
        "warnings": [""] * n_series,
        "first_row": np.cumsum(lengths) - lengths,
    }
    series = pa.table({name: pa.array(columns[name], SERIES_SCHEMA.field(name).type) for name in SERIES_SCHEMA.names})
    within = np.concatenate([np.arange(n) for n in lengths])
    rows: dict[str, object] = {
        "series": np.repeat(np.arange(n_series), lengths),
        "slice_index": within,
        "sop_uid": [f"ID_{k:09x}" for k in range(n_slices)],
        "file": [f"rsna.zip/rsna/stage_2_train/ID_{k:09x}.dcm" for k in range(n_slices)],
        "position_mm": within * 5.0,
        "checksum": np.concatenate([sums[n] for n in lengths]),
    }
    for label, share in zip(LABELS, PREVALENCE, strict=True):
        rows[label] = (rng.random(n_slices) < share).astype(np.float32)
    slices = pa.table({name: pa.array(rows[name], SLICES_SCHEMA.field(name).type) for name in SLICES_SCHEMA.names})
    write_index(folder, series, slices, folds=5, seed=0, source=["made up"], labels="made up")


if __name__ == "__main__":
    main()
