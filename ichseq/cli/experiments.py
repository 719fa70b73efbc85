"""The command that runs experiments. What is heavy is imported inside it."""

from pathlib import Path
from typing import Any

import click

from ichseq.cli.group import progress_bar
from ichseq.cli.options import PATH
from ichseq.errors import RunError


class _Folds(click.ParamType):
    """Numbers with commas, `all` or `all-patients`."""

    name = "folds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int | str]:
        if isinstance(value, list):
            return value
        if value in ("", "all", "all-patients"):
            return [value] if value else []
        try:
            return [int(part) for part in value.split(",")]
        except ValueError:
            self.fail(f"{value!r} names no folds; give numbers with commas, all or all-patients", param, ctx)


@click.command()
@click.argument("files", metavar="FILE...", type=PATH, nargs=-1)
@click.option("--data", type=PATH, default="data/prepared", show_default=True, help="The prepared set.")
@click.option("--folds", type=_Folds(), default="", help="Instead of the file's: 0,1 or all or all-patients.")
@click.option("--quick", is_flag=True, help="A small network from random weights, as quick.yaml beside FILE states it.")
@click.option("--runs", type=PATH, default="runs/experiments", show_default=True, help="Trainings and results.")
@click.option("--table", type=PATH, help="Write the table of all results to this file.")
@click.option("--reference", help="With --table: the experiment that all are compared with.")
def experiment(
    files: tuple[Path, ...],
    data: Path,
    folds: list[int | str],
    quick: bool,
    runs: Path,
    table: Path | None,
    reference: str | None,
) -> None:
    """Run experiments from start to end, going on where they stopped; what two have in common is trained once."""
    from ichseq.evaluation.report import metrics_text
    from ichseq.experiment.results import write_results
    from ichseq.experiment.run import Runner
    from ichseq.experiment.spec import load_spec
    from ichseq.training.runs import read_json

    if not files and table is None:
        raise RunError("nothing to do; name an experiment file, or --table FILE for the results that are there")
    specs = [load_spec(path, quick=quick, folds=folds) for path in files]
    if files:
        runner = Runner(data, runs, bar=progress_bar, echo=click.echo, quick=quick)
        for spec in specs:
            out = runner.run(spec)
            figures = metrics_text(read_json(out / "metrics.json")) if (out / "metrics.json").is_file() else ""
            click.echo(f"\n{spec.name}\n{figures}\n{out}; its models answer: ichseq predict SOURCE --run {out}")
    if table is not None:
        write_results(runs / "results", table, reference=reference)
        click.echo(f"table: {table}")
