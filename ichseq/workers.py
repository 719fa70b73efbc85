"""Worker processes: they end with their parent, and one that dies is an error that says what it was at."""

import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from ichseq.errors import DataError

_LOOK_EVERY: Final = 1.0  # seconds
_SHOWN: Final = 4  # files that are named


def end_with(parent: int) -> None:
    """In a child process of `parent`: end when it does, even if it is killed and cannot stop its workers.

    A joblib worker whose parent is gone may else wait for work for ever, and keep its memory and terminal. Does nothing
    in the parent itself, nor in a worker that something else has started.
    """
    started_by = multiprocessing.parent_process()
    if started_by is not None and started_by.pid == parent and parent not in _watched:
        if os.getppid() != parent:  # it was killed before the worker came to its first task
            os._exit(1)
        _watched.add(parent)
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def from_the_start() -> dict[str, Any]:
    """Keywords of `joblib.Parallel` with which its workers call `end_with` before they wait for their first task."""
    return {"initializer": end_with, "initargs": (os.getpid(),)}


_watched: set[int] = set()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_EVERY)
    os._exit(1)


@contextmanager
def deaths_explained(remedy: str) -> Iterator[Path]:
    """Within it, a worker that is killed, or killed by what it reads, is an error that names what it was at.

        with deaths_explained("run it again") as notes:
            parallel(delayed(work)(item, notes) for item in items)

    Args:
        remedy: what to do.

    Yields:
        A folder for `note`; workers on other machines may not see it, and are then not asked.

    Raises:
        DataError: one died.
    """
    with tempfile.TemporaryDirectory(prefix="ichseq-", ignore_cleanup_errors=True) as place:
        notes = Path(place)
        try:
            yield notes
        except BrokenExecutor:
            raise _death(notes, remedy) from None
        except Exception as error:
            if type(error).__name__ != "KilledWorker":  # Dask's, which need not be installed
                raise
            raise _death(notes, remedy) from None


def note(notes: Path, what: str) -> None:
    """Note what this process is at; "" for nothing."""
    with suppress(OSError):
        key = (os.getpid(), notes)
        if key not in _open:
            for other in [other for other in _open if other[1] != notes]:
                os.close(_open.pop(other))
            _open[key] = os.open(notes / str(os.getpid()), os.O_WRONLY | os.O_CREAT, 0o600)
        os.pwrite(_open[key], f"{what}\n".encode(errors="backslashreplace"), 0)


_open: dict[tuple[int, Path], int] = {}


def _death(notes: Path, remedy: str) -> DataError:
    found = []
    for path in sorted(notes.iterdir()):
        with suppress(OSError):
            found.append(path.read_text(encoding="utf-8", errors="replace").partition("\n")[0])
    at = [what for what in found if what]
    where = f" while at work on {' or '.join(at[:_SHOWN])}" if at else ""
    return DataError(
        f"a worker process ended before its work was done{where} (killed, out of memory, or by a file that its decoder "
        f"can't bear); {remedy}"
    )
