"""Commands that train a network or ask it: train, evaluate, calibrate, predict; heavy imports stand inside."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import click

from ichseq import api
from ichseq.api import Evaluation, Fold, Stage
from ichseq.cli.group import progress_bar
from ichseq.cli.options import PATH, PSEUDONYMISE, SALT_FILE, SCHEDULER, SHOW_ID, FoldType, Views, default_of
from ichseq.errors import counted
from ichseq.networks.shipped import DEFAULT

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
@click.option("--init", type=PATH, help="Run, or name of a network, whose weights are the start.")
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
        asked = api.Asked(leaves[0].parents[1], leaves, fold)
        _show(api.evaluate_asked(asked, data=data, progress=progress_bar))
    elif fold != "all-patients":
        click.echo(f"next: ichseq evaluate --fold {fold} --run {leaves[0].parents[1]} --data {data}")


@click.command()
@click.option(
    "--fold",
    type=FoldType(),
    default=default_of(api.evaluate, "fold"),
    help="A fold, or all; default: 0, and of a set that the run was not trained on, every patient.",
)
@click.option("--run", type=PATH, help="runs/NAME or a leaf of it; default: the newest run.")
@_data(api.evaluate)
@_bag(api.evaluate)
@_tta(api.evaluate)
@click.option("--bleeds", type=PATH, help="Of phantoms, their truth/bleeds.csv: figures by the bleeding's volume.")
def evaluate(
    fold: Fold | None, run: Path | None, data: Path, bag: int, tta: Sequence[str], bleeds: Path | None
) -> None:
    """Score a run on patients that it did not train on.

    Of the set that it was trained on, those kept for validation; of another one, all.
    """
    from ichseq.networks.named import name_of

    asked = api.what_to_score(run, fold, data)
    click.echo(f"run: {', '.join(map(name_of, asked.folders))}")
    _show(api.evaluate_asked(asked, data=data, bag=bag, tta=tta, bleeds=bleeds, progress=progress_bar))


def _show(scored: Evaluation) -> None:
    click.echo(scored.text())
    click.echo(f"written: {scored.folder / 'metrics.json'}, evaluation.html, curves.csv")


@click.command()
@click.option("--run", type=PATH, required=True, help="runs/NAME or a leaf of it, evaluated.")
@click.option(
    "--fold",
    type=FoldType(),
    default=default_of(api.calibrate, "fold"),
    show_default=True,
    help="Whose validation part is fitted.",
)
@click.option("--data", type=PATH, help="Fit a set that the run never saw and was evaluated on, and not its folds.")
@click.option(
    "--method",
    type=click.Choice(["platt", "temperature"]),
    default=default_of(api.calibrate, "method"),
    show_default=True,
    help="Slope and intercept of the log odds, or the slope alone.",
)
def calibrate(run: Path, fold: Fold, data: Path | None, method: Literal["platt", "temperature"]) -> None:
    """Fit probabilities and thresholds on evaluated patients.

    They are saved with the run; `predict --calibrated` applies them, and `evaluate` scores at these thresholds.
    """
    from ichseq.evaluation.report import calibration_text
    from ichseq.runs.folders import home_of

    fitted = api.calibrate(run, fold, data=data, method=method)
    click.echo(calibration_text(fitted))
    click.echo(f"\nwritten: {home_of(run) / 'calibration.json'}")
    click.echo(f"next: ichseq predict PATH --run {run} --calibrated")


@click.command()
@click.argument("sources", type=PATH, nargs=-1, required=True)
@click.option(
    "--run",
    "runs",
    type=PATH,
    multiple=True,
    help="runs/NAME, a leaf, an experiment's result, an exported network (.onnx), or a network: one that ships, or "
    "hf-hub:owner/name@revision; may "
    f"be repeated. The mean over all of them and their folds. Default: {DEFAULT}, which ships.",
)
@click.option("-o", "--out", type=PATH, default="predictions.csv", show_default=True, help="CSV or Parquet.")
@click.option(
    "--order",
    type=click.Choice(["position", "instance", "file"]),
    default=default_of(api.predict, "order"),
    show_default=True,
    help="Of the slices; instance (InstanceNumber) and file (name) are for scans without positions.",
)
@click.option("--all-series", is_flag=True, help="Of a study every series; else the one that answers best.")
@click.option("--any-series", is_flag=True, help="Also what is surely no plain head CT: a chest, a map, empty images.")
@_bag(api.predict)
@_tta(api.predict)
@click.option("--calibrated", is_flag=True, help="Add calibrated and flagged columns, as `calibrate` fitted them.")
@click.option(
    "--point",
    default=default_of(api.predict, "point"),
    show_default=True,
    help="Operating point of the flags: sensitivity-0.95, sensitivity-0.9, specificity-0.9, youden.",
)
@SCHEDULER
@click.option("--report", type=PATH, help="Folder for pages for those who read scans: open its index.html.")
@SHOW_ID
@PSEUDONYMISE
@SALT_FILE
@click.option("--dicom", type=PATH, help="Folder for DICOM results: a report, key slices, a selection of them.")
@click.option("--dates", is_flag=True, help="Add date and time of acquisition to the tables of exams and of studies.")
@click.pass_context
def predict(
    ctx: click.Context,
    sources: tuple[Path, ...],
    runs: tuple[Path, ...],
    out: Path,
    order: "Order",
    all_series: bool,
    any_series: bool,
    bag: int,
    tta: Sequence[str],
    calibrated: bool,
    point: str,
    scheduler: str | None,
    report: Path | None,
    show_id: bool,
    pseudonymise: bool,
    salt_file: Path | None,
    dicom: Path | None,
    dates: bool,
) -> None:
    """Predict every slice of folders, zips, tars or DICOM files.

    Of a study with several series of the same head, the one that the network answers best on.
    Exit code: 0 everything was predicted, 1 nothing (an error), 3 a part.
    """
    from ichseq.predictions.answer import answer_lines
    from ichseq.predictions.write import exams_beside, studies_beside

    outcome = api.predict_scans(
        runs or None,
        sources,
        out=out,
        order=order,
        all_series=all_series,
        any_series=any_series,
        bag=bag,
        tta=tta,
        calibrated=calibrated,
        point=point,
        scheduler=scheduler,
        progress=progress_bar,
        report=report,
        show_id=show_id,
        dicom=dicom,
        pseudonymise=pseudonymise,
        salt_file=salt_file,
        dates=dates,
    )
    click.echo("\n".join(answer_lines(outcome.slices, outcome.exams)))
    of = f"{counted(len(outcome.slices), 'slice')} of {len(outcome.exams)} series"
    click.echo(f"{of}: {out}; by series {exams_beside(out)}, by study {studies_beside(out)}")
    if report is not None:
        click.echo(f"report: {report / 'index.html'}")
    if dicom is not None:
        click.echo(f"DICOM results: {dicom}")
    for line in outcome.remarks():
        click.echo(line, err=True)
    if outcome.failed or not all(item.expected for item in outcome.dicom_remarks):
        ctx.exit(PARTLY)
