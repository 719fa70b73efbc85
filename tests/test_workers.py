"""Worker processes that die: an error that names what they were at, and no word of it elsewhere."""

import os
import signal
from pathlib import Path

import joblib
import pytest

from ichseq.errors import DataError
from ichseq.workers import deaths_explained, note


def work(number: int, notes: Path) -> int:
    note(notes, f"scan-{number}.dcm")
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)  # as a decoder that crashes, or the kernel where memory is short
    note(notes, "")
    return number


def test_a_killed_worker_is_an_error_that_names_the_file_and_what_to_do() -> None:
    with pytest.raises(DataError, match=r"a worker process ended .* while at work on .*scan-3\.dcm.*; run it again$"):  # noqa: SIM117
        with deaths_explained("run it again") as notes:
            joblib.Parallel(n_jobs=2)(joblib.delayed(work)(number, notes) for number in range(8))
    assert not notes.exists()
    with deaths_explained("run it again") as notes:
        assert joblib.Parallel(n_jobs=2)(joblib.delayed(work)(number, notes) for number in (0, 1, 2)) == [0, 1, 2]


def test_other_errors_pass_and_what_is_done_is_not_named(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), deaths_explained("run it again"):
        raise ZeroDivisionError
    note(tmp_path, "a long name of a file.dcm")
    note(tmp_path, "b.dcm")
    assert (tmp_path / str(os.getpid())).read_text().splitlines()[0] == "b.dcm"
    note(tmp_path / "on another machine", "c.dcm")  # where the folder isn't: no error
