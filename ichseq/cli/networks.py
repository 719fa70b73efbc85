"""Commands that train a network or ask it: train, evaluate, predict, models.

What is heavy is imported inside each command.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from ichseq import api
from ichseq.api import Evaluation, Fold, Stage
from ichseq.cli.group import progress_bar
from ichseq.cli.options import PATH, SCHEDULER, FoldType, Views, default_of
from ichseq.errors import counted
from ichseq.networks.shipped import DEFAULT, card_of, described, shipped_names

if TYPE_CHECKING:
    from ichseq.ct.order import Order

PARTLY = 3  # exit code of predict where a part of the sources failed

_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _data(function: Callable[..., Any]) -> _Decorator:
    return click.option(
        "--data", type=PATH, default=default_of(function, "data"), show_default=True, help="The prepared set."
    )


def _bag(function: Callable[..., Any]) -> _Decorator:
    shown = "Mean over the weights of the last epochs; 0: the best."
    return click.option("--bag", default=default_of(function, "bag"), show_default=True, help=shown)


def _tta(function: Callable[..., Any]) -> _Decorator:
    shown = "Views averaged with the slices: flip,transpose."
    return click.option("--tta", type=Views(), default=default_of(function, "tta"), help=shown)


@click.command()
@click.option("--stage", type=click.Choice(get_args(Stage)), default=default_of(api.train, "stage"), show_default=True)
@click.option("-c", "--config", type=PATH, help="YAML with settings that differ from the defaults.")
@_data(api.train)
@click.option(
    "--fold",
    type=FoldType(),
    default=default_of(api.train, "fold"),
    show_default=True,
    help="For validation; all: in turn; all-patients: none.",
)
@click.option("-o", "--out", type=PATH, help="Folder of the run; default: runs/<time>.")
@click.option("--init", type=PATH, help="Run, or name of a network that ships, whose weights are the start.")
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint of the run.")
@click.option("--set", "settings", multiple=True, metavar="SECTION.KEY=VALUE", help="One setting; may be repeated.")
def train(
    stage: Stage,
    config: Path | None,
    data: Path,
    fold: Fold,
    out: Path | None,
    init: Path | None,
    resume: bool,
    settings: tuple[str, ...],
) -> None:
    """Train a stage of the network.

    joint trains everything, slice all but the sequence part, frozen the sequence part alone.
    """
    leaves = api.train_leaves(
        stage, fold, config=config, data=data, out=out, init=init, resume=resume, settings=settings
    )
    click.echo(f"trained: {', '.join(map(str, leaves))}")
    if fold == "all" and api.one_process():
        bag, tta = (default_of(api.evaluate, name) for name in ("bag", "tta"))
        _show(api.evaluate_leaves(leaves, fold, data=data, bag=bag, tta=tta, progress=progress_bar))
    elif fold != "all-patients":
        click.echo(f"next: ichseq evaluate --fold {fold} --run {leaves[0].parents[1]} --data {data}")


@click.command()
@click.option(
    "--fold", type=FoldType(), default=default_of(api.evaluate, "fold"), show_default=True, help="A fold, or all."
)
@click.option("--run", type=PATH, help="runs/NAME or a leaf of it; default: the newest run that has the fold.")
@_data(api.evaluate)
@_bag(api.evaluate)
@_tta(api.evaluate)
def evaluate(fold: Fold, run: Path | None, data: Path, bag: int, tta: Sequence[str]) -> None:
    """Score a run on the patients that it kept for validation."""
    leaves = api.leaves_to_score(run, fold, data)
    click.echo(f"run: {', '.join(map(str, leaves))}")
    _show(api.evaluate_leaves(leaves, fold, data=data, bag=bag, tta=tta, progress=progress_bar))


def _show(scored: Evaluation) -> None:
    click.echo(scored.text())
    click.echo(f"\nwritten: {scored.folder / 'metrics.json'}")


@click.command()
@click.argument("sources", type=PATH, nargs=-1, required=True)
@click.option(
    "--run",
    "runs",
    type=PATH,
    multiple=True,
    help="runs/NAME, a leaf, an experiment's result, or the name of a network that ships; may be repeated. The mean "
    f"over all of them and their folds. Default: {DEFAULT}, which ships.",
)
@click.option("-o", "--out", type=PATH, default="predictions.csv", show_default=True, help="CSV or Parquet.")
@click.option(
    "--order",
    type=click.Choice(["position", "instance", "file"]),
    default=default_of(api.predict, "order"),
    show_default=True,
    help="Of the slices; instance (InstanceNumber) and file (name) are for scans without positions.",
)
@_bag(api.predict)
@_tta(api.predict)
@SCHEDULER
@click.pass_context
def predict(
    ctx: click.Context,
    sources: tuple[Path, ...],
    runs: tuple[Path, ...],
    out: Path,
    order: "Order",
    bag: int,
    tta: Sequence[str],
    scheduler: str | None,
) -> None:
    """Predict every slice of folders, zips or DICOM files.

    Exit code: 0 everything was predicted, 1 nothing (an error), 3 a part.
    """
    from ichseq.predictions.write import EXAMS

    outcome = api.predict_scans(
        runs or None, sources, out=out, order=order, bag=bag, tta=tta, scheduler=scheduler, progress=progress_bar
    )
    of = f"{counted(len(outcome.slices), 'slice')} of {len(outcome.exams)} series"
    click.echo(f"{of}: {out}, and by series {out.with_name(EXAMS)}")
    for line in outcome.remarks():
        click.echo(line, err=True)
    if outcome.failed:
        ctx.exit(PARTLY)


@click.command()
@click.argument("name", required=False)
def models(name: str | None) -> None:
    """List the networks that ship with ichseq.

    With NAME, print its model card: what it was trained on and measured on, and where it fails.
    """
    if name is not None:
        click.echo(card_of(name).read_text(encoding="utf-8"))
        return
    click.echo("\n\n".join(map(described, shipped_names())) or "this copy of ichseq came without any network")
