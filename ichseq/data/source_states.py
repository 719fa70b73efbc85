"""From which state of its source files each file of the store was made, so that a later change of them is noticed.

Sizes and times of files are compared for equality with what they were, never with a clock: that of the machine that
wrote the store may be ahead. A worker adds a line for each file of the store that it writes, so that a run that is
killed is taken up; when a set is finished, the list is written anew. What is not listed, or cut short, is read again.
"""

import hashlib
import os
import struct
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np

from ichseq.ct.archive import FileList
from ichseq.data.owned import SOURCES, is_place
from ichseq.data.store import write_whole
from ichseq.errors import DataError, ScanError

_STATE: Final = struct.Struct("<qqq")


def state_of(files: FileList) -> str:
    """Hash of sizes and times of some files, whatever their order; of members of an archive, the archive's.

    Empty where one is gone: it is no state that anything was made from.
    """
    try:
        status = [os.stat(path) for path in files.archive_paths()]
        status += [files.status(int(i)) for i in np.flatnonzero(files.archive < 0)]
    except (OSError, ScanError):  # reading it again will say so
        return ""
    states = sorted(_STATE.pack(one.st_size, one.st_mtime_ns, one.st_ctime_ns) for one in status)
    return hashlib.sha256(b"".join(states)).hexdigest()[:16]


def add_state(out: Path, place: str, state: str) -> None:
    """Note from which state of its sources a file of the store is made.

    Raises:
        DataError: the list can't be written.
    """
    try:
        with open(out / SOURCES, "a", encoding="ascii") as file:
            file.write(f"\n{place} {state}")  # a line that was cut short ends before the next
    except OSError as error:
        raise DataError(
            f"{out / SOURCES}: cannot be written ({error.strerror}); check the disk's space and permissions"
        ) from error


def states_there(out: Path) -> dict[str, str]:
    """The state of the sources of each file of the store that is listed; the last line about one counts."""
    with suppress(OSError):
        pairs = [line.split(" ") for line in (out / SOURCES).read_text("ascii", errors="replace").splitlines()]
        return {pair[0]: pair[1] for pair in pairs if len(pair) == 2 and is_place(pair[0]) and pair[1]}
    return {}


def keep_states(out: Path, used: Collection[str]) -> None:
    """Write the list anew with the files of the store that the set uses; raises as `write_whole`."""
    known = states_there(out)
    lines = [f"{place} {known[place]}\n" for place in sorted(used) if place in known]
    write_whole(out / SOURCES, "".join(lines).encode())
