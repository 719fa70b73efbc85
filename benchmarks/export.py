"""An exported network in onnxruntime against the same in torch: slices a second, in turns, and how near the answers."""

import os
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from common import compare, parser, phantoms, report

import ichseq
from ichseq.api import as_ensemble
from ichseq.ct.series import load_series
from ichseq.networks.shipped import DEFAULT

USUAL, LONG = 35, 120  # slices of a series


def main() -> None:
    options = parser(__doc__, patients=2)
    options.add_argument("--run", default=DEFAULT, help="a leaf, or the name of a network that ships")
    options.add_argument("--rounds", type=int, default=5)
    asked = options.parse_args()
    read = np.concatenate([series.read() for series in load_series(phantoms(asked.patients, asked.size))])
    rows: list[list[str]] = [["threads", "step", "slices", "torch, slices a second", "onnxruntime, slices a second",
                              "ratio", "largest difference of a probability"]]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        exported = Path(folder) / "model.onnx"
        ichseq.export(asked.run, exported)
        megabytes = sum(file.stat().st_size for file in Path(folder).iterdir()) / 1e6
        for threads in sorted({1, os.cpu_count() or 1}):
            for count in (USUAL, LONG):
                hu = torch.from_numpy(np.resize(read, (count, *read.shape[1:])))
                rows += [[str(threads), *row] for row in measured(asked.run, exported, hu, threads, asked.rounds)]
    report("export", f"{asked.run} as ONNX, {asked.size} x {asked.size} slices", rows, [
        f"Median of {asked.rounds} rounds, in turns; from slices in memory, so without reading DICOM. The three "
        f"files take {megabytes:.1f} MB. Load of the machine in the last minute: {os.getloadavg()[0]:.1f} on "
        f"{os.cpu_count()} cores; on a busy one several threads of torch wait for each other, and the rows of one "
        "thread are the fairer.",
    ])  # fmt: skip


def measured(run: str, exported: Path, hu: torch.Tensor, threads: int, rounds: int) -> list[list[str]]:
    """Both steps of a series' answer: step, slices, rates, their ratio, and how far the probabilities are apart."""
    torch.set_num_threads(threads)  # onnxruntime takes as many
    lengths, places = torch.tensor([len(hu)]), torch.arange(len(hu)) * 5.0
    ensembles = {"torch": as_ensemble(run, device="cpu"), "onnxruntime": as_ensemble(exported)}
    first = {name: partial(one.embed, hu, lengths) for name, one in ensembles.items()}
    last = {name: partial(one.answers, first[name](), lengths, places) for name, one in ensembles.items()}
    one, other = (way().slices for way in last.values())  # all is warm then
    rows = []
    for step, runs in {"slices to embeddings": first, "embeddings to probabilities": last}.items():
        seconds = compare(runs, rounds)
        rates = [len(hu) / seconds[name] for name in ensembles]
        apart = f"{np.abs(one - other).max():.1e}" if runs is last else ""
        rows.append([step, str(len(hu)), *(f"{rate:,.0f}" for rate in rates), f"{rates[1] / rates[0]:.2f}", apart])
    return rows


if __name__ == "__main__":
    main()
