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

USUAL, LONG = 35, 300  # slices of a series


def main() -> None:
    options = parser(__doc__, patients=2)
    options.add_argument("--run", default=DEFAULT, help="a leaf, or the name of a network that ships")
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--threads", type=int, default=os.cpu_count())
    asked = options.parse_args()
    torch.set_num_threads(asked.threads)  # onnxruntime takes as many
    read = np.concatenate([series.read() for series in load_series(phantoms(asked.patients, asked.size))])
    with tempfile.TemporaryDirectory() as folder:
        exported = Path(folder) / "model.onnx"
        ichseq.export(asked.run, exported)
        ensembles = {"torch": as_ensemble(asked.run, device="cpu"),
                     "onnxruntime": as_ensemble(exported)}  # fmt: skip
        megabytes = sum(file.stat().st_size for file in Path(folder).iterdir()) / 1e6
    rows = [["what", "slices", *(f"{name}, slices a second" for name in ensembles), "onnxruntime / torch",
             "largest difference of a probability"]]  # fmt: skip
    for count in (USUAL, LONG):
        hu = torch.from_numpy(np.resize(read, (count, *read.shape[1:])))
        lengths, places = torch.tensor([count]), torch.arange(count) * 5.0
        steps = {name: partial(one.embed, hu, lengths) for name, one in ensembles.items()}
        last = {name: partial(one.answers, steps[name](), lengths, places) for name, one in ensembles.items()}
        one, other = (way().slices for way in last.values())  # all is warm then
        for what, runs in {"crop box to embeddings": steps, "embeddings to probabilities": last}.items():
            seconds = compare(runs, asked.rounds)
            rates = [count / seconds[name] for name in ensembles]
            apart = f"{np.abs(one - other).max():.1e}" if runs is last else ""
            rows.append([what, str(count), *(f"{rate:,.0f}" for rate in rates), f"{rates[1] / rates[0]:.2f}", apart])
    report("export", f"{asked.run} as ONNX, {asked.size} x {asked.size} slices on {asked.threads} threads", rows, [
        f"Median of {asked.rounds} rounds, in turns; from slices in memory, so without reading DICOM. The three "
        f"files take {megabytes:.1f} MB. Load of the machine in the last minute: {os.getloadavg()[0]:.1f} on "
        f"{os.cpu_count()} cores.",
    ])  # fmt: skip


if __name__ == "__main__":
    main()
