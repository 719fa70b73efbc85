"""The demo: phantom scans to a trained network, its figures and a picture of what it found, in one folder."""

import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pandas as pd

from ichseq.config import load_config
from ichseq.ct.series import load_series
from ichseq.data.index import Index
from ichseq.data.prepare import prepare
from ichseq.errors import RunError
from ichseq.evaluation.evaluate import evaluate_fold
from ichseq.evaluation.pictures import plot_history, plot_montage
from ichseq.evaluation.report import metrics_text, write_results_page
from ichseq.inference.predict import PHANTOM_NOTE, predict_sources
from ichseq.labels import LABELS
from ichseq.model import Model
from ichseq.phantom import write_phantoms
from ichseq.predictions.write import write_table
from ichseq.training.train import train_stage

PATIENTS, SIZE, FOLD = 220, 128, 0
SMALL = Path(__file__).with_name("small.yaml")

Bar = Callable[[str, str], AbstractContextManager[Callable[[int, int], None]]]


def run_demo(out: Path, *, bar: Bar, echo: Callable[[str], object]) -> None:
    """Make phantoms, prepare them, train on fold 0, evaluate, and predict one held-out exam that bleeds.

    The joint stage is trained from a short slice stage, since the small network starts from random weights.

    Args:
        out: a new or empty folder.
        bar: gives a progress bar by name and unit.
        echo: prints a line.

    Raises:
        RunError: the folder holds something already, or can't be made.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out}: is there already; remove it, or choose another folder with -o")
    try:
        out.mkdir(parents=True, exist_ok=True)
        shutil.copy(SMALL, out / "small.yaml")
    except OSError as error:
        raise RunError(f"{out}: can't be made ({error.strerror}); choose another folder with -o") from None
    started = time.monotonic()
    with bar("phantoms", "patients") as progress:
        write_phantoms(out / "raw", patients=PATIENTS, test_patients=0, size=SIZE, progress=progress)
    with bar("prepare", "files") as progress:
        summary = prepare(out / "raw", out / "prepared", progress=progress)
    index = summary.index
    run, leaf, histories = out / "run", None, {}
    for stage in ("slice", "joint"):
        config = load_config(stage, out / "small.yaml")
        leaf = train_stage(config, stage, data=out / "prepared", fold=FOLD, out=run, init=leaf)
        histories[stage] = pd.read_csv(leaf / "history.csv")
    assert leaf is not None
    with bar("evaluate", "series") as progress:
        _, metrics = evaluate_fold(leaf, index, progress=progress)
    plot_history(histories, out / "training.png", prior=metrics["prior_weighted_log_loss"])
    _show_exam(leaf, index, out)
    minutes = (time.monotonic() - started) / 60
    then = [
        f"ichseq predict PATH/TO/DICOM --run {run}",
        f"ichseq train --stage slice -c {out / 'small.yaml'} --data {out / 'prepared'} --fold 2 -o {run}",
        f"ichseq train --stage joint -c {out / 'small.yaml'} --data {out / 'prepared'} --fold 2 -o {run} --init {run}",
        f"ichseq evaluate --fold 2 --run {run} --data {out / 'prepared'}",
    ]
    write_results_page(
        out,
        metrics,
        title="ichseq demo: bleeding found in made-up head CT",
        note=PHANTOM_NOTE,
        montage="montage.png",
        curves="training.png",
        next_steps=then,
    )
    echo(metrics_text(metrics))
    echo(f"\ndone in {minutes:.1f} minutes; open {out / 'index.html'} (montage.png, training.png beside it)")
    echo(f"next: {then[0]}")


def _show_exam(leaf: Path, index: Index, out: Path) -> None:
    """Predict one held-out exam that bleeds from its DICOM files, as a new scan would be, and draw it."""
    chosen = bleeding_exam(index, index.validation_series(FOLD))
    outcome = predict_sources([Model.load(leaf)], [index.files(chosen)])
    table = outcome.slices
    rows = slice(index.offsets[chosen], index.offsets[chosen + 1])
    for k, label in enumerate(LABELS):
        table[f"true_{label}"] = index.labels[rows, k]
    write_table(table, out / "predictions.csv")
    write_table(outcome.exams, out / "exams.csv")
    (series,) = load_series(index.files(chosen))
    plot_montage(series.hu, table, out / "montage.png", title="A held-out phantom, feet to head", note=PHANTOM_NOTE)


def bleeding_exam(index: Index, series: np.ndarray) -> int:
    """The series with the most different kinds of bleeding, and among those the most bleeding slices."""

    def amount(i: int) -> tuple[int, float]:
        labels = np.nan_to_num(index.labels[index.offsets[i] : index.offsets[i + 1]])
        return int(labels[:, :-1].any(0).sum()), float(labels[:, -1].sum())

    return int(max(series, key=lambda i: amount(int(i))))
