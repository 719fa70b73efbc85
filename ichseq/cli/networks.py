"""Commands that train a network or ask it: train, evaluate, predict. What is heavy is imported inside each command."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ichseq.cli.group import progress_bar
from ichseq.cli.options import BAG, PATH, SCHEDULER, TTA, Fold, device
from ichseq.errors import counted

if TYPE_CHECKING:
    from ichseq.ct.order import Order

PARTLY = 3  # exit code of predict where a part of the sources failed


@click.command()
@click.option("--stage", default="joint", show_default=True, help="slice, frozen or joint.")
@click.option("-c", "--config", "path", type=PATH, help="YAML with settings that differ from the defaults.")
@click.option("--data", type=PATH, default="data/prepared", show_default=True, help="The prepared set.")
@click.option(
    "--fold", "folds", type=Fold(), default="0", show_default=True, help="Held out; all: in turn; all-patients: none."
)
@click.option("-o", "--out", type=PATH, help="Folder of the run; default: runs/<time>.")
@click.option("--init", type=PATH, help="Run whose weights are the start.")
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint of the run.")
@click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="One setting; may be repeated.")
def train(
    stage: str,
    path: Path | None,
    data: Path,
    folds: list[int],
    out: Path | None,
    init: Path | None,
    resume: bool,
    overrides: tuple[str, ...],
) -> None:
    """Train a stage of the network: joint (everything), slice (no sequence) or frozen (the sequence part alone)."""
    import os
    import time

    from ichseq.data.index import ALL_PATIENTS
    from ichseq.errors import RunError
    from ichseq.runs.folders import RUNS, newest_run
    from ichseq.training.folds import train_folds

    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    if out is None and not alone:
        raise RunError("several processes need one name for the run: give it with -o")
    if out is None:
        newest = newest_run(folds[0] if folds else None, stage) if resume else None
        out = newest or RUNS / time.strftime("%Y%m%d-%H%M%S")
    leaves = train_folds(stage, folds, path=path, overrides=overrides, data=data, out=out, init=init, resume=resume)
    click.echo(f"trained: {', '.join(map(str, leaves))}")
    if not folds and alone:
        _score(leaves, None, data, 0, [])
    elif folds != [ALL_PATIENTS]:
        click.echo(f"next: ichseq evaluate --fold {folds[0] if folds else 'all'} --run {out} --data {data}")


@click.command()
@click.option("--fold", "folds", type=Fold(), default="0", show_default=True, help="A fold, or all.")
@click.option("--run", type=PATH, help="runs/NAME or a leaf of it; default: the newest run that has the fold.")
@click.option("--data", type=PATH, default="data/prepared", show_default=True, help="The prepared set.")
@BAG
@TTA
def evaluate(folds: list[int], run: Path | None, data: Path, bag: int, tta: list[str]) -> None:
    """Score a run on the patients that it held out."""
    from ichseq.data.index import Index
    from ichseq.runs.folders import find_leaves, newest_run

    number = folds[0] if folds else None
    if number is not None:
        Index.load(data).validation_series(number)  # a fold that the set lacks is the user's first mistake to hear of
    leaves = find_leaves(run if run is not None else newest_run(number), number)
    click.echo(f"run: {', '.join(map(str, leaves))}")
    _score(leaves, number, data, bag, tta)


def _score(leaves: list[Path], number: int | None, data: Path, bag: int, tta: list[str]) -> None:
    """Score one fold's leaf, or all folds' together."""
    from ichseq.data.index import Index
    from ichseq.evaluation.evaluate import evaluate_all, evaluate_fold
    from ichseq.evaluation.report import metrics_text

    index = Index.load(data)
    with progress_bar("evaluate", "series") as progress:
        if number is None:
            _, metrics = evaluate_all(leaves, index, bag=bag, tta=tta, device=device(), progress=progress)
        else:
            _, metrics = evaluate_fold(leaves[0], index, bag=bag, tta=tta, device=device(), progress=progress)
    click.echo(metrics_text(metrics))
    click.echo(f"\nwritten: {(leaves[0].parent if number is None else leaves[0]) / 'metrics.json'}")


@click.command()
@click.argument("sources", type=PATH, nargs=-1, required=True)
@click.option(
    "--run",
    "runs",
    type=PATH,
    required=True,
    multiple=True,
    help="runs/NAME, a leaf, or an experiment's result; may be repeated. The mean over all of them and their folds.",
)
@click.option("-o", "--out", type=PATH, default="predictions.csv", show_default=True, help="CSV or Parquet.")
@click.option(
    "--order",
    type=click.Choice(["position", "instance", "file"]),
    default="position",
    show_default=True,
    help="Of the slices; instance (InstanceNumber) and file (name) are for scans without positions.",
)
@BAG
@TTA
@SCHEDULER
@click.pass_context
def predict(
    ctx: click.Context,
    sources: tuple[Path, ...],
    runs: tuple[Path, ...],
    out: Path,
    order: "Order",
    bag: int,
    tta: list[str],
    scheduler: str | None,
) -> None:
    """Predict every slice of every series in folders, zips or DICOM files.

    Exit code: 0 everything was predicted, 1 nothing (an error), 3 a part.
    """
    from ichseq.cluster import dask_cluster
    from ichseq.inference.cluster import predict_distributed
    from ichseq.inference.model_ensemble import ModelEnsemble
    from ichseq.inference.predict import phantom_note, predict_sources
    from ichseq.predictions.write import exams_beside, write_table
    from ichseq.runs.folders import models_of

    exams = exams_beside(out)
    folders = [folder for run in runs for folder in models_of(run, bag)]
    models = ModelEnsemble.load(folders, tta)
    predictor = models if scheduler is None else predict_distributed(folders, tta)
    with dask_cluster(scheduler), progress_bar("predict", "series") as progress:
        outcome = predict_sources(predictor, sources, note=phantom_note(models.models), order=order, progress=progress)
    write_table(outcome.slices, out)
    write_table(outcome.exams, exams)
    click.echo(f"{counted(len(outcome.slices), 'slice')} of {len(outcome.exams)} series: {out}, and by series {exams}")
    for line in outcome.remarks():
        click.echo(line, err=True)
    if outcome.failed:
        ctx.exit(PARTLY)
