"""The calibration of a run, fitted to what an evaluation has written: its folds' validation parts, or another set."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ichseq.data.index import ALL_PATIENTS, Index
from ichseq.errors import DataError, RunError, counted
from ichseq.evaluation.calibration import fit_calibration
from ichseq.evaluation.metrics import patients_of
from ichseq.predictions.calibration import Calibration, FittedOn, Method
from ichseq.predictions.check import count_shared_exams
from ichseq.predictions.read import read_exams, read_table
from ichseq.predictions.schema import TRUTH
from ichseq.runs.folders import find_leaves, set_folder
from ichseq.runs.names import EXAMS, METRICS, MODELS, PREDICTIONS
from ichseq.runs.records import read_json, read_predictions, read_run

_AGAIN = "run `ichseq evaluate` again"


def calibrate_folds(run: Path, fold: int | None, method: Method) -> Calibration:
    """Fit the validation predictions of a run's folds.

    Args:
        run: a run or a leaf.
        fold: its number; None: every fold that the run has.
        method: as for `fit_calibration`.

    Raises:
        RunError: no such run, a fold that was not evaluated, or folds evaluated on different sets or in different ways.
        DataError: a table is damaged, or an exam stands in two folds.
    """
    if (run / MODELS).is_file():
        raise RunError(f"{run}: an experiment's result is calibrated on a set that it never saw; name one with --data, "
                       "evaluated before")  # fmt: skip
    leaves = [leaf for leaf in find_leaves(run, fold) if read_run(leaf)["fold"] != ALL_PATIENTS]
    if not leaves:
        raise RunError(f"{run}: was trained on every patient, so that none is left to calibrate it on; name a set of "
                       "others with --data")  # fmt: skip
    slices = [read_predictions(leaf) for leaf in leaves]
    shared = count_shared_exams(slices)
    if shared:
        raise DataError(f"{run}: {counted(shared, 'exam')} in more than one fold; evaluate its folds on one prepared "
                        "set")  # fmt: skip
    return _fit(leaves, slices, [read_run(leaf)["fold"] for leaf in leaves], method)


def calibrate_set(run: Path, index: Index, method: Method) -> Calibration:
    """Fit the predictions of a set that a run never saw.

    Args:
        run: a run, a leaf, an experiment's result or the name of a network.
        index: the set.
        method: as for `fit_calibration`.

    Raises:
        RunError: no such run, or it was not evaluated on that set.
        DataError: a table is damaged.
    """
    folder = set_folder(run, index.folder, index.key)
    if not (folder / PREDICTIONS).is_file():
        raise RunError(f"{run}: was not evaluated on {index.folder}; run `ichseq evaluate --run {run} --data "
                       f"{index.folder}` first")  # fmt: skip
    return _fit([folder], [read_table(folder / PREDICTIONS)], [], method)


def _fit(folders: Sequence[Path], slices: Sequence[pd.DataFrame], folds: list[int], method: Method) -> Calibration:
    found = [_asked(folder) for folder in folders]
    for folder, asked in zip(folders, found, strict=True):
        differing = [name for name in asked if asked[name] != found[0][name]]
        if differing:
            raise RunError(f"{folders[0]} and {folder} were evaluated with another {' and '.join(differing)}; evaluate "
                           "them alike")  # fmt: skip
    table = pd.concat(slices, ignore_index=True)
    exams = pd.concat([read_exams(folder / EXAMS) for folder in folders], ignore_index=True)
    labelled = exams[exams[list(TRUTH)].notna().any(axis=1)]
    slices_labelled = int(table[list(TRUTH)].notna().any(axis=1).sum())
    fitted_on = FittedOn(**found[0], folds=folds, slices=slices_labelled, exams=len(labelled),
                         patients=int(patients_of(labelled).nunique()))  # fmt: skip
    return fit_calibration(table, exams, fitted_on, method)


def _asked(folder: Path) -> dict[str, Any]:
    """Which set an evaluation was of, and how the models were asked."""
    metrics = read_json(folder / METRICS, _AGAIN)
    try:
        return {name: metrics[name] for name in ("data_key", "phantom", "bag", "tta")}
    except KeyError as error:
        raise RunError(f"{folder / METRICS}: can't be read (it names no {error.args[0]}); {_AGAIN}") from None
