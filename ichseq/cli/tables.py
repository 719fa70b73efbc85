"""Commands that take prediction tables: compare, ensemble, submit. What is heavy is imported inside each command."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ichseq.cli.options import PATH
from ichseq.errors import ConfigError, counted
from ichseq.labels import CLIP_PROBABILITY

if TYPE_CHECKING:
    from ichseq.predictions.smooth import By, Smoothing

_CLIP = click.option(
    "--clip",
    "least",
    default=CLIP_PROBABILITY,
    show_default=True,
    help="Keep probabilities this far from 0 and 1; 0: leave them.",
)


@click.command()
@click.argument("one", type=PATH)
@click.argument("other", type=PATH)
@click.option("-o", "--out", type=PATH, help="JSON file for the figures.")
def compare(one: Path, other: Path, out: Path | None) -> None:
    """Compare two runs on the same patients, by loss and by AUC.

    ONE and OTHER are runs, leaves or folders that `ichseq evaluate` has scored, or prediction tables (CSV, Parquet).
    The loss comes with an interval of a bootstrap over patients, the AUC with DeLong's test.
    """
    from ichseq.evaluation.predicted import compare_predicted, find_predicted
    from ichseq.evaluation.report import comparison_text
    from ichseq.predictions.write import check_writable
    from ichseq.runs.records import write_json

    if out is not None:
        check_writable(out)
    found = compare_predicted(find_predicted(one), find_predicted(other))
    click.echo(comparison_text(found, [str(one), str(other)]))
    if out is not None:
        write_json(out, found)


@click.command()
@click.argument("runs", metavar="RUN...", type=PATH, nargs=-1, required=True)
@click.option("-o", "--out", type=PATH, required=True, help="Parquet if it ends in .parquet, else CSV.")
@click.option("--weights", metavar="W,W,...", help="One for each RUN, such as 1,2,1; default: all alike.")
@click.option(
    "--smooth",
    "smoothing",
    type=click.Choice(["none", "mean", "weighted"]),
    default="none",
    show_default=True,
    help="Average over 3 neighbouring slices; weighted: 0.6, 1.8, 0.6.",
)
@_CLIP
@click.option(
    "--by",
    type=click.Choice(["series", "patient"]),
    default="series",
    show_default=True,
    help="Neighbours in the smoothing: of a series, or of all a patient's slices.",
)
def ensemble(runs: tuple[Path, ...], out: Path, weights: str | None, smoothing: "Smoothing", least: float, by: "By"
             ) -> None:  # fmt: skip
    """Blend the predictions of several runs, and score the blend.

    RUN is a run or a leaf of it that `ichseq evaluate` has scored, or a prediction table (CSV, Parquet).
    """
    from ichseq.evaluation.predicted import blend_predicted, find_predicted
    from ichseq.evaluation.report import metrics_text
    from ichseq.predictions.schema import count_exams
    from ichseq.predictions.write import check_writable, write_table

    shares = _numbers(weights)
    check_writable(out)
    every = [find_predicted(path) for path in runs]
    table, metrics = blend_predicted(every, shares, smoothing=smoothing, by=by, least=least)
    write_table(table, out)
    if metrics is not None:
        click.echo(metrics_text(metrics))
    click.echo(f"{counted(len(table), 'slice')} of {counted(count_exams(table), 'series')}: {out}")


def _numbers(weights: str | None) -> list[float] | None:
    try:
        return None if weights is None else [float(part) for part in weights.split(",")]
    except ValueError:
        raise ConfigError(f"--weights is {weights!r}; give numbers with commas, such as 1,2,1") from None


@click.command()
@click.argument("table", type=PATH)
@click.option("--sample", type=PATH, required=True, help="The competition's stage_2_sample_submission.csv.")
@click.option("-o", "--out", type=PATH, default="submission.csv", show_default=True, help="The submission, CSV.")
@_CLIP
def submit(table: Path, sample: Path, out: Path, least: float) -> None:
    """Write a table as a submission to the RSNA 2019 competition. Its rows are in the sample's order."""
    from ichseq.predictions.read import read_table
    from ichseq.predictions.submission import check_name, submission, write_submission
    from ichseq.predictions.write import check_writable

    check_name(out)
    check_writable(out)
    content = submission(read_table(table), sample, least=least)
    write_submission(content, out)
    click.echo(f"{counted(len(content), 'row')}: {out}")
