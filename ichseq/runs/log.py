"""What a run writes for people to read: log.txt, run.json, config.yaml and history.csv."""

import platform
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import timm
import torch
from tqdm import tqdm

import ichseq
from ichseq.config import Config, save_config
from ichseq.files import write_text
from ichseq.pseudonyms import SALT
from ichseq.runs.names import CHECKPOINTS, CONFIG, HISTORY, LOG, RUN
from ichseq.runs.patients import Seen
from ichseq.runs.records import read_json, write_json

_BEFORE_THE_FIRST_STEP = (CONFIG, RUN, f".{RUN}.part", SALT, LOG)


class RunLog:
    """The files of a leaf that say what happened; of several processes, the first one writes.

    Args:
        leaf: the folder.
        writes: whether this process is the one.
        shown: whether notes go to the screen too.
    """

    def __init__(self, leaf: Path, *, writes: bool, shown: bool) -> None:
        self.leaf, self.writes, self.shown = leaf, writes, shown and writes

    def begin(self, config: Config, content: dict[str, Any], seen: Seen) -> None:
        """Write config.yaml and run.json, with the patients that are trained on, and the salts beside it."""
        if self.writes:
            save_config(config, self.leaf / CONFIG)
            seen.write_salts(self.leaf)
            content = {
                **content,
                **seen.record(),
                "commit": commit(),
                "versions": versions(),
                "threads": torch.get_num_threads(),
            }
            write_json(self.leaf / RUN, content | {"seconds": 0.0, "finished": False}, sealed=True)

    def end(self, seconds: float) -> None:
        """Note in run.json that the stage is finished, and how long it took."""
        if self.writes:
            path = self.leaf / RUN
            content = read_json(path, sealed=True) | {"finished": True, "seconds": round(seconds, 1)}
            write_json(path, content, sealed=True)

    def note(self, text: str) -> None:
        """A line in log.txt and on the screen."""
        if self.shown:
            tqdm.write(text, file=sys.stderr)
        self.log(text)

    def log(self, text: str) -> None:
        """A line in log.txt alone; what cannot be written there must not end a run."""
        if self.writes:
            with suppress(OSError), open(self.leaf / LOG, "a", encoding="utf-8") as log:
                log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def write_history(self, history: list[dict[str, Any]]) -> None:
        """A row an epoch."""
        if self.writes:
            write_text(self.leaf / HISTORY, pd.DataFrame(history).to_csv(index=False, lineterminator="\n"))

    def clear(self) -> None:
        """Take back what stands before the first step, and the folders if nothing else is in them."""
        if not self.writes or not self.leaf.is_dir():
            return
        for name in _BEFORE_THE_FIRST_STEP:
            (self.leaf / name).unlink(missing_ok=True)
        shutil.rmtree(self.leaf / CHECKPOINTS, ignore_errors=True)
        with suppress(OSError):  # one that is not empty ends it
            for folder in (self.leaf, *self.leaf.parents[:2]):
                folder.rmdir()


def versions() -> dict[str, str]:
    """What a run's figures depend on beside its settings: package -> version."""
    found = {"ichseq": ichseq.__version__, "python": platform.python_version()}
    return found | {"torch": torch.__version__, "timm": timm.__version__}


def commit() -> str | None:
    """Commit of the source folder, where ichseq runs from a checkout."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() or None
