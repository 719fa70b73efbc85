"""A training step of the joint stage against a bare loop of the same backbone on random tensors; and prediction.

The bare loop has the same slices a step in the same chunks, the same precision, recomputation and optimizer, and
nothing else. What the step has beside it (decoding, warp and windows, sequence part) is measured by itself.
"""

import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from common import parser, prepared, report
from torch.utils.checkpoint import checkpoint

from ichseq.config import load_config
from ichseq.data.batches import SliceBatch
from ichseq.data.feed import feed
from ichseq.data.index import Index
from ichseq.model.input import chunks, series_spans
from ichseq.training.loop import Training
from ichseq.training.losses import weighted_bce_sum
from ichseq.training.train import start_training

T = TypeVar("T")


def main() -> None:
    options = parser(__doc__, patients=20)
    options.add_argument("--backbone", nargs="+", default=["resnet18:128"], help="NAME:IMAGE_SIZE, any number")
    options.add_argument("--steps", type=int, default=6, help="steps measured, after two that are not")
    options.add_argument("--patients-per-batch", type=int, default=4)
    options.add_argument("--checkpointing", nargs="+", default=["off", "on"], choices=["off", "on"])
    options.add_argument("--memory-fraction", type=float, default=1.0, help="share of a GPU's memory that may be used")
    asked = options.parse_args()
    if torch.cuda.is_available() and asked.memory_fraction < 1:
        torch.cuda.set_per_process_memory_fraction(asked.memory_fraction)
    index = Index.load(prepared(asked.patients, asked.size))
    rows = [["backbone, size", "recomputed", "slices/s", "step / bare", "the loop alone / bare", "waiting for data",
             "warp and windows", "sequence part", "CNN slices / real", "peak GB", "prediction slices/s"]]  # fmt: skip
    for name in asked.backbone:
        backbone, _, size = name.partition(":")
        for checkpointing in asked.checkpointing:
            rows.append(measure(index, backbone, int(size), checkpointing, asked))
    report("step", f"A joint training step, {asked.patients_per_batch} series of phantoms a batch", rows, [
        "Step / bare: the whole step over the bare loop. The loop alone: the step less waiting for data, warp and "
        "windows, and sequence part, over the bare loop. The three shares are of the step's time. CNN slices / real: "
        "slices that went forward through the backbone, counted by a hook, in training and in prediction. "
        f"Medians of {asked.steps} steps, step and bare loop in turns.",
    ])  # fmt: skip


def measure(index: Index, backbone: str, size: int, checkpointing: str, asked: Any) -> list[object]:
    settings = [f"model.backbone={backbone}", f"model.image_size={size}", "model.pretrained=false",
                "model.freeze_bn=true", f"train.checkpointing={checkpointing}", "train.warmup_steps=0",
                f"train.patients_per_batch={asked.patients_per_batch}", "train.epochs=1"]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        config = load_config("joint", None, settings)
        training = start_training(config, "joint", index, 0, Path(folder) / "leaf")
        measured = Measured(training, asked.steps + 2)
        times, counted = measured.steps()
        predicted, predicted_counted = measured.prediction()
    middle = {name: statistics.median(found[2:]) for name, found in times.items()}
    rest = middle["step"] - middle["waiting"] - middle["warp"] - middle["sequence"]
    share = {name: f"{middle[name] / middle['step']:.1%}" for name in ("waiting", "warp", "sequence")}
    peak = f"{torch.cuda.max_memory_allocated() / 1e9:.1f}" if torch.cuda.is_available() else "-"
    return [
        f"{backbone} {size}", checkpointing, f"{1 / middle['per_slice']:.0f}",
        f"{middle['step'] / middle['bare']:.3f}", f"{rest / middle['bare']:.3f}",
        share["waiting"], share["warp"], share["sequence"], f"{counted:.3f}, {predicted_counted:.3f}",
        peak, f"{predicted:.0f}",
    ]  # fmt: skip


class Measured:
    """Steps of a training, each beside a bare step of as many slices."""

    def __init__(self, training: Training, count: int) -> None:
        self.training, self.setup, self.count = training, training.setup, count
        self.reader = training.read_ahead()
        plan = self.setup.plan(0)
        self.plan = [plan[k % max(len(plan) - 1, 1)] for k in range(count)]  # the last step may be smaller
        size, channels = self.setup.model.settings["image_size"], self.setup.model.input_channels
        kind = torch.channels_last if self.setup.model.settings["channels_last"] else torch.contiguous_format
        images = torch.randn(self.setup.model.chunk_size, channels, size, size, device=self.setup.processes.device)
        self.images = images.contiguous(memory_format=kind)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def steps(self) -> tuple[dict[str, list[float]], float]:
        model, times = self.setup.model, defaultdict(list)
        waiting = Waiting(self.training.batches(self.reader.training(0), self.plan))
        self.training.begin_epoch()
        bare_optimizer = torch.optim.AdamW(model.backbone.parameters(), fused=model.device.type == "cuda")
        passed = real = 0
        for step in self.plan:
            waiting.seconds = 0.0
            with self._counting():
                seconds, slices = self._timed(self.training.step, step, waiting)
            passed, real = passed + self.passed, real + slices
            batch = waiting.last
            assert batch is not None
            times["step"].append(seconds)
            times["waiting"].append(waiting.seconds)
            times["per_slice"].append(seconds / slices)
            times["bare"].append(self._timed(self._bare, slices, bare_optimizer)[0])
            times["warp"].append(self._timed(self._warp, batch)[0])
            times["sequence"].append(self._timed(self._sequence, batch)[0])
            self.training.read_losses()
        return times, passed / real

    @contextmanager
    def _counting(self) -> Iterator[None]:
        """Count the slices that go through the backbone until the network's forward pass is over.

        What is recomputed comes after that, in the backward pass.
        """
        self.passed, over = 0, [False]

        def count(_module: object, inputs: tuple[torch.Tensor, ...], _output: object) -> None:
            self.passed += 0 if over[0] else len(inputs[0])

        hooks = [self.setup.model.backbone.register_forward_hook(count),
                 self.setup.loss.register_forward_hook(lambda *_: over.__setitem__(0, True))]  # fmt: skip
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _timed(self, function: Callable[..., T], *arguments: Any) -> tuple[float, T]:
        self._wait()
        started = time.perf_counter()
        result = function(*arguments)
        self._wait()
        return time.perf_counter() - started, result

    def _wait(self) -> None:
        if self.setup.processes.device.type == "cuda":
            torch.cuda.synchronize()

    def _bare(self, slices: int, optimizer: torch.optim.Optimizer) -> None:
        s = self.setup
        count = -(-slices // s.model.chunk_size)
        parts = []
        for k in range(count):
            n = (k + 1) * slices // count - k * slices // count
            images = self.images[:n]
            with s.accelerator.autocast():
                if s.model.checkpointing == "on":
                    parts.append(checkpoint(s.model.backbone, images, use_reentrant=False))
                else:
                    parts.append(s.model.backbone(images))
        torch.cat(parts).float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def _warp(self, batch: SliceBatch) -> None:
        model = self.setup.model
        boxes = model.crop_boxes(batch.hu, batch.lengths)
        for spans in chunks(series_spans(batch.hu, batch.lengths, None), len(batch.hu), model.chunk_size):
            model.network_input(batch.hu, spans, boxes, batch.warp)

    def _sequence(self, batch: SliceBatch) -> None:
        s = self.setup
        embeddings = torch.randn(len(batch.hu), s.model.features, device=s.model.device, requires_grad=True)
        with s.accelerator.autocast():
            logits = s.model.sequence_logits(embeddings, batch.lengths, batch.positions_mm)
        (weighted_bce_sum(logits, batch.labels) / len(batch.hu)).backward()
        s.optimizer.zero_grad(set_to_none=True)

    @torch.inference_mode()
    def prediction(self) -> tuple[float, float]:
        """Slices a second of plain prediction from the store, and slices passed over real ones."""
        s = self.setup
        s.model.eval()
        tasks, read = [step[0][0] for step in self.plan], self.reader.validation()

        def run() -> int:
            real = 0
            for batch in feed(tasks, read, threads=s.config.train.workers, device=s.model.device):
                with s.accelerator.autocast():
                    s.model(batch.hu, batch.lengths, positions_mm=batch.positions_mm)
                real += len(batch.hu)
            return real

        run()
        with self._counting():
            seconds, real = self._timed(run)
        return real / seconds, self.passed / real


class Waiting:
    """An iterator that counts the seconds spent in waiting for it."""

    def __init__(self, batches: Iterator[SliceBatch]) -> None:
        self.batches, self.seconds = batches, 0.0
        self.last: SliceBatch | None = None

    def __iter__(self) -> Iterator[SliceBatch]:
        return self

    def __next__(self) -> SliceBatch:
        started = time.perf_counter()
        self.last = next(self.batches)
        self.seconds += time.perf_counter() - started
        return self.last


if __name__ == "__main__":
    main()
