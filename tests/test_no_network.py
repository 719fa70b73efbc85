"""No command reaches the network but those that fetch weights: each is run where every attempt is noted and fails."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from dicom_files import write_series

WATCH = """
import os, sys
LOCAL = {"localhost", "127.0.0.1", "::1", "0.0.0.0", "::", "", None}
def watch(event, args):
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = args[0]
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        host = args[1][0] if isinstance(args[1], tuple) else None
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host not in LOCAL:
        with open(os.environ["ATTEMPTS"], "a") as file:
            print(event, host, file=file)
        raise OSError("no network in this test")
sys.addaudithook(watch)
"""


@pytest.fixture
def watched(tmp_path: Path) -> dict[str, str]:
    """An environment in which every Python process, workers too, notes what it wants of the network and gets none."""
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch" / "sitecustomize.py").write_text(WATCH)
    path = os.pathsep.join([str(tmp_path / "watch"), *sys.path[1:]])
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    caches = {"HF_HOME": str(tmp_path / "hub"), "TORCH_HOME": str(tmp_path / "hub")}
    return {**kept, **caches, "PYTHONPATH": path, "ATTEMPTS": str(tmp_path / "attempts")}


def run(environment: dict[str, str], folder: Path, *command: object) -> tuple[int, str, str]:
    """Exit code and output of a Python command, and what it wanted of the network."""
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=folder, env=environment, capture_output=True, text=True
    )
    attempts = Path(environment["ATTEMPTS"])
    return done.returncode, done.stdout + done.stderr, attempts.read_text() if attempts.exists() else ""


def test_the_watch_notes_and_refuses_what_is_not_local(watched: dict[str, str], tmp_path: Path) -> None:
    outside = "import socket; socket.create_connection(('192.0.2.1', 80), 1)"
    code, output, attempts = run(watched, tmp_path, "-c", outside)
    assert code != 0
    assert "no network in this test" in output
    assert "192.0.2.1" in attempts


def refuse_any_attempt(environment: dict[str, str], folder: Path, *commands: list[object]) -> None:
    for command in commands:
        code, output, attempts = run(environment, folder, "-m", "ichseq", *command)
        assert (code, attempts) == (0, ""), f"{command[0]}: {output}"


def test_preparing_and_judging_need_no_network(
    run_copy: Path, phantoms: Path, watched: dict[str, str], tmp_path: Path
) -> None:
    of_run = ["--run", run_copy, "--fold", 0]
    refuse_any_attempt(
        watched,
        tmp_path,
        ["prepare", phantoms, "-o", "set", "--workers", 2],
        ["evaluate", *of_run, "--data", "set"],
        ["calibrate", *of_run],
    )


def test_asking_a_network_needs_no_other(watched: dict[str, str], tmp_path: Path) -> None:
    write_series(tmp_path / "scans")  # with valid UIDs, which DICOM results want
    refuse_any_attempt(
        watched,
        tmp_path,
        ["predict", "scans", "--report", "report", "--dicom", "results"],
        ["report", "predictions.csv", "--scans", "scans", "-o", "again"],
        ["models"],
    )


def test_training_asks_for_weights_alone_and_not_when_told_to_stay_offline(
    prepared: Path, watched: dict[str, str], tmp_path: Path
) -> None:
    command = ["-m", "ichseq", "train", "--stage", "slice", "--data", prepared, "-o", "run"]
    small = ["--set", "model.backbone=test_resnet", "--set", "model.image_size=32", "--set", "train.workers=1"]
    code, output, attempts = run({**watched, "HF_HUB_OFFLINE": "1"}, tmp_path, *command, *small)
    assert (code, attempts) == (1, ""), output
    code, output, attempts = run(watched, tmp_path, *command, *small)
    assert code == 1, output
    assert "huggingface.co" in attempts
    assert {line.split()[1] for line in attempts.splitlines()} <= {"huggingface.co", "hf.co"}
