"""The command that runs experiments. What is heavy is imported inside it."""

from pathlib import Path
from typing import Any

import click

from ichseq import api
from ichseq.cli.group import progress_bar
from ichseq.cli.options import PATH, machine
from ichseq.data import DEFAULT_SET
from ichseq.errors import RunError, Stopped


class _Numbers(click.ParamType):
    """Whole numbers with commas, or one of some words."""

    name = "numbers"

    def __init__(self, *words: str) -> None:
        self.words = words

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int | str]:
        if isinstance(value, list):
            return value
        if value in ("", *self.words):
            return [value] if value else []
        if not all(part.isdecimal() for part in value.split(",")):
            self.fail(f"{value!r}: give {' or '.join(['numbers with commas', *self.words])}", param, ctx)
        return [int(part) for part in value.split(",")]


@click.command()
@click.argument("files", metavar="FILE...", type=PATH, nargs=-1)
@click.option("--data", type=PATH, default=DEFAULT_SET, show_default=True, help="The prepared set.")
@click.option(
    "--folds",
    type=_Numbers("all", "all-patients"),
    default="",
    help="Instead of the file's.",
)
@click.option("--seeds", type=_Numbers(), default="", help="Instead of train.seed: 0,1,2 runs each FILE three times.")
@click.option("--quick", is_flag=True, help="A small network from random weights, as quick.yaml beside FILE states it.")
@click.option("--runs", type=PATH, default="runs/experiments", show_default=True, help="Trainings and results.")
@click.option("--test", type=PATH, help="Another prepared set: all of it is scored, instead of the validation folds.")
@click.option("--table", type=PATH, help="Write the table of all results to this file.")
@click.option("--reference", help="With --table: the experiment that all are compared with.")
def experiment(
    files: tuple[Path, ...],
    data: Path,
    folds: list[int | str],
    seeds: list[int | str],
    quick: bool,
    runs: Path,
    test: Path | None,
    table: Path | None,
    reference: str | None,
) -> None:
    """Run experiment files from start to end.

    Run again, they go on where they stopped; what two have in common is trained once.
    """
    from ichseq.evaluation.report import metrics_text
    from ichseq.experiment.results import write_results
    from ichseq.experiment.run import Runner
    from ichseq.experiment.spec import load_spec
    from ichseq.runs.experiments import results_folder
    from ichseq.runs.names import METRICS
    from ichseq.runs.records import read_json

    if not api.one_process():
        raise RunError("experiments run in one process; use `torchrun -m ichseq train` for several")
    if not files and table is None:
        raise RunError("nothing to do; name an experiment file, or --table FILE for the results that are there")
    drawn: list[int | None] = [int(seed) for seed in seeds] or [None]
    specs = [load_spec(path, quick=quick, folds=folds, seed=seed) for seed in drawn for path in files]
    if files:
        runner = Runner(data, runs, bar=progress_bar, quick=quick, test=test)
        for spec in specs:
            try:
                out = runner.run(spec)
            except Stopped as stop:
                message = f"{spec.name}: stopped, saved; run the same command again to go on"
                raise Stopped(message, stop.exit_code) from None
            figures = metrics_text(read_json(out / METRICS)) if (out / METRICS).is_file() else ""
            click.echo(f"\n{out.name}\n{figures}\n{out}; its models answer: ichseq predict SOURCE --run {out}")
    if table is not None:
        asked = {"--folds": folds, "--seeds": seeds}
        words = ["ichseq experiment", *map(str, files), *(["--quick"] if quick else [])]
        words += [f"{name} {','.join(map(str, numbers))}" for name, numbers in asked.items() if numbers]
        words += [f"--test {test}"] if test is not None else []
        write_results(
            results_folder(runs, test is not None),
            table,
            reference=reference,
            command=" ".join(words),
            machine=machine(),
        )
        click.echo(f"table: {table}")
