"""Worker processes that die: an error that names what they were at, and no word of it elsewhere."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import joblib
import psutil
import pytest

from ichseq.errors import DataError
from ichseq.workers import deaths_explained, end_with, from_the_start, note


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


def stay(parent: int) -> None:
    end_with(parent)
    time.sleep(120)


def be_killed_at_once() -> None:
    """What the process of the next test does: it is killed while its workers import, before they have any work."""
    from threading import Thread

    def watch() -> None:
        while len(found := psutil.Process().children()) < 3:  # two workers, and what tracks their resources
            time.sleep(0.01)
        print(*(child.pid for child in found), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

    Thread(target=watch).start()
    joblib.Parallel(n_jobs=2, **from_the_start())(joblib.delayed(stay)(os.getpid()) for _ in range(4))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no signals there")
def test_workers_whose_parent_was_killed_before_their_first_task_end_too() -> None:
    run = subprocess.run(
        [sys.executable, "-c", "from test_workers import be_killed_at_once; be_killed_at_once()"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert run.returncode == -signal.SIGKILL
    left = [int(pid) for pid in run.stdout.splitlines()[0].split()]  # a worker may print its own end below
    assert len(left) >= 3
    end = time.monotonic() + 60
    while any(psutil.pid_exists(pid) for pid in left) and time.monotonic() < end:
        time.sleep(0.2)
    alive = [pid for pid in left if psutil.pid_exists(pid)]
    for pid in alive:
        psutil.Process(pid).kill()
    assert not alive
