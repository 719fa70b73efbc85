"""Sudden ends: prepare and predict killed at a random moment, and the same command again."""

import hashlib
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
from hostile_child import OUTSIDE, SILENT, TAKEN, Fault, rng_of
from hostile_flips import make_run

_LINGERS = 15  # seconds that a worker may outlive its parent


class Kills:
    """Even cases kill prepare with two workers, odd ones predict."""

    ground = "run"
    make = staticmethod(make_run)

    def __init__(self, work: Path, seed: int) -> None:
        self.work, self.seed, self.around = work / "kills", seed, work / "kills" / "around"
        shutil.rmtree(self.work, ignore_errors=True)
        for name in ("raw", "run"):
            shutil.copytree(work / name, self.around / name)
        (self.around / "somebody's.txt").write_text("not ichseq's")
        self.seconds = {}
        for what in ("prepare", "predict"):
            started = time.monotonic()
            run(what, self.around, self.work / f"{what}-alone")
            self.seconds[what] = time.monotonic() - started
        self.before = content_of(self.around)

    def __call__(self, number: int) -> str:
        rng = rng_of(self.seed, "kills", number)
        what = ("prepare", "predict")[number % 2]
        out, alone = self.around / f"{what}-out", content_of(self.work / f"{what}-alone")
        shutil.rmtree(out, ignore_errors=True)
        for _ in range(rng.choice((1, 1, 2))):  # killed again at the second try, perhaps
            self._kill(what, out, rng)
        left = content_of(out) if out.exists() else {}
        if what == "predict" and any(name in alone and left[name] != alone[name] for name in left):
            raise Fault(SILENT, f"{what} was killed and left half a table")
        run(what, self.around, out)
        found = content_of(out)
        if found != alone:
            differ = sorted(name for name in found.keys() | alone.keys() if found.get(name) != alone.get(name))
            raise Fault(SILENT, f"{what}, killed and run again, differs in {', '.join(differ[:5])}")
        shutil.rmtree(out)
        if content_of(self.around) != self.before:
            raise Fault(OUTSIDE, f"{what} changed what lies around its folder")
        return TAKEN

    def _kill(self, what: str, out: Path, rng: random.Random) -> None:
        process = subprocess.Popen(**command(what, self.around, out))
        try:
            process.wait(self.seconds[what] * rng.uniform(0.3, 1))  # before that it imports
        except subprocess.TimeoutExpired:
            below = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            process.wait()
            _, alive = psutil.wait_procs(below, timeout=_LINGERS)
            for one in alive:
                one.kill()
            if alive:
                raise Fault(SILENT, f"{what} was killed, and {len(alive)} of its workers went on") from None


def command(what: str, around: Path, out: Path) -> dict[str, object]:
    """How a user starts it, as Popen takes it."""
    options = {
        "prepare": ["prepare", str(around / "raw"), "-o", str(out), "--workers", "2"],
        "predict": ["predict", str(around / "raw"), "-o", str(out / "table.csv"), "--run", str(around / "run")],
    }[what]
    return {
        "args": [sys.executable, "-m", "ichseq", *options],
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.PIPE,
        "text": True,
        "cwd": around,
        "env": {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
    }


def run(what: str, around: Path, out: Path) -> None:
    """Run it to its end, which has to be a good one."""
    process = subprocess.Popen(**command(what, around, out))
    words = process.communicate()[1]
    if process.returncode:
        raise Fault(SILENT, f"{what} ended with {process.returncode}: {words.strip()[-200:]}")


def content_of(folder: Path) -> dict[str, str]:
    """Every file of a folder with the hash of its bytes; the lock, which holds nothing, apart."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.name != ".lock":
            name = str(path.relative_to(folder))
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    return found
