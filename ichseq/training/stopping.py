"""SIGTERM and Ctrl-C: the first one asks, the second leaves at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class StopRequest:
    """What was asked for: code is 0, or the exit code 143 (SIGTERM) or 130 (Ctrl-C)."""

    code = 0


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """While inside, the first SIGTERM or Ctrl-C only sets the request's code; a second leaves at once."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}

    def ask(number: int, _frame: object) -> None:
        request.code = 128 + number
        for other in numbers:
            signal.signal(other, signal.SIG_DFL)

    for number in numbers:
        signal.signal(number, ask)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
