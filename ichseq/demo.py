"""The demo: phantom scans to a trained network, its figures, and pages of what it found, in one folder."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from ichseq.api import Bar, Stage, evaluate, predict_scans, prepare, train
from ichseq.ct.series import load_series
from ichseq.data.index import Index
from ichseq.errors import RunError
from ichseq.evaluation.pictures import plot_history, plot_montage
from ichseq.evaluation.report import write_results_page
from ichseq.files import is_taken
from ichseq.inference.notes import PHANTOM_NOTE
from ichseq.labels import LABELS
from ichseq.phantom import write_phantoms
from ichseq.predictions.write import write_tables

SMALL = Path(__file__).with_name("small.yaml")
STAGES: tuple[Stage, ...] = ("slice", "joint")
REPORT = "report"
_READ = 8  # validation exams in the report, so that it takes seconds


def run_demo(
    out: Path,
    *,
    bar: Bar,
    echo: Callable[[str], object],
    patients: int = 220,
    size: int = 128,
    fold: int = 0,
    config: Path = SMALL,
) -> None:
    """Make phantoms, prepare them, train, evaluate, and report on a few validation exams.

    The joint stage is trained from a short slice stage, since the small network starts from random weights.

    Args:
        out: a new or empty folder.
        bar: gives a progress bar by name and unit.
        echo: prints a line.
        patients: how many are made up.
        size: rows and columns of their slices.
        fold: the fold that is kept for validation.
        config: YAML with the settings.

    Raises:
        RunError: the folder holds something already, or can't be made.
    """
    if is_taken(out):
        raise RunError(f"{out}: is there already; remove it, or choose another folder with -o")
    settings, data, run = out / "small.yaml", out / "prepared", out / "run"
    try:
        out.mkdir(parents=True, exist_ok=True)
        shutil.copy(config, settings)
    except OSError as error:
        raise RunError(f"{out}: can't be made ({error.strerror}); choose another folder with -o") from None
    started = time.monotonic()
    with bar("phantoms", "patients") as progress:
        write_phantoms(out / "raw", patients=patients, test_patients=0, size=size, progress=progress)
    index = prepare(out / "raw", data, progress=bar).index
    for stage, init in zip(STAGES, (None, run), strict=True):
        train(stage, fold, config=settings, data=data, out=run, init=init)
    scored = evaluate(run, fold, data=data, progress=bar)
    histories: dict[str, pd.DataFrame] = {
        stage: pd.read_csv(run / stage / scored.folder.name / "history.csv") for stage in STAGES
    }
    plot_history(histories, out / "training.png", prior=scored.metrics["prior_weighted_log_loss"])
    _read_exams(run, index, fold, out, bar)
    minutes = (time.monotonic() - started) / 60
    then = _next_steps(settings, data, run, index, fold)
    write_results_page(
        out,
        scored.metrics,
        title="ichseq demo: bleeding found in made-up head CT",
        note=PHANTOM_NOTE,
        montage="montage.png",
        curves="training.png",
        next_steps=then,
        report=f"{REPORT}/index.html",
    )
    echo(scored.text())
    echo(f"\ndone in {minutes:.1f} minutes; open {out / REPORT / 'index.html'}, the report, and {out / 'index.html'}, "
         "the figures (montage.png, training.png beside it)")  # fmt: skip
    echo(f"next: {then[0]}")


def _next_steps(settings: Path, data: Path, run: Path, index: Index, fold: int) -> list[str]:
    """Commands to go on with: a scan predicted, and another fold."""
    other = (fold + 2) % index.folds
    trained = f"-c {settings} --data {data} --fold {other} -o {run}"
    return [
        f"ichseq predict PATH/TO/DICOM --run {run}",
        f"ichseq train --stage slice {trained}",
        f"ichseq train --stage joint {trained} --init {run}",
        f"ichseq evaluate --fold {other} --run {run} --data {data}",
    ]


def _read_exams(run: Path, index: Index, fold: int, out: Path, bar: Bar) -> None:
    """Predict a few validation exams from their DICOM files, as new scans would be, with pages of all; draw one."""
    validation = index.validation_series(fold)
    shown = bleeding_exam(index, validation)
    chosen = [shown, *(int(i) for i in validation if i != shown)][:_READ]
    files = [file for i in chosen for file in index.files(i)]
    outcome = predict_scans(run, files, progress=bar, report=out / REPORT)
    known = {uid: index.labels[index.offsets[i] + k] for i in chosen for k, uid in enumerate(index.sop_uids(i))}
    table = outcome.slices
    truth = np.stack([known[uid] for uid in table["sop_uid"]])
    for k, label in enumerate(LABELS):
        table[f"true_{label}"] = truth[:, k]
    write_tables({out / "predictions.csv": table, out / "exams.csv": outcome.exams})
    (series,) = load_series(index.files(shown))
    own = table[table["series_uid"] == series.series_uid]
    plot_montage(
        series.hu, own, out / "montage.png", title="A phantom kept for validation, feet to head", note=PHANTOM_NOTE
    )


def bleeding_exam(index: Index, series: np.ndarray) -> int:
    """The series with the most different kinds of bleeding, and among those the most bleeding slices."""

    def amount(i: int) -> tuple[int, float]:
        labels = np.nan_to_num(index.labels[index.offsets[i] : index.offsets[i + 1]])
        return int(labels[:, :-1].any(0).sum()), float(labels[:, -1].sum())

    return int(max(series, key=lambda i: amount(int(i))))
