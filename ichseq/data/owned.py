"""Which files of a prepared folder are this program's, and may be removed: by their names, and by who wrote them.

A folder may hold what somebody else put there, and a link may lead into another set. So a file of the store goes only
if its name is one that this program gives, and if this set had it: an index named it, or a run has put it there, which
it notes in a list while it is at work. Nothing behind a link is touched.
"""

import os
import re
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from ichseq.errors import DataError
from ichseq.files import PART
from ichseq.pseudonyms import SALT

STORE: Final = "store"
INDEX: Final = "index.json"
SERIES: Final = "series.parquet"
SLICES: Final = "slices.parquet"
EXAMS: Final = "exams.parquet"
LEFT_OUT: Final = "left_out.csv"
SOURCES: Final = ".sources"
"""Lists from which state of the source files each file of the store was made (ichseq.data.source_states)."""
LEDGER: Final = ".store-files"
"""Lists the files of the store that were this set's, while a run is at work."""

_WHOLE: Final = (INDEX, SERIES, SLICES, EXAMS, LEFT_OUT, SOURCES, SALT)
_FILE: Final = r"[0-9a-f]{40}-[0-9a-f]{16}\.b2nd"
_PLACE: Final = re.compile(rf"{STORE}/([0-9a-f]{{2}})/\1[0-9a-f]{{38}}-[0-9a-f]{{16}}\.b2nd")
_BESIDE: Final = rf"\.[0-9a-f]{{8}}{re.escape(PART)}"  # as `files.replacing` ends it for several writers
_HALF_FILE: Final = re.compile(rf"\.{_FILE}{_BESIDE}")
_HALF_TABLE: Final = re.compile(rf"\.({'|'.join(map(re.escape, _WHOLE))}){_BESIDE}")


def place_of(name: str, digest: str) -> str:
    """Path of a series' file below the prepared folder.

    Args:
        name: 40 hexadecimal digits that follow from the headers.
        digest: 16 that follow from what the file holds.
    """
    return f"{STORE}/{name[:2]}/{name}-{digest}.b2nd"


def is_place(text: str) -> bool:
    """Whether a text is a path that `place_of` gives, and so stays inside the store."""
    return _PLACE.fullmatch(text) is not None


def is_half_written(name: str) -> bool:
    """Whether a name in the prepared folder is that of a table that was being written."""
    return _HALF_TABLE.fullmatch(name) is not None


def refuse_links(out: Path) -> None:
    """See that the store lies in the prepared folder itself.

    Raises:
        DataError: it is a link, or one of its folders is; writing and removing there would change another folder.
    """
    for folder in (out / STORE, *_folders(out / STORE)):
        if folder.is_symlink():
            raise DataError(
                f"{folder}: is a link, and preparing would change what lies behind it; put the store itself there, or "
                "prepare into another folder (which may be a link as a whole)"
            )


def _folders(store: Path) -> list[Path]:
    """What stands in the store under a name that this program gives to its folders."""
    with suppress(OSError):
        return [store / name for name in sorted(os.listdir(store)) if re.fullmatch("[0-9a-f]{2}", name)]
    return []


class Owned:
    """The files of the store that are this set's, whatever its index names now; a killed run's too.

    Args:
        out: the prepared folder, of which this process has the lock.
    """

    def __init__(self, out: Path) -> None:
        self._out, self._noted = out, set[str]()
        with suppress(OSError):
            lines = (out / LEDGER).read_text(encoding="ascii", errors="replace").splitlines()
            self._noted = {line for line in lines if is_place(line)}

    def add(self, places: Iterable[str]) -> None:
        """Note that some files are this set's.

        Raises:
            DataError: the list can't be written.
        """
        new = [place for place in dict.fromkeys(places) if place not in self._noted and is_place(place)]
        if not new:
            return
        try:
            with open(self._out / LEDGER, "a", encoding="ascii") as ledger:
                ledger.writelines(f"\n{place}" for place in new)  # a line that was cut short ends before the next
        except OSError as error:
            raise DataError(
                f"{self._out / LEDGER}: cannot be written ({error.strerror}); check the disk's space and permissions"
            ) from error
        self._noted.update(new)

    def keep_only(self, used: Collection[str]) -> None:
        """Remove the files that are this set's and not used, and the list, since the index now says which there are."""
        for place in sorted(self._noted - set(used)):
            path = self._out / place
            _remove(path, path.parent, path.parent.parent)
        for folder in _folders(self._out / STORE):
            if not folder.is_symlink():
                with suppress(OSError):  # not empty, as a rule
                    folder.rmdir()
        with suppress(OSError):
            (self._out / LEDGER).unlink(missing_ok=True)
        self._noted.clear()


def sweep(out: Path) -> None:
    """Remove what runs that were killed left half written, by the names that such files have."""
    with suppress(OSError):
        for name in os.listdir(out):
            if is_half_written(name):
                _remove(out / name)
    for folder in _folders(out / STORE):
        with suppress(OSError):
            for name in os.listdir(folder):
                if _HALF_FILE.fullmatch(name):
                    _remove(folder / name, folder, folder.parent)


def _remove(path: Path, *behind: Path) -> None:
    """Remove a file, unless it is a link, or one of the folders that it lies in is."""
    if path.is_file() and not any(one.is_symlink() for one in (path, *behind)):
        with suppress(OSError):
            path.unlink()
