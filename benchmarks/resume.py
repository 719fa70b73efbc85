"""A run that is killed again and again ends with the weights of one that is not, to the bit."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import parser, prepared, report
from safetensors.torch import load_file

SETTINGS = ("model.backbone=test_resnet", "model.pretrained=false", "model.image_size=64", "model.hidden_size=32",
            "model.dropout=0.2", "train.epochs=3", "train.patients_per_batch=2", "train.backbone_lr=1e-3",
            "train.sequence_lr=1e-3", "train.warmup_steps=4", "train.ema=0.9", "train.checkpoint_every=2")  # fmt: skip


def main() -> None:
    options = parser(__doc__, patients=20, size=128)
    options.add_argument("--kills", type=int, default=20, help="runs killed by SIGKILL, for each number of threads")
    options.add_argument("--terms", type=int, default=5, help="runs ended by SIGTERM, likewise")
    options.add_argument("--threads", type=int, nargs="+", default=(0, 2), help="threads that read ahead")
    asked = options.parse_args()
    data, rng = prepared(asked.patients, asked.size), random.Random(0)
    rows = [["threads", "what", "runs", "ended as they should", "weights equal to the bit"]]
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        whole = Run(data, Path(folder) / "whole", threads=1)
        assert whole.start().wait() == 0
        length = time.monotonic() - started
        for threads in asked.threads:
            for number, count, code in ((signal.SIGKILL, asked.kills, -9), (signal.SIGTERM, asked.terms, 143)):
                ended = equal = 0
                for k in range(count):
                    run = Run(data, Path(folder) / f"{threads}-{number.name}-{k}", threads)
                    # Ended by SIGTERM before it could take note of signals: -15 here, 143 to a shell.
                    ended += run.interrupt(number, rng.uniform(0, length)) in (code, -int(number))
                    run.finish()
                    equal += run.same_as(whole)
                rows.append([threads, f"{number.name} at a random moment, resumed", count, ended, equal])
            run = Run(data, Path(folder) / f"{threads}-cut", threads)
            run.stop_after_checkpoints(3)
            run.truncate_newest()
            run.finish()
            noted = "going back to the checkpoint before it" in run.log()
            rows.append([threads, "newest checkpoint truncated, resumed", 1, int(noted), int(run.same_as(whole))])
    report("resume", "Interrupted and resumed against uninterrupted", rows, [
        f"{len(prepared_training(data))} series, test_resnet at 64, dropout, moving average, a checkpoint every 2 "
        f"steps, 3 epochs; one thread of arithmetic; an uninterrupted run takes {length:.0f} s. The moment is drawn "
        "over all of that, imports and the first checkpoint included. Equal: every tensor of the last checkpoint "
        "(weights, optimizer, moving average).",
    ])  # fmt: skip


def prepared_training(data: Path) -> list[int]:
    from ichseq.data.index import Index

    return Index.load(data).training_series(0).tolist()


class Run:
    """One training run, as a user starts it."""

    def __init__(self, data: Path, out: Path, threads: int) -> None:
        self.data, self.out, self.threads = data, out, threads
        self.last = out / "joint" / "fold0" / "last"

    def start(self, *more: str) -> subprocess.Popen[str]:
        settings = [part for value in (*SETTINGS, f"train.workers={self.threads}") for part in ("--set", value)]
        command = [sys.executable, "-m", "ichseq", "train", "--data", str(self.data), "-o", str(self.out)]
        return subprocess.Popen([*command, *settings, *more], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip

    def interrupt(self, number: signal.Signals, seconds: float) -> int:
        """Start, send the signal after so long, and wait; a run that was quicker starts anew with less patience."""
        process = self.start()
        try:
            process.communicate(timeout=seconds)
            return self.interrupt_again(number, seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
            process.communicate()
        return process.returncode

    def interrupt_again(self, number: signal.Signals, seconds: float) -> int:
        self.out = self.out.with_name(self.out.name + "x")
        self.last = self.out / "joint" / "fold0" / "last"
        return self.interrupt(number, 0.8 * seconds)

    def finish(self) -> None:
        """Resume; or start, if it was ended before its first checkpoint."""
        more = ["--resume"] if any(self.last.glob("step-*")) else []
        process = self.start(*more)
        words = process.communicate()[1]
        if process.returncode:
            raise SystemExit(f"a run could not go on: {words[-2000:]}")

    def stop_after_checkpoints(self, count: int) -> None:
        """Start, and end it by SIGTERM when it has written so many."""
        process, seen = self.start(), set()
        while len(seen) < count and process.poll() is None:
            seen |= {path.name for path in self.last.glob("step-*")}
            time.sleep(0.005)
        process.send_signal(signal.SIGTERM)
        process.communicate()

    def truncate_newest(self) -> None:
        file = sorted(self.last.glob("step-*"))[-1] / "state.safetensors"
        file.write_bytes(file.read_bytes()[:-1000])

    def log(self) -> str:
        return (self.out / "joint" / "fold0" / "log.txt").read_text()

    def same_as(self, other: "Run") -> bool:
        one, two = (load_file(sorted(run.last.glob("step-*"))[-1] / "state.safetensors") for run in (self, other))
        return one.keys() == two.keys() and all(bool((one[key] == two[key]).all()) for key in one)


if __name__ == "__main__":
    main()
