"""The folder of a report: what may be written where, and what of a report may be replaced."""

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from ichseq.errors import DataError

MARK: Final = "report.json"
"""Says that a folder is a report of ichseq's, and what wrote it."""

INDEX: Final = "index.html"
CARD: Final = "network.html"

_OURS: Final = re.compile(
    rf"{MARK}|{INDEX}|{CARD}|assets|assets/[\w.-]+|exams|exams/\d{{4,}}(\.html|/[skh]\d{{4,}}\.webp)?"
)
_ELSEWHERE: Final = "choose another folder with --report (`ichseq report`: -o)"


def check_folder(out: Path, table: str | Path | None = None) -> None:
    """Find out whether a report can be written there.

    A report is replaced as a whole, so a folder may hold nothing, or a report and nothing else.

    Args:
        out: the report's folder; it need not be there.
        table: a file that is to outlive the report.

    Raises:
        DataError: it can't, or what is in the folder is no report's.
    """
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise DataError(f"{out}: is there already, and is no folder; {_ELSEWHERE}")
    if table is not None and out.resolve() in Path(table).resolve().parents:
        raise DataError(f"{table}: lies in the report's folder {out}, which is replaced as a whole; {_ELSEWHERE}")
    try:
        others = [path for path in out.rglob("*") if not _OURS.fullmatch(path.relative_to(out).as_posix())]
        if others:
            raise DataError(f"{out}: holds {others[0].relative_to(out)}, which no report writes; move that away, or "
                            f"{_ELSEWHERE}")  # fmt: skip
        if any(out.glob("*")) and not (out / MARK).is_file():
            raise DataError(f"{out}: is there already and is no report ({MARK} is missing); remove it, or {_ELSEWHERE}")
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=out.parent):
            pass
    except OSError as error:
        raise DataError(f"{out}: can't be written ({error.strerror}); {_ELSEWHERE}") from None
