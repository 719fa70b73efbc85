"""What is written appears whole or not at all; a lock keeps the second one out until the first has let go."""

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

from ichseq.files import locked, replacing, write_text


def a_file(beside: Path, content: str) -> None:
    beside.write_text(content)


def a_folder(beside: Path, content: str) -> None:
    (beside / "below").mkdir(parents=True)
    (beside / "below" / "file").write_text(content)


def content(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("make", [a_file, a_folder])
@pytest.mark.parametrize("several", [False, True])
def test_it_appears_at_the_end_and_takes_the_place_of_what_was_there(
    tmp_path: Path, make: Callable[[Path, str], None], several: bool
) -> None:
    path = tmp_path / "a"
    for text in ("first", "second"):
        before = content(tmp_path)
        with replacing(path, several_writers=several) as beside:
            make(beside, text)
            assert {name: text for name, text in content(tmp_path).items() if name.split("/")[0] == "a"} == before
        assert list(content(tmp_path).values()) == [text]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("make", [a_file, a_folder])
@pytest.mark.parametrize("raised", [OSError, KeyboardInterrupt, SystemExit])
def test_what_is_raised_leaves_what_was_there_and_nothing_else(
    tmp_path: Path, make: Callable[[Path, str], None], raised: type[BaseException]
) -> None:
    with replacing(tmp_path / "a") as beside:
        make(beside, "earlier")
    before = content(tmp_path)

    def interrupted() -> None:
        with replacing(tmp_path / "a") as beside:
            make(beside, "later")
            raise raised

    with pytest.raises(raised):
        interrupted()
    assert content(tmp_path) == before
    assert len(list(tmp_path.iterdir())) == 1


def test_two_files_of_one_block_come_together(tmp_path: Path) -> None:
    for name in "ab":
        write_text(tmp_path / name, "earlier")

    def half_done() -> None:
        with replacing(tmp_path / "a") as a, replacing(tmp_path / "b") as b:
            a.write_text("later")
            b.write_text("later")
            raise ValueError

    with pytest.raises(ValueError):
        half_done()
    assert content(tmp_path) == {"a": "earlier", "b": "earlier"}


def test_a_full_disk_leaves_the_earlier_file(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "earlier")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)  # as a full disk: a write that stops half way
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError):
            write_text(tmp_path / "a", "x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert content(tmp_path) == {"a": "earlier"}


def test_what_a_killed_process_left_is_written_over(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from ichseq.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as beside:\n"
        "    beside.write_text('half'); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path / "a")])
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    write_text(tmp_path / "a", "whole")
    assert content(tmp_path) == {"a": "whole"}


def test_writers_of_one_path_do_not_disturb_each_other(tmp_path: Path) -> None:
    def write(k: int) -> None:
        with replacing(tmp_path / "a", several_writers=True) as beside:
            beside.write_text(str(k) * 10_000)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, [k % 8 for k in range(64)]))
    [text] = content(tmp_path).values()
    assert text in {str(k) * 10_000 for k in range(8)}


def hold(path: Path, ready: Path) -> None:
    with locked(path, lambda: True):
        ready.touch()
        time.sleep(60)


def test_a_lock_is_waited_for_until_the_process_that_has_it_is_killed(tmp_path: Path) -> None:
    path, ready = tmp_path / "below" / ".lock", tmp_path / "ready"
    other = multiprocessing.get_context("spawn").Process(target=hold, args=(path, ready))
    other.start()
    while not ready.exists():
        assert other.is_alive()
        time.sleep(0.01)
    with pytest.raises(InterruptedError), locked(path, lambda: True):
        pass
    asked = []

    def kill_at_the_second_question() -> bool:
        asked.append(None)
        if len(asked) == 2:
            os.kill(other.pid or 0, signal.SIGKILL)
        return False

    with locked(path, kill_at_the_second_question):
        assert len(asked) >= 2
    other.join()
    with locked(path, lambda: True):  # let go at the end of the block
        pass


def test_a_lock_is_let_go_when_the_block_raises(tmp_path: Path) -> None:
    with pytest.raises(ValueError), locked(tmp_path / ".lock", lambda: True):
        raise ValueError
    again = locked(tmp_path / ".lock", lambda: True)
    with ThreadPoolExecutor(1) as thread, locked(tmp_path / ".lock", lambda: True):
        other = thread.submit(again.__enter__)  # another thread of the process is kept out too
        assert isinstance(other.exception(10), InterruptedError)


def test_a_lock_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError), locked(tmp_path / "file" / ".lock", lambda: True):
        pass


def test_a_parquet_file_is_read_without_threads(tmp_path: Path) -> None:
    pd.DataFrame({"number": range(1000), "text": ["x"] * 1000}).to_parquet(tmp_path / "table.parquet")
    code = """
import os, sys
from pathlib import Path
import pyarrow as pa, pyarrow.parquet
pa.array([1]).sum()  # Arrow's memory pool has a thread of its own, which waits
from ichseq.files import read_parquet
before = len(os.listdir("/proc/self/task"))
table = read_parquet(Path(sys.argv[1]).read_bytes())
print(table.num_rows, len(os.listdir("/proc/self/task")) - before)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "table.parquet")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == ["1000", "0"]
