"""A series as a picture: windowed slices side by side, for notebooks. matplotlib and OpenCV come in when asked for.

No picture and no text here holds a name, an identifier or a file.
"""

import base64
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Final

import numpy as np

from ichseq.errors import ConfigError, ScanError
from ichseq.windows import WINDOWS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Read = Callable[[int, int], np.ndarray]
"""Reads slices start to stop of a series, in HU: int16 (stop - start, rows, columns)."""

_TILES: Final = 8  # slices in the picture of a notebook
_SIDE: Final = 128  # pixels of each there


def spread(length: int, most: int) -> list[int]:
    """Numbers of at most so many slices of a series, evenly spaced, with the first and the last."""
    return sorted({round(place) for place in np.linspace(0, length - 1, min(length, most))})


def grey(hu: np.ndarray, window: str) -> np.ndarray:
    """Hounsfield units as float32 from 0 to 1 in a window of `ichseq.windows.WINDOWS`.

    Raises:
        ConfigError: there is no such window.
    """
    if window not in WINDOWS:
        raise ConfigError(f"window {window!r} does not exist; choose one of {', '.join(WINDOWS)}")
    centre, width = WINDOWS[window]
    scaled: np.ndarray = np.clip((hu.astype(np.float32) - (centre - width / 2)) / width, 0, 1)
    return scaled


def describe(shape: tuple[int, int, int], spacing_mm: tuple[float, float], positions_mm: np.ndarray) -> str:
    """Size and spacing of a series in words; what the header does not say is left out."""
    slices, rows, columns = shape
    words = [f"{slices} slice{'s' if slices > 1 else ''} of {rows} x {columns} pixels"]
    if np.isfinite(spacing_mm).all():
        words.append(f"{spacing_mm[0]:.3g} x {spacing_mm[1]:.3g} mm each")
    steps = np.diff(positions_mm)
    if len(steps) and np.isfinite(steps).all():
        low, high = f"{steps.min():.3g}", f"{steps.max():.3g}"
        words.append(f"{low} mm apart" if low == high else f"{low} to {high} mm apart")
    return ", ".join(words)


def series_html(read: Read, length: int, heading: str, notes: Sequence[str]) -> str:
    """HTML with a few slices in the brain window as one inline PNG, and what is to be said of the series.

    Args:
        read: the series.
        length: its slices.
        heading: first line.
        notes: further lines.
    """
    lines = [f"<b>{escape(heading)}</b>", *map(escape, notes)]
    try:
        picture = _strip(read, length)
    except ScanError:  # shown all the same; whoever asks for the pixels is told which slice it is
        lines.append("a slice can't be read: no picture")
        return f"<div>{'<br>'.join(lines)}</div>"
    shown = base64.b64encode(picture).decode()
    lines.append(f'<img alt="slices from feet to head, brain window" src="data:image/png;base64,{shown}">')
    return f"<div>{'<br>'.join(lines)}</div>"


def _strip(read: Read, length: int) -> bytes:
    """PNG of evenly spaced slices in the brain window, side by side, each fitted into a square."""
    import cv2

    numbers = spread(length, _TILES)
    strip = np.zeros((_SIDE, _SIDE * len(numbers)), np.uint8)
    for k, number in enumerate(numbers):
        (hu,) = read(number, number + 1)
        scale = _SIDE / max(hu.shape)
        rows, columns = (max(1, round(side * scale)) for side in hu.shape)
        small = cv2.resize(grey(hu, "brain"), (columns, rows), interpolation=cv2.INTER_AREA)
        top, left = (_SIDE - rows) // 2, k * _SIDE + (_SIDE - columns) // 2
        strip[top : top + rows, left : left + columns] = np.rint(255 * small)
    return cv2.imencode(".png", strip)[1].tobytes()


def series_figure(read: Read, length: int, window: str, slices: int, title: str) -> "Figure":
    """A matplotlib figure of evenly spaced slices, numbered from 1, feet to head.

    It belongs to no window and no pyplot: a notebook shows it, and `savefig` writes it.

    Raises:
        ConfigError: there is no such window, or fewer than one slice is asked for.
        SliceError: a slice can't be read.
    """
    from ichseq.ct.figure import NotebookFigure

    if slices < 1:
        raise ConfigError(f"{slices} slices can't be shown; ask for 1 or more")
    numbers = spread(length, slices)
    pictures = [grey(read(number, number + 1)[0], window) for number in numbers]
    columns = min(6, len(numbers))
    rows = -(-len(numbers) // columns)
    figure = NotebookFigure(figsize=(2.2 * columns, 2.3 * rows + 0.4), layout="constrained", facecolor="black")
    figure.suptitle(f"{title}, {window.replace('_', ' ')} window", color="white", fontsize=10)
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.set_axis_off()
    for axes, number, picture in zip(figure.axes, numbers, pictures, strict=False):
        axes.imshow(picture, cmap="gray", vmin=0, vmax=1)
        axes.set_title(str(number + 1), color="white", fontsize=9)
    return figure
