"""What a person looks at: figures as text, training curves and slices as pictures, a page that shows all of it."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from PIL import Image

from ichseq.errors import DataError
from ichseq.labels import LABELS, WINDOWS

_INITIALS = ("E", "IP", "IV", "SA", "SD", "any")
_COLOURS = ("#f0a030", "#56b4e9", "#2fc48d", "#f2e250", "#e58ac0", "#ffffff")  # apart for the colour-blind too
_GROUND, _INK, _FAINT, _ALARM = "#14171c", "#e8eaed", "#8d949e", "#ff4b3e"
_WIDTH = 1800  # pixels of the montage
_MOST_TILES = 60

_SUMMARY = (
    ("Weighted log loss", "weighted_log_loss"),
    ("The same, prior alone", "prior_weighted_log_loss"),
    ("Ratio to the prior", "ratio_to_prior"),
    ("Exam AUC (any)", "exam.auc_any"),
    ("Exams with bleeding", "exam.positives"),
    ("Slices", "n_slices"),
    ("Exams", "n_exams"),
    ("Patients", "n_patients"),
)
_LABEL_HEAD = ("Label", "Log loss", "AUC", "95% interval", "Average precision", "Positive slices")


def metrics_text(metrics: Mapping[str, Any]) -> str:
    """Lay the figures of `evaluate_table` out for a terminal; what is undefined is a dash, with its reason below."""
    summary, labels, reasons = _rows(metrics)
    lines = [f"{name:<24}{value:>10}  {interval}".rstrip() for name, value, interval in summary]
    lines += ["", *_aligned([_LABEL_HEAD, *labels])]
    if reasons:
        lines += ["", "Undefined:", *(f"  {reason}" for reason in reasons)]
    return "\n".join(lines) + "\n"


def metrics_markdown(metrics: Mapping[str, Any]) -> str:
    """Lay the figures of `evaluate_table` out as Markdown; what is undefined is a dash, with its reason below."""
    summary, labels, reasons = _rows(metrics)
    parts = [_markdown_table(("Figure", "Value", "95% interval"), summary), "", _markdown_table(_LABEL_HEAD, labels)]
    if reasons:
        parts += ["", "Undefined:", "", *(f"- {reason}" for reason in reasons)]
    return "\n".join(parts) + "\n"


def plot_history(history: pd.DataFrame, path: Path, prior: float | None = None) -> None:
    """Draw the training curves of a run as a PNG: losses, learning rates and speed against the epoch.

    Args:
        history: a row an epoch, with the columns of a run's `history.csv`; valid_loss may be empty.
        path: PNG to write; its folder is made.
        prior: loss of the answer that knows only how frequent each label is; a dashed line.

    Raises:
        DataError: no epoch, or a column that is missing.
    """
    needed = ("epoch", "train_loss", "valid_loss", "learning_rate_backbone", "learning_rate_sequence")
    missing = [name for name in (*needed, "slices_per_second") if name not in history.columns]
    if missing or history.empty:
        raise DataError(f"the training history has no {', '.join(missing) or 'epoch'}; train the run again")
    figure = Figure(figsize=(13, 4.2), dpi=110, layout="constrained", facecolor="white")
    loss, rate, speed = figure.subplots(1, 3, width_ratios=(2, 1, 1))
    _curve(loss, history, "train_loss", "#2166ac", "training")
    _curve(loss, history, "valid_loss", "#d6604d", "validation")
    if prior is not None:
        loss.axhline(prior, color="#555555", linestyle="--", linewidth=1.2, label=f"prior alone ({prior:.3f})")
    _curve(rate, history, "learning_rate_backbone", "#2166ac", "backbone")
    _curve(rate, history, "learning_rate_sequence", "#d6604d", "sequence")
    _curve(speed, history, "slices_per_second", "#2a7f62", "")
    rates = history[["learning_rate_backbone", "learning_rate_sequence"]].to_numpy(float)
    if np.nanmin(rates, initial=1.0) > 0:  # a rate of zero has no place on a logarithmic axis
        rate.set_yscale("log")
    speed.set_ylim(0, 1.15 * max(float(history["slices_per_second"].max()), 1e-3))
    for axes, title in ((loss, "Weighted log loss"), (rate, "Learning rate"), (speed, "Slices per second")):
        axes.set_title(title, loc="left", fontweight="bold")
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
    _save(figure, path)


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
    truth = table.reindex(columns=[f"true_{label}" for label in LABELS]).to_numpy(float)
    shown = np.unique(np.linspace(0, n - 1, min(n, _MOST_TILES)).round().astype(int))
    columns = 6 if len(shown) <= 18 else 8 if len(shown) <= 40 else 10
    pitch = (_WIDTH - 40) / columns
    picture = pitch - 10
    tile, head, foot = picture + 72, 128, 440
    height = int(head + -(-len(shown) // columns) * tile + foot)
    figure = Figure(figsize=(_WIDTH / 100, height / 100), dpi=100, facecolor=_GROUND)
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
    _save(figure, path, palette=True)


def write_results_page(
    folder: Path,
    metrics: Mapping[str, Any],
    *,
    title: str,
    note: str | None,
    montage: str | None,
    curves: str | None,
    next_steps: Sequence[str],
) -> None:
    """Write `index.html`: the figures, the curves and the montage on one page that needs nothing from outside.

    Args:
        folder: where the page goes; made if missing.
        metrics: what `evaluate_table` returned.
        title: heading of the page.
        note: a line that stands out below the heading.
        montage: name of the montage's PNG relative to the folder, if there is one.
        curves: name of the training curves' PNG relative to the folder, if there is one.
        next_steps: commands or sentences, one a line.
    """
    summary, labels, reasons = _rows(metrics)
    body = [f"<h1>{escape(title)}</h1>"]
    if note:
        body.append(f'<p class="note">{escape(note)}</p>')
    body += ["<h2>Figures</h2>", _html_table(("Figure", "Value", "95% interval"), summary)]
    body.append(_html_table(_LABEL_HEAD, labels))
    if reasons:
        body.append("<p>Undefined:</p><ul>" + "".join(f"<li>{escape(reason)}</li>" for reason in reasons) + "</ul>")
    for heading, name in (("Training curves", curves), ("A series, slice by slice", montage)):
        if name:
            link = escape(quote(name))
            body.append(f'<h2>{heading}</h2><a href="{link}"><img src="{link}" alt="{heading}"></a>')
    if next_steps:
        items = "".join(f"<li><code>{escape(step)}</code></li>" for step in next_steps)
        body.append(f"<h2>Next steps</h2><ul>{items}</ul>")
    folder.mkdir(parents=True, exist_ok=True)
    page = _PAGE.replace("@TITLE@", escape(title)).replace("@BODY@", "\n".join(body))
    (folder / "index.html").write_text(page, encoding="utf-8")


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>@TITLE@</title><style>
:root { color-scheme: light dark; --ink: #1d2127; --ground: #fff; --line: #d9dde3; --mark: #fff3d6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --ground: #14171c; --line: #363c46; --mark: #3d3115; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); max-width: 1100px;
  margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; display: block;
  overflow-x: auto; }
th, td { padding: .3rem .9rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; border-radius: 6px; } code { overflow-wrap: anywhere; }
.note { background: var(--mark); padding: .6rem 1rem; border-radius: 6px; }
</style></head><body>
@BODY@
</body></html>
"""


def _rows(metrics: Mapping[str, Any]) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]], list[str]]:
    """Summary rows (name, value, interval), a row a label in the order of _LABEL_HEAD, and reasons, as text."""
    intervals = metrics.get("intervals") or {}
    summary: list[tuple[str, ...]] = [
        (name, _number(_find(metrics, key)), _interval(intervals.get(key))) for name, key in _SUMMARY
    ]
    labels: list[tuple[str, ...]] = []
    for label in LABELS:
        key = f"labels.{label}"
        loss, auc, precision, positives = (
            _number(_find(metrics, f"{key}.{name}")) for name in ("log_loss", "auc", "average_precision", "positives")
        )
        labels.append((label, loss, auc, _interval(intervals.get(f"{key}.auc")), precision, positives))
    return summary, labels, [f"{key}: {reason}" for key, reason in (metrics.get("undefined") or {}).items()]


def _find(metrics: Mapping[str, Any], key: str) -> Any:
    found: Any = metrics
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _number(value: Any) -> str:
    if value is None or not np.isfinite(value):
        return "-"
    return f"{value:d}" if isinstance(value, int | np.integer) else f"{value:.4f}"


def _interval(pair: Sequence[float] | None) -> str:
    return "" if pair is None else f"{_number(pair[0])} to {_number(pair[1])}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]


def _markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows))


def _html_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    return "<table><tr>" + "".join(f"<th>{cell}</th>" for cell in head) + "</tr>\n" + "\n".join(lines) + "</table>"


def _curve(axes: Axes, history: pd.DataFrame, name: str, colour: str, label: str) -> None:
    known = history[["epoch", name]].apply(pd.to_numeric, errors="coerce").dropna()
    if len(known):
        axes.plot(known["epoch"], known[name], color=colour, label=label or None, marker="o", markersize=3.5)


def _heading(axes: Axes, title: str, note: str | None) -> None:
    axes.text(25, 38, title, color=_INK, fontsize=19, fontweight="bold", va="center")
    axes.text(25, 70, note or "", color=_FAINT, fontsize=12.5, va="center")
    left = 25.0
    for label, short, colour in zip(LABELS, _INITIALS, _COLOURS, strict=True):
        axes.add_patch(Rectangle((left, 93), 15, 15, color=colour, linewidth=0))
        axes.text(left + 22, 101, label if label == short else f"{short} {label}", color=_INK, fontsize=12, va="center")
        left += 46 + 8.6 * len(label if label == short else f"{short} {label}") + 14
    axes.add_patch(Rectangle((left, 93), 15, 15, fill=False, edgecolor=_ALARM, linewidth=2.5))
    axes.text(left + 22, 101, "p(any) ≥ 0.5", color=_INK, fontsize=12, va="center")
    axes.plot([left + 162], [101], marker="D", color=_INK, markersize=7)
    axes.text(left + 176, 101, "truth known positive", color=_INK, fontsize=12, va="center")


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
    centre, width = WINDOWS["brain"]
    grey = np.clip((hu.astype(np.float32) - (centre - width / 2)) / width, 0, 1)
    rows, cols = np.array(hu.shape) * size / max(hu.shape)
    x, y = left + (size - cols) / 2, top + (size - rows) / 2
    axes.imshow(grey, cmap="gray", vmin=0, vmax=1, extent=(x, x + cols, y + rows, y), interpolation="hanning", zorder=1)
    alarm = answers[LABELS.index("any")] >= 0.5
    edge, line = (_ALARM, 3.0) if alarm else ("#333941", 0.8)
    axes.add_patch(Rectangle((left, top), size, size, fill=False, edgecolor=edge, linewidth=line, zorder=3))
    axes.text(left + 7, top + 15, number, color=_INK, fontsize=11, fontweight="bold", va="center", zorder=4)
    step = size / len(LABELS)
    for k, (p, colour) in enumerate(zip(answers, _COLOURS, strict=True)):
        bar, base, full = left + k * step + 3, top + size + 48, 40
        axes.add_patch(Rectangle((bar, base - full), step - 6, full, color="#262b33", linewidth=0))
        if np.isfinite(p):
            axes.add_patch(Rectangle((bar, base - full * p), step - 6, full * p, color=colour, linewidth=0))
        axes.text(bar + step / 2 - 3, base + 9, _INITIALS[k], color=_INK, fontsize=8.5, ha="center", va="center")
    for k, index in enumerate(np.flatnonzero(truth == 1)[::-1]):
        mark: dict[str, Any] = {"marker": "D", "markersize": 6, "markeredgecolor": "black", "zorder": 4}
        axes.plot([left + size - 11 - 13 * k], [top + 14], color=_COLOURS[index], **mark)


def _draw_course(figure: Figure, answers: np.ndarray, truth: np.ndarray, height: int) -> None:
    """Probability of each label along the slices, and below it the truth, a band a label."""
    x = np.arange(1, len(answers) + 1)
    lines = figure.add_axes((0.055, 185 / height, 0.925, 235 / height), facecolor="#1b1f26")
    bands = figure.add_axes((0.055, 62 / height, 0.925, 108 / height), facecolor="#1b1f26", sharex=lines)
    for k, (label, colour) in enumerate(zip(LABELS, _COLOURS, strict=True)):
        style: dict[str, Any] = (
            {"linewidth": 5.0, "alpha": 0.45, "zorder": 1} if label == "any" else {"linewidth": 2.0, "zorder": 2}
        )
        lines.add_line(Line2D(x, answers[:, k], color=colour, marker="o", markersize=3, **style))
        for value, shade in ((0, 0.10), (1, 0.95)):
            runs = [(i - 0.5, 1) for i in x[truth[:, k] == value]]
            bands.broken_barh(runs, (k - 0.36, 0.72), color=colour, alpha=shade, linewidth=0)
    if np.isnan(truth).all():
        bands.text(0.5, 0.5, "truth unknown", transform=bands.transAxes, color=_FAINT, ha="center", va="center")
    lines.axhline(0.5, color=_ALARM, linewidth=1, alpha=0.6)
    lines.set_xlim(0.5, len(x) + 0.5)
    lines.set_ylim(-0.02, 1.02)
    bands.set_ylim(len(LABELS) - 0.5, -0.5)
    bands.set_yticks(range(len(LABELS)), _INITIALS)
    bands.set_xlabel("slice, from feet to head", color=_INK, fontsize=12)
    lines.set_ylabel("probability", color=_INK, fontsize=12)
    bands.set_ylabel("truth", color=_INK, fontsize=12)
    lines.tick_params(labelbottom=False)
    for axes in (lines, bands):
        axes.tick_params(colors=_FAINT, labelsize=10)
        axes.spines[:].set_color("#333941")
        axes.grid(alpha=0.15, axis="x")


def _save(figure: Figure, path: Path, *, palette: bool = False) -> None:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    if palette:  # 256 colours are enough for grey slices and six hues, and a third of the size
        picture = picture.quantize(palette=_palette(picture), dither=Image.Dither.NONE)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, format="PNG", optimize=True)


def _palette(picture: Image.Image) -> Image.Image:
    """Palette of the picture, with room kept for the colours that carry meaning, however few pixels they have."""
    found = np.array(picture.quantize(220).getpalette(), np.uint8).reshape(-1, 3)[:220]
    ground = np.array(to_rgb(_GROUND))
    kept = [ground + share * (np.array(to_rgb(c)) - ground) for c in (*_COLOURS, _ALARM) for share in (1, 0.7, 0.4)]
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.concatenate([found, np.round(np.array(kept) * 255).astype(np.uint8)]).tobytes())
    return palette
