"""Figures as text and Markdown, and a page that shows them with their pictures."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from ichseq.files import write_text
from ichseq.labels import LABELS
from ichseq.predictions.calibration import POINTS, Calibration, none_known

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
LABEL_HEAD = ("Label", "Log loss", "AUC", "95% interval", "Average precision", "Positive slices")


def metrics_text(metrics: Mapping[str, Any]) -> str:
    """Lay the figures of `evaluate_table` out for a terminal; what is undefined is a dash, with its reason below."""
    summary, labels, reasons = _rows(metrics)
    lines = [f"{name:<24}{value:>10}  {interval}".rstrip() for name, value, interval in summary]
    lines += ["", *_aligned([LABEL_HEAD, *labels])]
    if "by_exam" in metrics:
        lines += ["", *_aligned([(*LABEL_HEAD[:-1], "Positive exams"), *label_rows(metrics, "by_exam")])]
    points = ((metrics.get("by_exam") or {}).get("any") or {}).get("points") or {}
    rows = [
        (name, f"{of['threshold']:.4g}", rate_text(of["sensitivity"]), rate_text(of["specificity"]),
         rate_text(of["false_alarms_per_100"], 1))
        for name, of in points.items() if of["threshold"] is not None
    ]  # fmt: skip
    if rows:
        head = ("Exams, any", "Threshold", "Sensitivity", "Specificity", "False alarms in 100 without")
        lines += ["", *_aligned([head, *rows])]
    if reasons:
        lines += ["", "Undefined:", *(f"  {reason}" for reason in reasons)]
    lines += ["", *(f"Note: {text}" for text in metrics["remarks"])] if "remarks" in metrics else []
    return "\n".join(lines) + "\n"


def comparison_text(comparison: Mapping[str, Any], names: Sequence[str]) -> str:
    """Lay what `compare_predicted` gives out for a terminal."""
    lines = [f"one: {names[0]}", f"other: {names[1]}"]
    for unit in ("exams", "slices"):
        of = comparison[unit]
        if of is None:
            lines += ["", f"{unit}: undefined, {comparison['undefined'][unit]}"]
            continue
        within = interval_text(of["intervals"]["difference"]) or "no interval of one patient"
        lines += ["", f"{unit}, weighted log loss: one {of['one']:.4f}, other {of['other']:.4f}, difference "
                      f"{of['difference']:.4f} ({within}), {of['n_patients']:,} patients"]  # fmt: skip
        rows = [
            (label, number_text(auc["one"]), number_text(auc["other"]), number_text(auc["difference"]),
             interval_text(auc["interval"]) or str(auc["undefined"]), number_text(auc["p"]), str(auc["positives"]))
            for label, auc in of["auc"].items()
        ]  # fmt: skip
        head = (f"AUC of {unit}", "One", "Other", "Difference", "95% interval", "p (DeLong)", "Positive")
        lines += _aligned([head, *rows])
    return "\n".join(lines)


def calibration_text(calibration: Calibration) -> str:
    """What was fitted for each label, and on what, for a terminal."""
    lines = [f"fitted on {calibration.fitted_on.words()}"]
    for title, labels in (("Exams", calibration.exams), ("Slices", calibration.slices)):
        if none_known(labels):
            lines += ["", f"{title}: none has a known label; their scores are left as they are"]
            continue
        rows = [
            (label, str(of.positives), str(of.negatives), f"{of.slope:.3f}", f"{of.intercept:.3f}",
             *("-" if point.threshold is None else f"{point.threshold:.4g}" for point in map(of.points.get, POINTS)
               if point is not None))
            for label, of in labels.items()
        ]  # fmt: skip
        head = (title, "Positive", "Negative", "Slope", "Intercept", *POINTS)
        lines += ["", *_aligned([head, *rows])]
        lines += [f"  {label}: left as it is, {of.unchanged}" for label, of in labels.items() if of.unchanged]
    return "\n".join(lines)


def write_results_page(
    folder: Path,
    metrics: Mapping[str, Any],
    *,
    title: str,
    note: str | None,
    montage: str | None,
    curves: str | None,
    next_steps: Sequence[str],
    report: str | None = None,
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
        report: the reader's report relative to the folder, if there is one.
    """
    summary, labels, reasons = _rows(metrics)
    body = [f"<h1>{escape(title)}</h1>"]
    if note:
        body.append(f'<p class="note">{escape(note)}</p>')
    if report:
        body.append(f'<p><a href="{escape(quote(report))}">Some exams as a reader sees them</a></p>')
    body += ["<h2>Figures</h2>", html_table(("Figure", "Value", "95% interval"), summary)]
    body.append(html_table(LABEL_HEAD, labels))
    if reasons:
        body.append("<p>Undefined:</p><ul>" + "".join(f"<li>{escape(reason)}</li>" for reason in reasons) + "</ul>")
    for heading, name in (("Training curves", curves), ("A series, slice by slice", montage)):
        if name:
            link = escape(quote(name))
            body.append(f'<h2>{heading}</h2><a href="{link}"><img src="{link}" alt="{heading}"></a>')
    if next_steps:
        items = "".join(f"<li><code>{escape(step)}</code></li>" for step in next_steps)
        body.append(f"<h2>Next steps</h2><ul>{items}</ul>")
    write_page(folder / "index.html", title, body)


def write_page(path: Path, title: str, body: Sequence[str]) -> None:
    """Write an HTML page, which appears whole; its folder is made.

    Args:
        path: the page.
        title: of it, as text.
        body: parts of its body, as HTML.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, _PAGE.replace("@TITLE@", escape(title)).replace("@BODY@", "\n".join(body)))


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
    """Summary rows (name, value, interval), a row a label in the order of LABEL_HEAD, and reasons, as text."""
    return summary_rows(metrics), label_rows(metrics, "labels"), reasons_text(metrics.get("undefined") or {})


def reasons_text(undefined: Mapping[str, str]) -> list[str]:
    """Why figures are undefined, a line a reason; of more than three figures, the first and how many more."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in undefined.items():
        by_reason.setdefault(reason, []).append(name)
    return [
        f"{', '.join(names) if len(names) <= 3 else f'{names[0]} and {len(names) - 1} more'}: {reason}"
        for reason, names in by_reason.items()
    ]


def summary_rows(metrics: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Name, value and interval of the figures of the whole table, as text."""
    intervals = metrics.get("intervals") or {}
    return [(name, number_text(figure_of(metrics, key)), interval_text(intervals.get(key))) for name, key in _SUMMARY]


def label_rows(metrics: Mapping[str, Any], section: str) -> list[tuple[str, ...]]:
    """Figures of each label, of a section such as labels (slices) or by_exam, as text in the order of `LABEL_HEAD`."""
    intervals = metrics.get("intervals") or {}
    rows: list[tuple[str, ...]] = []
    for label in LABELS:
        key = f"{section}.{label}"
        loss, auc, precision, positives = (
            number_text(figure_of(metrics, f"{key}.{name}"))
            for name in ("log_loss", "auc", "average_precision", "positives")
        )
        rows.append((label, loss, auc, interval_text(intervals.get(f"{key}.auc")), precision, positives))
    return rows


def figure_of(metrics: Mapping[str, Any], key: str) -> Any:
    """A figure by its dotted name, such as exam.auc_any; None if there is none."""
    found: Any = metrics
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def number_text(value: Any) -> str:
    """A figure with four decimals, a count with none; a dash for what is undefined."""
    if value is None or not np.isfinite(value):
        return "-"
    return f"{value:d}" if isinstance(value, int | np.integer) else f"{value:.4f}"


def rate_text(rate: Mapping[str, Any] | None, decimals: int = 3) -> str:
    """A share with its interval and cases; a dash for one that is undefined."""
    if rate is None or rate["value"] is None:
        return "-"
    ends = rate["interval"]
    within = "" if ends is None else f" ({ends[0]:.{decimals}f} to {ends[1]:.{decimals}f})"
    return f"{rate['value']:.{decimals}f}{within}, n {rate['cases']:,}"


def interval_text(pair: Sequence[float] | None) -> str:
    """An interval's two ends, or nothing."""
    return "" if pair is None else f"{number_text(pair[0])} to {number_text(pair[1])}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, its first column to the left and the others to the right."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows))


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in HTML; its cells are text."""
    lines = ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    return "<table><tr>" + "".join(f"<th>{cell}</th>" for cell in head) + "</tr>\n" + "\n".join(lines) + "</table>"
