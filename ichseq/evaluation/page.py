"""The page of an evaluation: figures by exam and by slice, operating points, reliability, kinds and subgroups."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ichseq.evaluation.pictures import COLOURS, FAINT, GROUND, dress, save_figure
from ichseq.evaluation.report import (
    figure_of,
    html_table,
    interval_text,
    number_text,
    rate_text,
    summary_rows,
    write_page,
)
from ichseq.labels import LABELS
from ichseq.predictions.calibration import POINTS, FittedOn
from ichseq.runs.names import PAGE, PICTURE

_UNITS = (("exam", "by_exam", "Exams"), ("slice", "by_slice", "Slices"))
_OF_LABELS = (  # heads, and the figures below them
    ("Log loss", "{own}.log_loss"),
    ("calibrated", "{unit}.calibrated.log_loss"),
    ("AUC", "{own}.auc"),
    ("95% interval", "{own}.auc"),
    ("Average precision", "{own}.average_precision"),
    ("Calibration error", "{unit}.reliability.expected_error"),
    ("calibrated", "{unit}.calibrated.reliability.expected_error"),
    ("Positives", "{own}.positives"),
)


def write_evaluation_page(folder: Path, metrics: Mapping[str, Any], curves: pd.DataFrame) -> None:
    """Write evaluation.html and evaluation.png: one page that needs nothing from outside.

    Args:
        folder: where they go; made if missing.
        metrics: the content of metrics.json.
        curves: with the columns of `CURVE_COLUMNS`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plot_curves(metrics, curves, folder / PICTURE)
    whose = f"{metrics['run']}, " + (f"fold {metrics['fold']}" if metrics["fold"] is not None else "a set of others")
    body = ["<h1>Evaluation</h1>", f'<p class="note">{escape(". ".join([whose, *notes(metrics)]))}.</p>']
    body += ["<h2>Figures</h2>", html_table(("Figure", "Value", "95% interval"), summary_rows(metrics))]
    body += ["<h2>By label</h2>", *_labels(metrics)]
    body.append(f'<h2>Curves</h2><a href="{PICTURE}"><img src="{PICTURE}" alt="ROC, precision and reliability"></a>')
    body += ["<h2>Operating points</h2>", *_points(metrics)]
    body += ["<h2>Kind with the highest score, where one kind is there</h2>", *_confusions(metrics)]
    body += ["<h2>Exams in groups, for any bleeding</h2>", *_subgroups(metrics)]
    if metrics["undefined"]:
        items = "".join(f"<li>{escape(f'{name}: {why}')}</li>" for name, why in metrics["undefined"].items())
        body.append(f"<h2>Undefined</h2><ul>{items}</ul>")
    write_page(folder / PAGE, "ichseq: evaluation", body)


def notes(metrics: Mapping[str, Any]) -> list[str]:
    """What a person should know of the figures: the set, and what the operating points were fitted on."""
    lines = [f"Set {metrics['data_key'][:12]}" + (", made-up scans (phantoms)" if metrics["phantom"] else "")]
    lines += metrics.get("remarks", [])
    of = metrics["calibration"]
    if of is None:
        return [*lines, "No calibration: operating points are undefined"]
    line = f"Calibration fitted on {FittedOn.model_validate(of).words()}"
    if of["data_key"] == metrics["data_key"] and (not of["folds"] or metrics["fold"] in ("all", *of["folds"])):
        line += ", which are these exams or a part of them: here its points and probabilities look better than they are"
    return [*lines, line]


def _labels(metrics: Mapping[str, Any]) -> list[str]:
    columns = [column for column in _OF_LABELS if metrics["calibration"] is not None or column[0] != "calibrated"]
    interval, tables = [head for head, _ in columns].index("95% interval"), []
    for _, unit, title in _UNITS:
        source = "by_exam" if unit == "by_exam" else "labels"
        rows = []
        for label in LABELS:
            names = [where.format(own=f"{source}.{label}", unit=f"{unit}.{label}") for _, where in columns]
            figures = [number_text(figure_of(metrics, name)) for name in names]
            figures[interval] = interval_text(metrics["intervals"].get(names[interval]))
            rows.append((label, *figures))
        tables.append(html_table((title, *(head for head, _ in columns)), rows))
    return tables


def _points(metrics: Mapping[str, Any]) -> list[str]:
    tables = []
    for _, name, title in _UNITS:
        alarms = ("False alarms in 100 exams without bleeding",) if name == "by_exam" else ()
        rows = []
        for label in LABELS:
            for point, of in (metrics[name][label]["points"] or {}).items():
                if of["threshold"] is None:
                    continue
                cells = [rate_text(of["sensitivity"]), rate_text(of["specificity"])]
                cells += [rate_text(of["false_alarms_per_100"], 1)] if alarms else []
                rows.append((f"{label}, {point}", f"{of['threshold']:.4g}", *cells))
        if rows:
            tables.append(html_table((title, "Threshold", "Sensitivity", "Specificity", *alarms), rows))
    return tables or ["<p>None is defined.</p>"]


def _confusions(metrics: Mapping[str, Any]) -> list[str]:
    tables = []
    for _, name, title in _UNITS:
        of = metrics["confusion"][f"{name.removeprefix('by_')}s"]
        rows = [(kind, *map(str, counts)) for kind, counts in zip(of["kinds"], of["counts"], strict=True)]
        tables.append(html_table((f"{title}: there is", *of["kinds"]), rows))
        tables.append(f"<p>{of['several']:,} with more than one kind are in no row.</p>")
    return tables


def _subgroups(metrics: Mapping[str, Any]) -> list[str]:
    tables = []
    for name, groups in metrics["subgroups"].items():
        rows = []
        for of in groups:
            point = of["points"].get(POINTS[0], {})
            rows.append((
                of["group"], str(of["exams"]), str(of["bleeding"]), number_text(of["log_loss"]), number_text(of["auc"]),
                rate_text(point.get("sensitivity")), rate_text(point.get("specificity")), of["undefined"] or "",
            ))  # fmt: skip
        head = (name.replace("_", " "), "Exams", "bleeding", "Log loss", "AUC", f"Sensitivity at {POINTS[0]}",
                "Specificity there", "")  # fmt: skip
        tables.append(html_table(head, rows))
    return tables


def plot_curves(metrics: Mapping[str, Any], curves: pd.DataFrame, path: Path) -> None:
    """Draw ROC, precision against sensitivity, and reliability, of exams above and of slices below, as a PNG."""
    figure = Figure(figsize=(15, 9.6), dpi=80, layout="constrained", facecolor=GROUND)
    for row, (unit, name, title) in zip(figure.subplots(2, 3), _UNITS, strict=True):
        for label, colour in zip(LABELS, COLOURS, strict=True):
            of = curves[(curves["unit"] == unit) & (curves["label"] == label)]
            if len(of):
                row[0].plot([0, *(1 - of["specificity"])], [0, *of["sensitivity"]], color=colour, label=label)
                row[1].plot(of["sensitivity"], of["precision"], color=colour, label=label)
            _reliability(row[2], metrics[name][label], label, colour)
        _mark_points(row[0], metrics[name]["any"]["points"])
        for axes in (row[0], row[2]):
            axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle="--", zorder=0)
        names = (("ROC", "1 - specificity", "sensitivity"), ("Precision", "sensitivity", "precision"),
                 ("Reliability (dashed: calibrated)", "answer", "share positive"))  # fmt: skip
        for axes, (what, along, up) in zip(row, names, strict=True):
            axes.set_xlim(-0.02, 1.02)
            axes.set_ylim(-0.02, 1.02)
            axes.set_ylabel(up, color=FAINT)
            dress(axes, f"{title}: {what}", along)
    save_figure(figure, path)


def _reliability(axes: Axes, of: Mapping[str, Any], label: str, colour: str) -> None:
    calibrated = [] if of["calibrated"] is None else of["calibrated"]["reliability"]["bins"]
    for bins, style, named in ((of["reliability"]["bins"], "-", label), (calibrated, "--", None)):
        filled = [one for one in bins if one["cases"]]
        if filled:
            x, y = ([one[key] for one in filled] for key in ("mean_answer", "share_positive"))
            axes.plot(x, y, color=colour, linestyle=style, marker="o", markersize=3, linewidth=1.2, label=named)


def _mark_points(axes: Axes, points: Mapping[str, Any] | None) -> None:
    """The operating points of any on its ROC."""
    known = [
        (1 - of["specificity"]["value"], of["sensitivity"]["value"])
        for of in (points or {}).values()
        if of["threshold"] is not None and None not in (of["specificity"]["value"], of["sensitivity"]["value"])
    ]
    if known:
        x, y = zip(*known, strict=True)
        axes.plot(x, y, color=COLOURS[-1], marker="D", markersize=6, linestyle="none", label="points of any")
