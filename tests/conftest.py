"""A small prepared set of phantoms and a small trained run, made once for all tests that need them; a real scan."""

import os

# Read when numpy and torch are imported, here and in what tests start: two test processes share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from ichseq.config import Config, load_config
from ichseq.config.yaml_text import parse_yaml
from ichseq.data.index import Index
from ichseq.data.prepare import prepare
from ichseq.evaluation.evaluate import evaluate_fold
from ichseq.phantom import write_phantoms
from ichseq.runs.folders import find_leaves
from ichseq.training.train import train_stage
from ichseq.windows import BONE_RANGE

torch.set_num_threads(1)  # sums then come in one order, so that equal runs are equal to the bit

TINY = (
    "model.backbone=test_resnet",
    "model.pretrained=false",
    "model.image_size=32",
    "model.hidden_size=8",
    "train.epochs=2",
    "train.patients_per_batch=2",
    "train.slices_per_batch=64",
    "train.backbone_lr=1e-3",
    "train.sequence_lr=1e-3",
    "train.warmup_steps=2",
    "train.workers=1",
)


_ROOT = Path(__file__).parents[1]
_HEAD_CT = (_ROOT / "data" / "dcm_qa_ct" / "In" / "GE", _ROOT.parent / "shared" / "data" / "head_ct_ge")
_NO_HEAD_CT = "no real head CT is there; git clone https://github.com/neurolabusc/dcm_qa_ct data/dcm_qa_ct"


def tiny(stage: str = "joint", *more: str) -> Config:
    """Settings of a network that trains in seconds."""
    return load_config(stage, None, [*TINY, *more])


def tiny_sections() -> dict[str, dict[str, Any]]:
    """The same settings as sections, as a YAML file or a dict holds them."""
    sections: dict[str, dict[str, Any]] = {}
    for setting in TINY:
        section, _, rest = setting.partition(".")
        key, _, value = rest.partition("=")
        sections.setdefault(section, {})[key] = parse_yaml(value)
    return sections


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten made-up patients as DICOM, in the RSNA layout; not to be changed."""
    out = tmp_path_factory.mktemp("phantoms") / "raw"
    write_phantoms(out, patients=10, test_patients=1, size=64, workers=1)
    return out


@pytest.fixture(scope="session")
def prepared(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantoms, prepared; not to be changed."""
    out = tmp_path_factory.mktemp("prepared") / "set"
    prepare(phantoms, out, workers=1)
    return out


@pytest.fixture(scope="session")
def prepared_wide(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in the range of the window for bone; not to be changed."""
    out = tmp_path_factory.mktemp("prepared-wide") / "set"
    prepare(phantoms, out, workers=1, hu_range=BONE_RANGE)
    return out


@pytest.fixture(scope="session")
def run(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A joint run on fold 0, with dropout and a moving average, two epochs; not to be changed."""
    out = tmp_path_factory.mktemp("runs") / "joint"
    train_stage(tiny(), "joint", data=prepared, fold=0, out=out, progress=False)
    return out


@pytest.fixture(scope="session")
def scored(run: Path, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run with fold 1 besides, both folds evaluated; not to be changed."""
    out = Path(shutil.copytree(run, tmp_path_factory.mktemp("scored") / "joint"))
    train_stage(tiny(), "joint", data=prepared, fold=1, out=out, progress=False)
    for leaf in find_leaves(out):
        evaluate_fold(leaf, Index.load(prepared))
    return out


@pytest.fixture
def run_copy(run: Path, tmp_path: Path) -> Path:
    """The same run, free to be changed."""
    return Path(shutil.copytree(run, tmp_path / "run"))


@pytest.fixture(scope="session")
def head_ct() -> Path:
    """A real head CT, 01.dcm to 28.dcm (GE HiSpeed Dual, tilted, padded); not to be changed. BSD 2-clause."""
    for folder in _HEAD_CT:
        if (folder / "28.dcm").is_file():
            return folder
    pytest.skip(_NO_HEAD_CT)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name what is missing once, at the end, and not for each test."""
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if _NO_HEAD_CT in str(report.longrepr)]
    if skipped:
        terminalreporter.write_line(f"{len(skipped)} tests skipped: {_NO_HEAD_CT}")
