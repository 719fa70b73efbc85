"""Several processes do what one does: the same loss, gradients and weights, and every patient once."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import TINY
from safetensors.torch import load_file

from ichseq.runs.folders import leaf_of

HERE = Path(__file__).parent


def launch(processes: int, *command: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", f"--nproc_per_node={processes}", f"--master_port={port}"]
    done = subprocess.run(
        [*start, *command],
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=250,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == expect, done.stderr[-3000:]
    return done


def step(folder: Path, processes: int, prepared: Path, number: int, *settings: str) -> dict[str, torch.Tensor]:
    folder.mkdir()
    launch(processes, "one_step.py", str(prepared), str(folder), str(number), *settings)
    return load_file(folder / "step.safetensors")


@pytest.mark.parametrize("number", [0, 1])
def test_two_processes_give_the_loss_and_the_gradients_of_one(prepared: Path, tmp_path: Path, number: int) -> None:
    one = step(tmp_path / "one", 1, prepared, number, "train.patients_per_batch=4")
    two = step(tmp_path / "two", 2, prepared, number, "train.patients_per_batch=2")
    assert len(one["lengths"]) == 4
    assert len(one["lengths"].unique()) > 1
    assert torch.equal(one["lengths"].sort().values, two["lengths"].sort().values)
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
    for name, gradient in one.items():
        assert (two[name] - gradient).norm() <= 1e-5 * gradient.norm() or name == "lengths", name


@pytest.mark.parametrize(("processes", "batch"), [(2, 3), (3, 1)])
def test_an_epoch_that_does_not_divide_is_the_same(prepared: Path, tmp_path: Path, processes: int, batch: int) -> None:
    """The last step of 8 series has 2: with two processes one for each, with three one process has none."""
    settings = [*TINY, "model.freeze_bn=true", "train.epochs=1", "train.checkpoint_every=1"]
    arguments = [part for setting in settings for part in ("--set", setting)]
    leaves = []
    for count, size in ((1, processes * batch), (processes, batch)):
        out = tmp_path / str(count)
        more = ["--set", f"train.patients_per_batch={size}"]
        launch(count, "-m", "ichseq", "train", "--data", str(prepared), "-o", str(out), *arguments, *more)
        leaves.append(leaf_of(out, "joint", 0))
    one, two = (load_file(sorted((leaf / "last").glob("step-*"))[-1] / "state.safetensors") for leaf in leaves)
    for name, tensor in one.items():
        if name.startswith("model."):
            assert torch.allclose(two[name], tensor, rtol=1e-3, atol=1e-5), name
    histories = [pd.read_csv(leaf / "history.csv") for leaf in leaves]
    for column in ("step", "train_loss", "valid_loss"):
        assert histories[1][column].to_numpy() == pytest.approx(histories[0][column].to_numpy(), rel=1e-4)


def test_processes_stop_at_one_step_and_go_on(prepared: Path, tmp_path: Path) -> None:
    settings = [*TINY, "train.epochs=30"]
    arguments = [part for setting in settings for part in ("--set", setting)]
    command = ["-m", "ichseq", "train", "--data", str(prepared), "-o", str(tmp_path / "run"), *arguments]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={port}", *command],
        cwd=HERE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    last = leaf_of(tmp_path / "run", "joint", 0) / "last"
    while process.poll() is None and not (last / "step-00000002").is_dir():
        time.sleep(0.01)
    process.terminate()
    words = process.communicate(timeout=100)[1]
    assert "saved; go on with --resume" in words
    stopped = sorted(last.glob("step-*"))[-1].name
    assert "step-00000002" <= stopped < "step-00000060"
    alone = launch(1, *command[:2], "train", "--data", str(prepared), "-o", str(tmp_path / "run"), "--resume", expect=1)
    assert "was trained by 2 processes and would go on with 1" in alone.stderr
    launch(2, *command[:2], "train", "--data", str(prepared), "-o", str(tmp_path / "run"), "--resume")
    assert sorted(last.glob("step-*"))[-1].name == "step-00000060"
