"""What is installed: an sdist, a wheel made of it, and an answer from it alone in a folder that knows no source."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from ichseq.labels import LABELS
from ichseq.networks.shipped import DEFAULT

ROOT = Path(__file__).parents[1]
SOURCE = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "ichseq")
OF_A_NETWORK = ("weights.safetensors", "model.json", "SHA256", "CARD.md", "NOTICE")
BESIDE = ("ichseq/py.typed", "ichseq/small.yaml", "ichseq/phantom/icbm152.xz", "ichseq/phantom/NOTICE.icbm152")
OF_A_REPORT = ("templates/index.html", "templates/exam.html", "assets/report.css", "assets/exam.js")
EXPECTED = [
    *(f"ichseq/networks/{DEFAULT}/{name}" for name in OF_A_NETWORK),
    *(f"ichseq/html_report/{name}" for name in OF_A_REPORT),
    *BESIDE,
]


def run(*command: str | Path, cwd: Path, path: Path | None = None) -> str:
    environment = {**os.environ, "PYTHONPATH": str(path or ""), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, since building leaves folders in its source."""
    copy, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in SOURCE:
        whole = ROOT / name
        shutil.copytree(whole, copy / name, ignore=shutil.ignore_patterns("__pycache__")) if whole.is_dir() else (
            shutil.copy(whole, copy)
        )
    build = f"from setuptools import build_meta; build_meta.build_sdist({str(out)!r})"
    run(sys.executable, "-c", build, cwd=copy)
    return next(out.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def wheel(sdist: Path) -> Path:
    """Made of the sdist, without a network."""
    pip = (sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index")
    run(*pip, "-w", sdist.parent, sdist, cwd=sdist.parent)
    return next(sdist.parent.glob("*.whl"))


def test_both_hold_the_network_its_card_and_its_notices(sdist: Path, wheel: Path) -> None:
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = set(archive.namelist())
        weights = archive.read(f"ichseq/networks/{DEFAULT}/weights.safetensors")
    assert set(EXPECTED) <= in_sdist
    assert set(EXPECTED) <= in_wheel
    licences = {name.partition("/licenses/")[2] for name in in_wheel if ".dist-info/licenses/" in name}
    assert {"LICENSE", "ichseq/phantom/NOTICE.icbm152", f"ichseq/networks/{DEFAULT}/NOTICE"} <= licences
    assert weights == (ROOT / "ichseq" / "networks" / DEFAULT / "weights.safetensors").read_bytes()
    assert not any(name.startswith(("tests", "docs", "experiments")) for name in in_wheel)
    assert wheel.stat().st_size < 25_000_000


def test_the_installed_wheel_answers(wheel: Path, phantoms: Path, tmp_path: Path) -> None:
    site, work = tmp_path / "site", tmp_path / "elsewhere"
    work.mkdir()
    run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", site, wheel, cwd=tmp_path)
    ichseq = site / "bin" / "ichseq"
    listed = run(ichseq, "models", cwd=work, path=site)
    assert f"{site / 'ichseq' / 'networks' / DEFAULT / 'CARD.md'}" in listed
    assert run(ichseq, "models", DEFAULT, cwd=work, path=site).startswith(f"# {DEFAULT}")
    shown = run(ichseq, "predict", phantoms / "stage_2_test", cwd=work, path=site)
    assert f"`ichseq models {DEFAULT}`" in shown
    table = pd.read_csv(work / "predictions.csv")
    assert len(table) == len(list((phantoms / "stage_2_test").iterdir()))
    assert table[list(LABELS)].notna().all(axis=None)
    assert (work / "exams.csv").is_file()
