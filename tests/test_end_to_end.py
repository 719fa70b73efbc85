"""The road as a user types it: phantom, prepare, train, evaluate, predict."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import yaml
from conftest import tiny_sections

from ichseq.predictions.schema import PREDICTION_COLUMNS


def ichseq(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ichseq", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=280)


def test_the_road(tmp_path: Path) -> None:
    def go(*arguments: str) -> subprocess.CompletedProcess[str]:
        done = ichseq(*arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done

    go("phantom", "data/raw", "--patients", "10", "--test-patients", "1", "--size", "64")
    assert "10 patients" in go("prepare", "data/raw").stdout
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(tiny_sections()))
    go("train", "--stage", "joint", "-c", "small.yaml", "--fold", "2")
    leaf = next((tmp_path / "runs").glob("*/joint/fold2"))
    shown = go("evaluate", "--fold", "2").stdout
    assert shown.startswith(f"run: {leaf.relative_to(tmp_path)}")
    assert json.loads((leaf / "metrics.json").read_text())["n_exams"] == 2
    done = go("predict", "data/raw/stage_2_test", "--run", str(leaf.parents[1]))
    assert "made-up scans" in done.stderr
    table = pd.read_csv(tmp_path / "predictions.csv")
    assert list(table.columns) == list(PREDICTION_COLUMNS)
    assert len(pd.read_csv(tmp_path / "exams.csv")) == 1
    again = ichseq(
        "train", "--stage", "joint", "-c", "small.yaml", "-o", str(leaf.parents[1]), "--fold", "2", cwd=tmp_path
    )
    assert again.returncode == 1
    assert "there is a run here already" in again.stderr
    assert "Traceback" not in again.stderr
