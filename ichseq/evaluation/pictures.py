"""Pictures: the training curves of a run, and a series slice by slice with what was found in it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from PIL import Image

from ichseq.ct.picture import grey, spread
from ichseq.errors import DataError
from ichseq.files import replacing
from ichseq.labels import LABELS
from ichseq.predictions.schema import TRUTH

_INITIALS = ("E", "IP", "IV", "SA", "SD", "any")
COLOURS = ("#f0a030", "#56b4e9", "#2fc48d", "#f2e250", "#e58ac0", "#ffffff")  # apart for the colour-blind too
GROUND, INK, FAINT, _ALARM = "#14171c", "#e8eaed", "#8d949e", "#ff4b3e"
_WIDTH = 1800  # pixels of the montage
_MOST_TILES = 60
PANEL, LINE = "#1b1f26", "#333941"
_RATES = ("learning_rate_backbone", "learning_rate_sequence")


def plot_history(stages: Mapping[str, pd.DataFrame], path: Path, prior: float | None = None) -> None:
    """Draw the training curves of a run as a PNG: losses, learning rates and speed against the epoch.

    Args:
        stages: for each stage, in the order in which they were trained, a row an epoch with the columns of a run's
            `history.csv`; valid_loss may be empty.
        path: PNG to write; its folder is made.
        prior: loss of the answer that knows only how frequent each label is; a dashed line.

    Raises:
        DataError: no stage, a stage without an epoch, or a column that is missing.
    """
    needed = ("epoch", "train_loss", "valid_loss", *_RATES, "slices_per_second")
    if not stages:
        raise DataError("the training history has no stage; train the run again")
    for stage, history in stages.items():
        missing = [name for name in needed if name not in history.columns]
        if missing or history.empty:
            what = ", ".join(missing) or "epoch"
            raise DataError(f"the training history of the stage {stage} has no {what}; train the run again")
    figure = Figure(figsize=(14, 4.4), dpi=110, layout="constrained", facecolor=GROUND)
    loss, rate, speed = figure.subplots(1, 3, width_ratios=(2, 1, 1))
    done = 0  # epochs of the stages before
    for stage, history in stages.items():
        shifted = history.assign(epoch=pd.to_numeric(history["epoch"]) + done)
        first = done == 0
        _curve(loss, shifted, "train_loss", COLOURS[1], "training" if first else "")
        _curve(loss, shifted, "valid_loss", COLOURS[0], "validation" if first else "")
        _curve(rate, shifted, _RATES[0], COLOURS[1], "backbone" if first else "")
        _curve(rate, shifted, _RATES[1], COLOURS[0], "sequence" if first else "")
        _curve(speed, shifted, "slices_per_second", COLOURS[2], "")
        if len(stages) > 1:
            for axes in (loss, rate, speed):
                axes.axvline(done + 0.5, color=FAINT, linewidth=0.8, alpha=0.0 if first else 0.7)
            loss.text(done + 0.6, 0.03, stage, color=FAINT, fontsize=9, transform=loss.get_xaxis_transform())
        done += len(history)
    if prior is not None:
        loss.axhline(prior, color=FAINT, linestyle="--", linewidth=1.2, label=f"prior alone ({prior:.3f})")
    rate.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    for axes, title in ((loss, "Weighted log loss"), (rate, "Learning rate"), (speed, "Slices per second")):
        _dress(axes, title, done)
    for axes in (rate, speed):
        axes.set_ylim(0, 1.1 * max(axes.get_ylim()[1], 1e-9))
    save_figure(figure, path)


def _dress(axes: Axes, title: str, epochs: int) -> None:
    axes.set_xlim(0.5, epochs + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    dress(axes, title, "epoch")


def dress(axes: Axes, title: str, along: str) -> None:
    """Colours, title, the name of the horizontal axis, and a legend if a curve has a name."""
    axes.set_facecolor(PANEL)
    axes.set_title(title, loc="left", fontweight="bold", color=INK)
    axes.set_xlabel(along, color=INK)
    axes.tick_params(colors=FAINT)
    axes.grid(alpha=0.15)
    axes.spines[:].set_color(LINE)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, labelcolor=INK)


def plot_montage(hu: np.ndarray, table: pd.DataFrame, path: Path, *, title: str, note: str | None = None) -> None:
    """Draw every slice of a series with its probabilities, and the probabilities along the series, as a PNG.

    Of more than 60 slices, 60 evenly spread ones are pictures; the curves below always hold all.

    Args:
        hu: int16 (n, rows, cols) in HU, feet to head.
        table: n rows in the same order, the probabilities under `LABELS`; true_<label> may be absent or NaN.
        path: PNG to write, 1800 pixels wide; its folder is made.
        title: first line; it stands in the picture, so it must not name a patient.
        note: second line, for instance what the picture must not be used for.

    Raises:
        DataError: no slice, or another number of rows than of slices.
    """
    n = len(hu)
    if n == 0 or n != len(table):
        raise DataError(f"a montage needs a row of predictions a slice; it got {len(table)} rows for {n} slices")
    answers = table[list(LABELS)].to_numpy(float)
    truth = table.reindex(columns=list(TRUTH)).to_numpy(float)
    shown = spread(n, _MOST_TILES)
    columns = 6 if len(shown) <= 18 else 8 if len(shown) <= 40 else 10
    pitch = (_WIDTH - 40) / columns
    picture = pitch - 10
    tile, head, foot = picture + 72, 128, 440
    height = int(head + -(-len(shown) // columns) * tile + foot)
    figure = Figure(figsize=(_WIDTH / 100, height / 100), dpi=100, facecolor=GROUND)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    if len(shown) < n:
        note = f"{len(shown)} of {n} slices shown. {note or ''}".strip()
    _heading(axes, title, note)
    for place, index in enumerate(shown):
        row, column = divmod(place, columns)
        corner = (25 + column * pitch, head + row * tile)
        _draw_slice(axes, hu[index], answers[index], truth[index], corner, picture, str(index + 1))
    axes.set_xlim(0, _WIDTH)
    axes.set_ylim(height, 0)
    _draw_course(figure, answers, truth, height)
    save_figure(figure, path, palette=True)


def _curve(axes: Axes, history: pd.DataFrame, name: str, colour: str, label: str) -> None:
    known = history[["epoch", name]].apply(pd.to_numeric, errors="coerce").dropna()
    if len(known):
        axes.plot(known["epoch"], known[name], color=colour, label=label or None, marker="o", markersize=3.5)


def _heading(axes: Axes, title: str, note: str | None) -> None:
    axes.text(25, 38, title, color=INK, fontsize=19, fontweight="bold", va="center")
    axes.text(25, 70, note or "", color=FAINT, fontsize=12.5, va="center")
    left = 25.0
    for label, short, colour in zip(LABELS, _INITIALS, COLOURS, strict=True):
        axes.add_patch(Rectangle((left, 93), 15, 15, color=colour, linewidth=0))
        axes.text(left + 22, 101, label if label == short else f"{short} {label}", color=INK, fontsize=12, va="center")
        left += 46 + 8.6 * len(label if label == short else f"{short} {label}") + 14
    axes.add_patch(Rectangle((left, 93), 15, 15, fill=False, edgecolor=_ALARM, linewidth=2.5))
    axes.text(left + 22, 101, "p(any) ≥ 0.5", color=INK, fontsize=12, va="center")
    axes.plot([left + 162], [101], marker="D", color=INK, markersize=7)
    axes.text(left + 176, 101, "truth known positive", color=INK, fontsize=12, va="center")


def _draw_slice(
    axes: Axes,
    hu: np.ndarray,
    answers: np.ndarray,
    truth: np.ndarray,
    corner: tuple[float, float],
    size: float,
    number: str,
) -> None:
    left, top = corner
    shown = grey(hu, "brain")
    rows, cols = np.array(hu.shape) * size / max(hu.shape)
    x, y = left + (size - cols) / 2, top + (size - rows) / 2
    place = (x, x + cols, y + rows, y)
    axes.imshow(shown, cmap="gray", vmin=0, vmax=1, extent=place, interpolation="hanning", zorder=1)
    alarm = answers[LABELS.index("any")] >= 0.5
    edge, line = (_ALARM, 3.0) if alarm else (LINE, 0.8)
    axes.add_patch(Rectangle((left, top), size, size, fill=False, edgecolor=edge, linewidth=line, zorder=3))
    axes.text(left + 7, top + 15, number, color=INK, fontsize=11, fontweight="bold", va="center", zorder=4)
    step = size / len(LABELS)
    for k, (p, colour) in enumerate(zip(answers, COLOURS, strict=True)):
        bar, base, full = left + k * step + 3, top + size + 48, 40
        axes.add_patch(Rectangle((bar, base - full), step - 6, full, color="#262b33", linewidth=0))
        if np.isfinite(p):
            axes.add_patch(Rectangle((bar, base - full * p), step - 6, full * p, color=colour, linewidth=0))
        axes.text(bar + step / 2 - 3, base + 9, _INITIALS[k], color=INK, fontsize=8.5, ha="center", va="center")
    for k, index in enumerate(np.flatnonzero(truth == 1)[::-1]):
        mark: dict[str, Any] = {"marker": "D", "markersize": 6, "markeredgecolor": "black", "zorder": 4}
        axes.plot([left + size - 11 - 13 * k], [top + 14], color=COLOURS[index], **mark)


def _draw_course(figure: Figure, answers: np.ndarray, truth: np.ndarray, height: int) -> None:
    """Probability of each label along the slices, and below it the truth, a band a label."""
    x = np.arange(1, len(answers) + 1)
    lines = figure.add_axes((0.055, 185 / height, 0.925, 235 / height), facecolor=PANEL)
    bands = figure.add_axes((0.055, 62 / height, 0.925, 108 / height), facecolor=PANEL, sharex=lines)
    for k, (label, colour) in enumerate(zip(LABELS, COLOURS, strict=True)):
        style: dict[str, Any] = (
            {"linewidth": 5.0, "alpha": 0.45, "zorder": 1} if label == "any" else {"linewidth": 2.0, "zorder": 2}
        )
        lines.add_line(Line2D(x, answers[:, k], color=colour, marker="o", markersize=3, **style))
        for value, shade in ((0, 0.10), (1, 0.95)):
            runs = [(i - 0.5, 1) for i in x[truth[:, k] == value]]
            bands.broken_barh(runs, (k - 0.36, 0.72), color=colour, alpha=shade, linewidth=0)
    if np.isnan(truth).all():
        bands.text(0.5, 0.5, "truth unknown", transform=bands.transAxes, color=FAINT, ha="center", va="center")
    lines.axhline(0.5, color=_ALARM, linewidth=1, alpha=0.6)
    lines.set_xlim(0.5, len(x) + 0.5)
    lines.set_ylim(-0.02, 1.02)
    bands.set_ylim(len(LABELS) - 0.5, -0.5)
    bands.set_yticks(range(len(LABELS)), _INITIALS)
    bands.set_xlabel("slice, from feet to head", color=INK, fontsize=12)
    lines.set_ylabel("probability", color=INK, fontsize=12)
    bands.set_ylabel("truth", color=INK, fontsize=12)
    lines.tick_params(labelbottom=False)
    for axes in (lines, bands):
        axes.tick_params(colors=FAINT, labelsize=10)
        axes.spines[:].set_color(LINE)
        axes.grid(alpha=0.15, axis="x")


def save_figure(figure: Figure, path: Path, *, palette: bool = False) -> None:
    """Write a figure as a PNG that appears whole; with a palette of 256 colours, which is smaller."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    if palette:  # enough for grey slices and six hues, and a third of the size
        picture = picture.quantize(palette=_palette(picture), dither=Image.Dither.NONE)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as beside:
        picture.save(beside, format="PNG", optimize=palette)


def _palette(picture: Image.Image) -> Image.Image:
    """Palette of the picture, with room kept for the colours that carry meaning, however few pixels they have."""
    found = np.array(picture.quantize(220).getpalette(), np.uint8).reshape(-1, 3)[:220]
    ground = np.array(to_rgb(GROUND))
    kept = [ground + share * (np.array(to_rgb(c)) - ground) for c in (*COLOURS, _ALARM) for share in (1, 0.7, 0.4)]
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.concatenate([found, np.round(np.array(kept) * 255).astype(np.uint8)]).tobytes())
    return palette
