"""A process that tries hostile cases one after the other, and what is noted of each: how it ended, memory, writing."""

import os
import random
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import psutil

from ichseq.errors import IchseqError

REFUSED, TAKEN, SILENT, UNTYPED = "refused", "taken", "silent", "untyped"
HANG, DEAD, OUTSIDE, MEMORY = "hang", "dead", "outside", "memory"
"""How a case ends; what is a fault, from SILENT on, is counted."""

MOST_BYTES = 1 << 30
_KILLED_AT = 4 << 30  # of a child, so that the machine goes on
_CREATES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CHANGES = {"os.remove": 1, "os.rename": 2, "os.rmdir": 1, "os.mkdir": 1, "os.link": 2, "os.symlink": 2,
            "os.truncate": 1, "os.chmod": 1, "shutil.rmtree": 1}  # fmt: skip


class Fault(Exception):
    """A case has a fault of this kind, in words."""

    def __init__(self, how: str, what: str) -> None:
        super().__init__(how, what)
        self.how, self.what = how, what


class Trial(Protocol):
    """The cases of a kind: made anew in each child from what `make` put into a folder.

    Attributes:
        ground: names that folder; kinds that start from the same share it.
    """

    ground: str

    @staticmethod
    def make(work: Path, seed: int) -> None:
        """Make what all cases start from."""

    def __init__(self, work: Path, seed: int) -> None: ...

    def __call__(self, number: int) -> str:
        """Try a case: REFUSED, TAKEN or SILENT; raises IchseqError for REFUSED too, or Fault."""


@dataclass(frozen=True)
class Ended:
    """How a case ended.

    Attributes:
        how: one of the words above.
        what: for a fault, in words.
        peak: bytes that the child took at most until then, less what it took before its first case.
    """

    how: str
    what: str = ""
    peak: int = 0


@dataclass
class _Watch:
    """What Python was asked to change on disk while a case was at work, outside the folders that it may write to."""

    allowed: list[Path] | None = None
    seen: list[str] = field(default_factory=list)


_watch = _Watch()


@contextmanager
def writing_only(*folders: Path) -> Iterator[None]:
    """Within it, whatever is written, removed or asked of a network outside these folders is noted."""
    _watch.allowed = [folder.resolve() for folder in (*folders, Path(tempfile.gettempdir()))]
    try:
        yield
    finally:
        _watch.allowed = None


def _audit(event: str, args: tuple[Any, ...]) -> None:
    allowed = _watch.allowed
    if allowed is None:
        return
    if event == "socket.connect" and isinstance(args[1], tuple):  # and no path of this machine
        _watch.seen.append(f"a connection to {args[1]}")
    elif (event == "open" and isinstance(args[2], int) and args[2] & _CREATES) or event in _CHANGES:
        for name in args[: _CHANGES.get(event, 1)]:
            if isinstance(name, str | bytes | os.PathLike):
                _judge(event, Path(os.fsdecode(name)), args, allowed)


def _judge(event: str, path: Path, args: tuple[Any, ...], allowed: list[Path]) -> None:
    folder = args[-1] if event != "open" and isinstance(args[-1], int) and args[-1] >= 0 else None
    if folder is not None and not path.is_absolute():
        with suppress(OSError):
            path = Path(os.readlink(f"/proc/self/fd/{folder}")) / path
    # The last part may be a link that is removed or renamed itself; what it leads to is then not touched.
    place = path.resolve() if event == "open" else path.parent.resolve() / path.name
    if place != Path(os.devnull) and not any(place.is_relative_to(one) for one in allowed):
        _watch.seen.append(f"{event} {place}")


def rng_of(seed: int, kind: str, number: int) -> random.Random:
    """What a case draws from: a number of its own, whatever was tried before it."""
    return random.Random(f"{seed} {kind} {number}")


def trial_of(name: str) -> type[Trial]:
    """The class of "module:class"; imported by the process that needs it."""
    module, _, of = name.partition(":")
    found: type[Trial] = getattr(import_module(module), of)
    return found


def serve(trial: str, work: Path, seed: int, connection: Connection) -> None:
    """Try the cases whose numbers arrive, and answer with how each ended."""
    for stream in (1, 2):  # libraries in C print there
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    sys.dont_write_bytecode = True
    cases = trial_of(trial)(work, seed)
    sys.addaudithook(_audit)
    base = peak_of(os.getpid())
    connection.send(None)
    while (number := connection.recv()) is not None:
        connection.send(tried(cases, number, base))


def tried(cases: Callable[[int], str], number: int, base: int = 0, *, show: bool = False) -> Ended:
    """Try one case here; `show` prints where an error came from."""
    _watch.seen.clear()
    try:
        how, what = cases(number), ""
    except IchseqError as error:
        how, what = REFUSED, str(error)
    except Fault as fault:
        how, what = fault.how, fault.what
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        how, what = UNTYPED, f"{type(error).__name__}: {str(error)[:200]} ({Path(place.filename).name}:{place.lineno})"
        if show:
            traceback.print_exc()
    peak = peak_of(os.getpid()) - base + sum(map(peak_of, _below(os.getpid())))
    if _watch.seen:
        how, what = OUTSIDE, "; ".join(dict.fromkeys(_watch.seen))[:300]
    elif peak > MOST_BYTES and how in (REFUSED, TAKEN):
        how, what = MEMORY, f"{peak >> 20} MB"
    return Ended(how, what, peak)


def peak_of(process: int) -> int:
    """The most bytes of memory that a process has had; 0 where that isn't known."""
    try:
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    except OSError:
        pass
    return 0


def _below(process: int) -> list[int]:
    """The processes that one has started and that are alive."""
    found = []
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            found += [int(one) for one in path.read_text().split()]
    return found + [more for one in found for more in _below(one)]


class Child:
    """A child for the cases of a kind, replaced when it dies, hangs or has grown.

    Args:
        trial: the kind's module and class.
        work: the kind's folder.
        seed: of the campaign.
        bound: seconds that a case may take.
    """

    def __init__(self, trial: str, work: Path, seed: int, bound: float) -> None:
        self._arguments, self._bound = (trial, work, seed), bound
        self._process: Any = None

    def start(self) -> None:
        """Start it, if it is not there."""
        if self._process is None:
            context = get_context("spawn")
            self._connection, theirs = context.Pipe()
            self._process = context.Process(target=serve, args=(*self._arguments, theirs))
            self._process.start()
            theirs.close()
            if not self._connection.poll(120):
                raise SystemExit("a child did not begin within two minutes")
            self._connection.recv()

    def case(self, number: int) -> Ended:
        """Try one case."""
        self.start()
        process = psutil.Process(self._process.pid)
        self._connection.send(number)
        left = self._bound
        while not self._connection.poll(min(0.25, left)):
            left -= 0.25
            large = process.is_running() and process.memory_info().rss > _KILLED_AT
            if left <= 0 or large:
                self.stop(kill=True)
                return Ended(MEMORY, f"killed at {_KILLED_AT >> 30} GB") if large else Ended(
                    HANG, f"more than {self._bound:.0f} s")  # fmt: skip
        try:
            ended: Ended = self._connection.recv()
        except EOFError:
            self._process.join()
            code = self._process.exitcode
            self.stop(kill=True)
            return Ended(DEAD, f"ended with {code}")
        if ended.how == MEMORY:
            self.stop()
        return ended

    def stop(self, *, kill: bool = False) -> None:
        """End it."""
        if self._process is not None:
            if kill:
                with suppress(psutil.Error):
                    for one in psutil.Process(self._process.pid).children(recursive=True):
                        one.kill()
                self._process.kill()
            else:
                self._connection.send(None)
            self._process.join()
            self._connection.close()
            self._process = None
