"""Files that last, and folders that one process holds."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where two runs are not told apart
    fcntl = None  # type: ignore[assignment]


def flush(path: Path) -> None:
    """Make a file, or the names in a folder, last through a power cut; some systems let no folder be flushed.

    Raises:
        OSError: a file can't be written out.
    """
    with suppress(OSError) if path.is_dir() else nullcontext():
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a text file beside and rename it into place: it appears whole, or what was there before stays.

    Raises:
        OSError: it can't be written.
    """
    beside = path.with_name(path.name + ".part")
    try:
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)
    except BaseException:  # Ctrl-C too
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


@contextmanager
def held(folder: Path, give_up: Callable[[], bool]) -> Iterator[None]:
    """Hold a folder; whoever holds it already is waited for. A process that is killed lets go of it.

    Args:
        folder: made if need be.
        give_up: asked twice a second while it waits.

    Raises:
        InterruptedError: given up.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        while fcntl is not None:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if give_up():
                    raise InterruptedError from None
                time.sleep(0.5)
            except OSError:  # a file system without locks: better no lock than no work
                break
        yield
    finally:
        os.close(handle)
