"""constraints.txt pins everything that ichseq and its extras for use require, at versions that setup.py allows."""

import subprocess
import sys
from importlib.metadata import Distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
FOR_USE = ("decoders", "dicom", "cluster")


@pytest.fixture(scope="module")
def required(tmp_path_factory: pytest.TempPathFactory) -> list[Requirement]:
    """What setup.py requires for use, with its extras."""
    out = tmp_path_factory.mktemp("metadata")
    subprocess.run([sys.executable, "setup.py", "-q", "egg_info", "-e", out], cwd=ROOT, check=True, capture_output=True)
    every = map(Requirement, Distribution.at(out / "ichseq.egg-info").requires or [])
    return [
        one for one in every if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in FOR_USE)
    ]


def test_every_requirement_is_pinned_within_its_bounds(required: list[Requirement]) -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert list(pinned) == sorted(pinned)
    assert len(required) > 25
    for one in required:
        assert one.specifier.contains(pinned[canonicalize_name(one.name)]), one
