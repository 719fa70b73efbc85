"""Progress bars of the functions in this folder."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Bar = Callable[[str, str], AbstractContextManager[Callable[[int, int], None]]]
"""Makes a progress bar of a name and a unit; it is moved by calls of (done, total)."""


@contextmanager
def progress_bar(name: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error, moved by calls of (done, total)."""
    from tqdm import tqdm

    with tqdm(desc=name, unit=f" {unit}", file=sys.stderr) as bar:

        def move(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield move


@contextmanager
def no_bar(name: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Shows nothing."""
    yield lambda done, total: None


def bar_of(progress: bool | Bar) -> Bar:
    """What shows the progress: the bar above, none, or the caller's own."""
    return progress if callable(progress) else progress_bar if progress else no_bar
