"""Evaluation of a run on the patients that were kept for validation: of one fold, or of all folds together."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ichseq.data.index import ALL_PATIENTS, Index
from ichseq.errors import DataError, RunError, counted
from ichseq.evaluation.score import score
from ichseq.inference.model_ensemble import ModelEnsemble
from ichseq.inference.predict import predict_prepared
from ichseq.predictions.check import count_shared_exams
from ichseq.predictions.read import read_exams
from ichseq.runs.folders import bag_of
from ichseq.runs.names import EXAMS
from ichseq.runs.patients import refuse_seen_patients
from ichseq.runs.records import read_run, write_scored

Progress = Callable[[int, int], object]


def evaluate_fold(
    leaf: Path,
    index: Index,
    *,
    bag: int = 0,
    tta: Sequence[str] = (),
    device: str = "auto",
    progress: Progress | None = None,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Predict the validation part of a leaf's fold and score it; both are written into the leaf.

    Args:
        leaf: of a run.
        index: the prepared set.
        bag: 0 asks the leaf's best weights; n, the mean over those of its last n epochs.
        tta: views that are asked beside the slices as they are.
        device: where the models compute; "auto": a GPU if there is one.
        progress: called with (series done, series in all).

    Raises:
        RunError: the run has trained on a patient of that fold of this set, or keeps fewer epochs than the bag has.
        DataError: the fold has no labels.
    """
    run = read_run(leaf)
    if run["fold"] == ALL_PATIENTS:
        raise RunError(f"{leaf}: was trained on every patient, so that none is left to score it on; name a fold")
    refuse_seen_patients(leaf, index, run["fold"])
    ensemble = ModelEnsemble.load(bag_of(leaf, bag), tta, device)
    predicted = predict_prepared(ensemble, index, index.validation_series(run["fold"]), progress=progress)
    table = predicted.slices
    metrics = score(table, [run["prevalence"]], index, run=str(leaf), fold=run["fold"], bag=bag, tta=list(tta))
    write_scored(leaf, table, metrics, predicted.exams)
    return table, metrics


def evaluate_all(
    leaves: list[Path],
    index: Index,
    *,
    bag: int = 0,
    tta: Sequence[str] = (),
    device: str = "auto",
    progress: Progress | None = None,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Score every fold's validation predictions as one table; both are written beside the folds' leaves.

    Each fold is predicted by the leaf that did not train on it, as `evaluate_fold` does it. The prior is the mean of
    the folds' training prevalences.

    Raises:
        RunError: a fold of the set has no leaf.
        DataError: an exam stands twice.
    """
    out = leaves[0].parent
    leaves = [leaf for leaf in leaves if read_run(leaf)["fold"] != ALL_PATIENTS]  # which kept no patient apart
    runs = [read_run(leaf) for leaf in leaves]
    missing = sorted(set(range(index.folds)) - {run["fold"] for run in runs})
    if missing:
        raise RunError(f"{out}: no run for fold {', '.join(map(str, missing))}; train it, or name one fold")
    asked: dict[str, Any] = {"bag": bag, "tta": tta, "device": device, "progress": progress}
    tables = [evaluate_fold(leaf, index, **asked)[0] for leaf in leaves]
    shared = count_shared_exams(tables)
    if shared:
        raise DataError(f"{out}: {counted(shared, 'exam')} in more than one fold's table; let one leaf stand for a "
                        "fold")  # fmt: skip
    table = pd.concat(tables, ignore_index=True)
    prevalences = [run["prevalence"] for run in runs]
    metrics = score(table, prevalences, index, run=str(out), fold="all", bag=bag, tta=list(tta))
    exams = pd.concat([read_exams(leaf / EXAMS) for leaf in leaves], ignore_index=True)
    write_scored(out, table, metrics, exams)
    return table, metrics
