"""A series as a picture: windowed slices side by side, for notebooks. matplotlib and OpenCV come in when asked for.

No picture and no text here holds a name, an identifier or a file.
"""

import base64
from typing import TYPE_CHECKING, Final

import numpy as np

from ichseq.errors import ConfigError, ScanError, counted
from ichseq.windows import WINDOWS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ichseq.ct.series import Series

_TILES: Final = 8  # slices in the picture of a notebook
_SIDE: Final = 128  # pixels of each there


def spread(length: int, most: int) -> list[int]:
    """Numbers of at most so many slices of a series, evenly spaced from the first to the last; of one, the middle's."""
    if most == 1:
        return [length // 2]
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


def describe(series: "Series") -> str:
    """Size and spacing of a series in words; what the header does not say is left out."""
    slices, rows, columns = series.shape
    words = [f"{counted(slices, 'slice')} of {rows} x {columns} pixels"]
    if np.isfinite(series.spacing_mm).all():
        words.append(f"{series.spacing_mm[0]:.3g} x {series.spacing_mm[1]:.3g} mm each")
    steps = np.diff(series.positions_mm)
    if len(steps) and np.isfinite(steps).all():
        low, high = f"{steps.min():.3g}", f"{steps.max():.3g}"
        words.append(f"{low} mm apart" if low == high else f"{low} to {high} mm apart")
    return ", ".join(words)


def series_html(series: "Series") -> str:
    """What a notebook shows of a series: size, spacing, and a few slices in the brain window as one inline PNG."""
    lines = [f"<b>Series</b>: {describe(series)}"]
    if series.phantom:
        lines.append("a made-up scan (phantom)")
    try:
        shown = base64.b64encode(_strip(series)).decode()
        lines.append(f'<img style="max-width:100%" alt="slices from feet to head" src="data:image/png;base64,{shown}">')
    except ScanError:  # an access to the pixels names the slice
        lines.append("no picture: a slice can't be read")
    if series.warnings:
        lines.append(f"{counted(len(series.warnings), 'warning')}, see <code>.warnings</code>")
    return f"<div>{'<br>'.join(lines)}</div>"


def _strip(series: "Series") -> bytes:
    """PNG of evenly spaced slices in the brain window, side by side, each fitted into a square."""
    import cv2

    numbers = spread(len(series), _TILES)
    strip = np.zeros((_SIDE, _SIDE * len(numbers)), np.uint8)
    scale = _SIDE / max(series.shape[1:])
    rows, columns = (max(1, round(side * scale)) for side in series.shape[1:])
    for k, number in enumerate(numbers):
        (hu,) = series.read(number, number + 1)
        small = cv2.resize(grey(hu, "brain"), (columns, rows), interpolation=cv2.INTER_AREA)
        top, left = (_SIDE - rows) // 2, k * _SIDE + (_SIDE - columns) // 2
        strip[top : top + rows, left : left + columns] = np.rint(255 * small)
    return cv2.imencode(".png", strip)[1].tobytes()


def series_figure(series: "Series", *, window: str, slices: int) -> "Figure":
    """A matplotlib figure of evenly spaced slices, numbered from 1; see `Series.plot`."""
    from ichseq.ct.figure import NotebookFigure

    if slices < 1:
        raise ConfigError(f"{slices} slices can't be shown; ask for 1 or more")
    numbers = spread(len(series), slices)
    pictures = [grey(series.read(number, number + 1)[0], window) for number in numbers]
    columns = min(6, len(numbers))
    rows = -(-len(numbers) // columns)
    figure = NotebookFigure(figsize=(2.2 * columns, 2.3 * rows + 0.4), layout="constrained", facecolor="black")
    title = f"{describe(series)}; {window.replace('_', ' ')} window"
    figure.suptitle(title, color="white", fontsize=min(10, 3.3 * columns))
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.set_axis_off()
    for axes, number, picture in zip(figure.axes, numbers, pictures, strict=False):
        axes.imshow(picture, cmap="gray", vmin=0, vmax=1)
        axes.set_title(str(number + 1), color="white", fontsize=9)
    return figure
