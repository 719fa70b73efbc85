"""The group of commands: what an error, Ctrl-C and SIGTERM do while one runs, and its progress bars."""

import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from ichseq import api
from ichseq.errors import IchseqError, Stopped

_AFTER_A_STOP = {
    "prepare": "stopped; what was read is kept: run the same command again to go on",
    "demo": "stopped; its folder is not finished: remove it before another try",
    "evaluate": "stopped; what was scored until then is written, the rest is not: run the same command again",
    "predict": "stopped; the tables are not written, or not both, or not the report: run the same command again",
}

_NOTHING_WRITTEN = "stopped; nothing was written"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """What Ctrl-C and SIGTERM do while a command runs; the second one leaves at once. `train` has its own."""

    working = False  # set by the first progress bar
    received = 0  # the number of the one that came

    def __enter__(self) -> "Signals":
        Signals.working, Signals.received = False, 0
        self.before = {}
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._stop) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    @staticmethod
    def _stop(number: int, _frame: object) -> None:
        for other in _SIGNALS:
            signal.signal(other, signal.SIG_DFL)
        if not Signals.working:
            # Modules are being imported, perhaps, and some of them take an exception for something else.
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"{_NOTHING_WRITTEN}\n".encode())
            os._exit(128 + number)
        Signals.received = number
        raise KeyboardInterrupt  # where the program stands, so that what was begun is taken back


def _in_utf8() -> None:
    """Start again in Python's UTF-8 mode where the locale knows ASCII alone.

    Libraries that read and write files by name take no name then that has other letters.
    """
    if sys.getfilesystemencoding() == "ascii" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"  # for workers too
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


class Group(click.Group):
    """Prints the message of an expected error on one line; --debug shows where it came from."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        _in_utf8()
        return super().main(*args, **kwargs)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the road, in which they were added."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # a file's name may have letters that the locale has not
                stream.reconfigure(errors="backslashreplace")
        try:
            with Signals():
                return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Stopped as stopped:
            click.echo(str(stopped), err=True)
            ctx.exit(stopped.exit_code)
        except (KeyboardInterrupt, Exception) as error:
            stopped_by = Signals.received or (signal.SIGINT if isinstance(error, KeyboardInterrupt) else 0)
            if ctx.params.get("debug") and not isinstance(error, KeyboardInterrupt):
                traceback.print_exc()
            if stopped_by:  # an error too may be what native code made of the interruption
                click.echo(_AFTER_A_STOP.get(str(ctx.invoked_subcommand), _NOTHING_WRITTEN), err=True)
                ctx.exit(128 + stopped_by)
            if isinstance(error, IchseqError):
                click.echo(f"Error: {error}", err=True)
            else:
                known = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
                click.echo(f"Error: {known} (unexpected; `ichseq --debug ...` shows where, please report it)", err=True)
            ctx.exit(1)


@contextmanager
def progress_bar(name: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar; from here on a command is at work, and what it has begun is taken back when it is stopped."""
    Signals.working = True
    with api.progress_bar(name, unit) as move:
        yield move
