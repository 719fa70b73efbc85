"""Peak memory of a training step with recomputation and of a prediction, for a short series and for a long one.

Counted above the loaded model and the input's own int16 array: on a GPU as torch counts it, on the CPU as the highest
resident memory of a process that does nothing else.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from common import DATA, parser, phantoms, report

CHUNK = 20
SETTINGS = ("model.pretrained=false", "model.freeze_bn=true", "model.hidden_size=64", "train.checkpointing=on",
            f"train.chunk_size={CHUNK}", "train.epochs=1", "train.workers=0", "train.warmup_steps=0")  # fmt: skip


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--backbone", default="resnet18:224", help="NAME:IMAGE_SIZE")
    options.add_argument("--train", type=int, nargs=2, default=(100, 600), help="slices of a step, short and long")
    options.add_argument("--predict", type=int, nargs=2, default=(100, 2000), help="slices of a scan, short and long")
    options.add_argument("--one", help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.one:
        print(json.dumps(measure(**json.loads(asked.one))))
        return
    rows = [["what", "slices", "input, MB", "peak above model and input, MB", "ratio"]]
    for what, counts in (("training step, recomputed", asked.train), ("prediction from DICOM", asked.predict)):
        peaks = []
        for slices in counts:
            found = in_a_process({"what": what, "slices": slices, "backbone": asked.backbone})
            peaks.append(found["peak"])
            rows.append([what, slices, f"{found['input'] / 1e6:.0f}", f"{found['peak'] / 1e6:.0f}",
                         f"{peaks[-1] / peaks[0]:.2f}"])  # fmt: skip
    report("memory", f"Peak memory with {asked.backbone.replace(':', ' at ')}, slices of 512 x 512", rows, [
        f"The long series is a short one over and over. The step's chunks have {CHUNK} slices, of which 100 and 600 "
        "are multiples, so that both have chunks of one size. In prediction a series of more than 512 slices is read "
        "piece by piece, twice, and never in memory as a whole: its input is then the pieces, counted as nothing.",
    ])  # fmt: skip


def in_a_process(task: dict[str, Any]) -> dict[str, float]:
    """Each figure from a process of its own, with an allocator that gives memory back."""
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "2"}
    command = [sys.executable, __file__, "--one", json.dumps(task)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def measure(what: str, slices: int, backbone: str) -> dict[str, float]:
    name, _, size = backbone.partition(":")
    settings = [f"model.backbone={name}", f"model.image_size={size}", *SETTINGS]
    return (train if what.startswith("training") else predict)(slices, settings)


def train(slices: int, settings: list[str]) -> dict[str, float]:
    from ichseq.config import load_config
    from ichseq.data.batches import new_array
    from ichseq.data.index import Index
    from ichseq.data.prepare import prepare
    from ichseq.training.train import start_training

    with tempfile.TemporaryDirectory() as folder:
        source = long_series(slices)
        labels = Path(folder) / "labels.csv"
        names = [path.stem for path in source.iterdir()]
        labels.write_text("sop_uid,any\n" + "".join(f"{name},0\n" for name in names))
        # Two patients: the long series, and one to validate on.
        prepare([source, long_series(8, "other")], Path(folder) / "set", labels=labels, folds=2, workers=1)
        index = Index.load(Path(folder) / "set")
        fold = next(k for k in (0, 1) if index.lengths[index.training_series(k)].sum() == slices)
        config = load_config("joint", None, settings)
        training = start_training(config, "joint", index, fold, Path(folder) / "leaf")
        step = training.setup.plan(0)[0]
        batch = training.read_ahead().validation()(step[0][0], new_array)
        training.begin_epoch()
        peak = Peak(training.setup.processes.device)
        with peak:
            training.step(step, iter([batch]))
    return {"input": batch.hu.nbytes, "peak": peak.bytes}


def predict(slices: int, settings: list[str]) -> dict[str, float]:
    from ichseq import Model
    from ichseq.config import load_config
    from ichseq.ct.series import KEPT_BYTES, load_series
    from ichseq.inference.model_ensemble import ModelEnsemble
    from ichseq.inference.predict import predict_series

    config = load_config("joint", None, settings).model
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = Model(config.backbone, image_size=config.image_size, hidden_size=config.hidden_size).to(device).eval()
    (series,) = load_series(long_series(slices))
    kept = 2 * slices * 512 * 512
    kept = kept if kept <= KEPT_BYTES else 0
    peak = Peak(torch.device(device))
    with peak:
        predict_series(ModelEnsemble(model), series)
    return {"input": kept, "peak": peak.bytes - (kept if device == "cpu" else 0)}


def long_series(slices: int, name: str = "long") -> Path:
    """A folder with one series of so many slices: a phantom's, over and over, one above the other."""
    import pydicom

    folder = DATA / f"{name}-{slices}"
    if folder.is_dir():
        return folder
    files = sorted((phantoms(1, 512) / "stage_2_train").iterdir())
    beside = folder.with_name(folder.name + ".part")
    beside.mkdir(parents=True, exist_ok=True)
    for k in range(slices):
        slice_ = pydicom.dcmread(files[k % len(files)])
        slice_.PatientID = slice_.StudyInstanceUID = slice_.SeriesInstanceUID = f"{name}{slices}"
        slice_.SOPInstanceUID = f"{name}{slices}x{k}"
        slice_.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        slice_.ImagePositionPatient = [0, 0, float(k)]
        slice_.save_as(beside / f"{slice_.SOPInstanceUID}.dcm")
    beside.rename(folder)
    return folder


class Peak:
    """The highest memory while inside, above what was taken before."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.bytes = device, 0.0

    def __enter__(self) -> "Peak":
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        else:
            Path("/proc/self/clear_refs").write_text("5")  # the highest resident memory is counted anew
            self.before = _status("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        highest = torch.cuda.max_memory_allocated() if self.device.type == "cuda" else _status("VmHWM")
        self.bytes = highest - self.before


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"this system does not tell {name}")


if __name__ == "__main__":
    main()
