"""The command line: parsing and printing only. What is heavy is imported inside each command."""

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ichseq import __version__
from ichseq.errors import IchseqError, Stopped, counted
from ichseq.table_commands import ensemble, submit

if TYPE_CHECKING:
    from ichseq.ct.order import Order

PARTLY = 3  # exit code of predict where a part of the sources failed

_AFTER_A_STOP = {
    "prepare": "stopped; what was read is kept: run the same command again to go on",
    "demo": "stopped; its folder is not finished: remove it before another try",
    "evaluate": "stopped; what was scored until then is written, the rest is not: run the same command again",
    "predict": "stopped; the tables are not written, or not both: run the same command again",
}

_PATH = click.Path(path_type=Path)


_SCHEDULER = click.option(
    "--scheduler", metavar="ADDRESS", help="Work on a Dask cluster: its scheduler's address, such as tcp://node1:8786."
)


class _Fold(click.ParamType):
    """A fold's number, `all` (None) or `all-patients` (-1, as ichseq.data.index.ALL_PATIENTS)."""

    name = "fold"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        named: dict[str, list[int]] = {"all": [], "all-patients": [-1]}
        if isinstance(value, list):
            return value
        if value not in named and not value.isdigit():
            self.fail(f"{value!r} is no fold; give a number, all or all-patients", param, ctx)
        return named[value] if value in named else [int(value)]


_NOTHING_WRITTEN = "stopped; nothing was written"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, raised where the program stands, so that what was begun is taken back."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number


class _Signals:
    """What Ctrl-C and SIGTERM do while a command runs; the second one leaves at once. `train` has its own."""

    working = False  # set by the first progress bar

    def __enter__(self) -> "_Signals":
        _Signals.working = False
        self.before = {}
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._stop) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    @staticmethod
    def _stop(number: int, _frame: object) -> None:
        for other in _SIGNALS:
            signal.signal(other, signal.SIG_DFL)
        if not _Signals.working:
            # Modules are being imported, perhaps, and some of them take an exception for something else.
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"{_NOTHING_WRITTEN}\n".encode())
            os._exit(128 + number)
        raise _Interrupted(number)


class _Group(click.Group):
    """Prints the message of an expected error on one line; --debug shows where it came from."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _Signals():
                return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Stopped as stopped:
            click.echo(str(stopped), err=True)
            ctx.exit(stopped.exit_code)
        except KeyboardInterrupt as stop:
            click.echo(_AFTER_A_STOP.get(str(ctx.invoked_subcommand), _NOTHING_WRITTEN), err=True)
            ctx.exit(stop.exit_code if isinstance(stop, _Interrupted) else 130)
        except Exception as error:
            if ctx.params.get("debug"):
                traceback.print_exc()
            if isinstance(error, IchseqError):
                click.echo(f"Error: {error}", err=True)
            else:
                known = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
                click.echo(f"Error: {known} (unexpected; `ichseq --debug ...` shows where, please report it)", err=True)
            ctx.exit(1)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(__version__, prog_name="ichseq")
def main(debug: bool) -> None:
    """Find bleeding in head CT: one network over whole series, from DICOM to probabilities."""


main.add_command(ensemble)
main.add_command(submit)


@main.command()
@click.option("-o", "--out", type=_PATH, default="demo", show_default=True, help="Folder for everything it makes.")
def demo(out: Path) -> None:
    """Make phantom scans, train a small network on them, and show what it finds."""
    from ichseq.demo import run_demo

    run_demo(out, bar=_bar, echo=click.echo)


@main.command()
@click.argument("out", type=_PATH)
@click.option("--patients", default=60, show_default=True, help="Patients with labels.")
@click.option("--test-patients", default=10, show_default=True, help="Patients of the test part.")
@click.option("--size", default=512, show_default=True, help="Rows and columns of a slice.")
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same bytes.")
@click.option("--workers", type=int, help="Processes; default: as many as there are cores.")
def phantom(out: Path, patients: int, test_patients: int, size: int, seed: int, workers: int | None) -> None:
    """Make up head CT with bleeding, as DICOM in the layout of the RSNA 2019 set."""
    from ichseq.ct.phantom import write_phantoms

    with _bar("phantoms", "patients") as progress:
        write_phantoms(
            out,
            patients=patients,
            test_patients=test_patients,
            size=size,
            seed=seed,
            workers=workers,
            progress=progress,
        )
    click.echo(f"{patients} + {test_patients} made-up patients in {out}; next: ichseq prepare {out}")


@main.command()
@click.argument("source", type=_PATH)
@click.option("-o", "--out", type=_PATH, default="data/prepared", show_default=True, help="The prepared set.")
@click.option("--labels", type=_PATH, help="Label table; default: stage_2_train.csv in the source, if there.")
@click.option("--folds", default=5, show_default=True, help="Number of folds, by patient.")
@click.option("--seed", default=0, show_default=True, help="Seed of the folds.")
@click.option("--workers", type=int, help="Processes; default: as many as there are cores.")
@_SCHEDULER
def prepare(
    source: Path, out: Path, labels: Path | None, folds: int, seed: int, workers: int | None, scheduler: str | None
) -> None:
    """Read the DICOM files of a folder or zip once into a set to train on; run again, it does what is missing."""
    from ichseq.cluster import dask_cluster
    from ichseq.data.prepare import prepare as prepare_set

    with dask_cluster(scheduler), _bar("prepare", "files") as progress:
        summary = prepare_set(source, out, labels=labels, folds=folds, seed=seed, workers=workers, progress=progress)
    click.echo(summary.text())


@main.command()
@click.option("--stage", default="joint", show_default=True, help="slice, frozen or joint.")
@click.option("-c", "--config", "path", type=_PATH, help="YAML with settings that differ from the defaults.")
@click.option("--data", type=_PATH, default="data/prepared", show_default=True, help="The prepared set.")
@click.option(
    "--fold", "folds", type=_Fold(), default="0", show_default=True, help="Held out; all: in turn; all-patients: none."
)
@click.option("-o", "--out", type=_PATH, help="Folder of the run; default: runs/<time>.")
@click.option("--init", type=_PATH, help="Run whose weights are the start.")
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
    import time

    from ichseq.data.index import ALL_PATIENTS
    from ichseq.errors import RunError
    from ichseq.training.folds import train_folds
    from ichseq.training.runs import RUNS, newest_run

    if out is None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RunError("several processes need one name for the run: give it with -o")
    if out is None:
        newest = newest_run(folds[0] if folds else None, stage) if resume else None
        out = newest or RUNS / time.strftime("%Y%m%d-%H%M%S")
    leaves = train_folds(stage, folds, path=path, overrides=overrides, data=data, out=out, init=init, resume=resume)
    click.echo(f"trained: {', '.join(map(str, leaves))}")
    if folds != [ALL_PATIENTS]:
        click.echo(f"next: ichseq evaluate --fold {folds[0] if folds else 'all'} --run {out} --data {data}")


@main.command()
@click.option("--fold", "folds", type=_Fold(), default="0", show_default=True, help="A fold, or all.")
@click.option("--run", type=_PATH, help="runs/NAME or a leaf of it; default: the newest run that has the fold.")
@click.option("--data", type=_PATH, default="data/prepared", show_default=True, help="The prepared set.")
def evaluate(folds: list[int], run: Path | None, data: Path) -> None:
    """Score a run on the patients that it held out."""
    from ichseq.data.index import Index
    from ichseq.evaluation.evaluate import evaluate_all, evaluate_fold
    from ichseq.evaluation.report import metrics_text
    from ichseq.training.runs import find_leaves, newest_run

    number = folds[0] if folds else None
    index = Index.load(data)
    if number is not None:
        index.validation_series(number)  # a fold that the set lacks is the user's first mistake to hear of
    leaves = find_leaves(run if run is not None else newest_run(number), number)
    click.echo(f"run: {', '.join(map(str, leaves))}")
    with _bar("evaluate", "series") as progress:
        if number is None:
            _, metrics = evaluate_all(leaves, index, device=_device(), progress=progress)
        else:
            _, metrics = evaluate_fold(leaves[0], index, device=_device(), progress=progress)
    click.echo(metrics_text(metrics))
    click.echo(f"\nwritten: {(leaves[0].parent if number is None else leaves[0]) / 'metrics.json'}")


@main.command()
@click.argument("sources", type=_PATH, nargs=-1, required=True)
@click.option("--run", type=_PATH, required=True, help="runs/NAME or a leaf of it; several folds: their mean.")
@click.option("-o", "--out", type=_PATH, default="predictions.csv", show_default=True, help="CSV or Parquet.")
@click.option(
    "--order",
    type=click.Choice(["position", "instance", "file"]),
    default="position",
    show_default=True,
    help="Of the slices; instance (InstanceNumber) and file (name) are for scans without positions.",
)
@_SCHEDULER
@click.pass_context
def predict(
    ctx: click.Context, sources: tuple[Path, ...], run: Path, out: Path, order: "Order", scheduler: str | None
) -> None:
    """Predict every slice of every series in folders, zips or DICOM files.

    Exit code: 0 everything was predicted, 1 nothing (an error), 3 a part.
    """
    from ichseq.cluster import dask_cluster
    from ichseq.inference.cluster import predict_there
    from ichseq.inference.predict import phantom_note, predict_sources
    from ichseq.inference.tables import exams_beside, write_table
    from ichseq.model import Model
    from ichseq.training.runs import find_leaves

    exams = exams_beside(out)
    leaves = find_leaves(run)
    models = [Model.load(leaf).to(_device()) for leaf in leaves]
    predicting = models if scheduler is None else predict_there(leaves)
    with dask_cluster(scheduler), _bar("predict", "series") as progress:
        outcome = predict_sources(predicting, sources, note=phantom_note(models), order=order, progress=progress)
    write_table(outcome.slices, out)
    write_table(outcome.exams, exams)
    click.echo(f"{counted(len(outcome.slices), 'slice')} of {len(outcome.exams)} series: {out}, and by series {exams}")
    for line in outcome.remarks():
        click.echo(line, err=True)
    if outcome.failed:
        ctx.exit(PARTLY)


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


@contextmanager
def _bar(name: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error, moved by calls of (done, total)."""
    from tqdm import tqdm

    _Signals.working = True
    with tqdm(desc=name, unit=f" {unit}", file=sys.stderr) as bar:

        def move(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield move
