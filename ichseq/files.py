"""Files and folders that appear whole, and locks between processes."""

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Final

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    import pyarrow as pa

PART: Final = ".part"
"""Ends the name of what is being written; a process that is killed may leave it behind."""

_NO_LOCKS: Final = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
_ASK_EVERY: Final = 0.5  # seconds


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


@contextmanager
def replacing(path: Path, *, several_writers: bool = False) -> Iterator[Path]:
    """Write a file or a folder so that it appears whole, or what was there before stays.

        with replacing(path) as beside:
            beside.write_bytes(content)

    What the block has made is flushed to disk and renamed into place. If anything is raised, Ctrl-C too, it is removed.

    Args:
        path: the file or folder to make; its parent is there.
        several_writers: whether others may write the same path at the same time. The file beside then has a name of
            its own each time; else always the same one, so that what a killed process left is written over.

    Yields:
        A path in the same folder where nothing stands. The block makes a file or a folder there.

    Raises:
        OSError: it can't be written.
    """
    own = f".{token_hex(4)}" if several_writers else ""
    beside = path.with_name(f".{path.name}{own}{PART}")
    try:
        _remove(beside)
        yield beside
        for one in [*beside.rglob("*"), beside] if beside.is_dir() else [beside]:
            flush(one)
        if beside.is_dir() and path.is_dir():
            shutil.rmtree(path)  # a folder is renamed onto an empty one at most
        os.replace(beside, path)
        flush(path.parent)
    except BaseException:
        with suppress(OSError):
            _remove(beside)
        raise


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def is_taken(folder: Path) -> bool:
    """Whether there is something already where a new folder is to be: a file, or a folder that is not empty."""
    return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))


def write_text(path: Path, text: str) -> None:
    """Write a text file, UTF-8, as `replacing` does.

    Raises:
        OSError: it can't be written.
    """
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


@contextmanager
def locked(path: Path, give_up: Callable[[], bool]) -> Iterator[None]:
    """Hold a lock that one process, and in it one thread, has at a time; a process that is killed lets go of it.

    Args:
        path: the lock's file; it is made, with its folder, and may stay.
        give_up: asked twice a second while another one has the lock.

    Raises:
        InterruptedError: given up.
        OSError: the file can't be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    while True:
        try:
            lock.acquire(blocking=False)
            break
        except Timeout:
            if give_up():
                raise InterruptedError from None
            time.sleep(_ASK_EVERY)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            break  # a file system without locks: better no lock than no work
    try:
        yield
    finally:
        lock.release()


def read_parquet(content: bytes) -> "pa.Table":
    """The table in the bytes of a Parquet file, its pages' checksums compared, read without Arrow's threads.

    A process that ends while one of those is at work is aborted (apache/arrow issue 34314).

    Raises:
        OSError, pyarrow.ArrowException: these are not the bytes of a Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
    return file.read(use_threads=False)
