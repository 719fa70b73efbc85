"""What a run writes for people to read; of several processes one writes, and what was begun can be taken back."""

import re
from pathlib import Path

import pandas as pd
from conftest import tiny

import ichseq
from ichseq.config import load_config
from ichseq.pseudonyms import Pseudonyms
from ichseq.runs.log import RunLog
from ichseq.runs.patients import Seen
from ichseq.runs.records import read_run

CONTENT = {"stage": "joint", "fold": 0}
SEEN = Seen(frozenset({"P-0"}), frozenset({"0"}), (Pseudonyms.draw(),))


def test_a_run_is_begun_and_ended(tmp_path: Path) -> None:
    log, config = RunLog(tmp_path, writes=True, shown=False), tiny()
    log.begin(config, CONTENT, SEEN)
    begun = read_run(tmp_path)
    assert load_config("joint", tmp_path / "config.yaml") == config
    assert (begun["patients"], begun["salts"]) == (["P-0"], ["0"])
    assert (begun["stage"], begun["finished"], begun["versions"]["ichseq"]) == ("joint", False, ichseq.__version__)
    log.end(12.34)
    assert read_run(tmp_path) == begun | {"finished": True, "seconds": 12.3}


def test_notes_stand_with_their_times_and_the_history_a_row_an_epoch(tmp_path: Path) -> None:
    log = RunLog(tmp_path, writes=True, shown=False)
    log.note("first")
    log.log("second")
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert [re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", "", line) for line in lines] == ["first", "second"]
    history = [{"epoch": 1, "valid_loss": None}, {"epoch": 2, "valid_loss": 0.25}]
    log.write_history(history)
    assert pd.read_csv(tmp_path / "history.csv")["valid_loss"].isna().tolist() == [True, False]
    assert {path.name for path in tmp_path.iterdir()} == {"log.txt", "history.csv"}


def test_another_process_writes_nothing(tmp_path: Path) -> None:
    log = RunLog(tmp_path, writes=False, shown=True)
    log.begin(tiny(), CONTENT, SEEN)
    log.note("a line")
    log.write_history([{"epoch": 1}])
    log.end(1.0)
    assert not list(tmp_path.iterdir())


def test_what_was_begun_is_taken_back_and_other_files_stay(tmp_path: Path) -> None:
    leaf = tmp_path / "run" / "joint" / "fold0"
    for other in (None, "mine.txt"):
        (leaf / "last" / "step-00000000").mkdir(parents=True)
        log = RunLog(leaf, writes=True, shown=False)
        log.begin(tiny(), CONTENT, SEEN)
        log.log("a line")
        if other is not None:
            (leaf / other).touch()
        log.clear()
        assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ([other] if other else [])
    assert leaf.is_dir()
