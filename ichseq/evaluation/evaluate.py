"""Evaluation of a run on the fold that it held out, or of all folds together."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ichseq.data.index import ALL_PATIENTS, Index
from ichseq.errors import DataError, RunError, counted
from ichseq.evaluation.metrics import EXAM_COLUMNS, evaluate_table
from ichseq.inference.panel import Panel
from ichseq.inference.predict import predict_prepared
from ichseq.predictions.write import write_table
from ichseq.runs.folders import bag_of, read_run, refuse_seen_patients, write_json

Progress = Callable[[int, int], object]


def evaluate_fold(
    leaf: Path,
    index: Index,
    *,
    bag: int = 0,
    tta: Sequence[str] = (),
    device: str = "cpu",
    progress: Progress | None = None,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Predict the fold that a leaf held out and score it; writes predictions.parquet and metrics.json into the leaf.

    Args:
        leaf: of a run.
        index: the prepared set.
        bag: 0 asks the leaf's best weights; n, the mean over those of its last n epochs.
        tta: views that are asked beside the slices as they are.
        device: where the models go.
        progress: called with (series done, series in all).

    Raises:
        RunError: the run has trained on a patient of that fold of this set, or keeps fewer epochs than the bag has.
        DataError: the fold has no labels.
    """
    run = read_run(leaf)
    if run["fold"] == ALL_PATIENTS:
        raise RunError(f"{leaf}: was trained on every patient, so that none is left to score it on; name a fold")
    refuse_seen_patients(leaf, index, run["fold"])
    panel = Panel.load(bag_of(leaf, bag), tta, device)
    table = predict_prepared(panel, index, index.validation_series(run["fold"]), progress=progress)
    metrics = {"run": str(leaf), "fold": run["fold"], "bag": bag, "tta": list(tta), "data_key": index.key}
    metrics |= {"phantom": index.phantom} | evaluate_table(table, run["prevalence"])
    write_table(table, leaf / "predictions.parquet")
    write_json(leaf / "metrics.json", metrics)
    return table, metrics


def evaluate_all(
    leaves: list[Path],
    index: Index,
    *,
    bag: int = 0,
    tta: Sequence[str] = (),
    device: str = "cpu",
    progress: Progress | None = None,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Score every fold's held-out predictions as one table; writes it beside the fold's leaves.

    Each fold is predicted by the leaf that held it out, as `evaluate_fold` does it. The prior is the mean of the folds'
    training prevalences.

    Raises:
        RunError: a fold of the set has no leaf.
        DataError: an exam stands twice.
    """
    out = leaves[0].parent
    leaves = [leaf for leaf in leaves if read_run(leaf)["fold"] != ALL_PATIENTS]  # it has held nobody out
    there = {read_run(leaf)["fold"] for leaf in leaves}
    missing = sorted(set(range(index.folds)) - there)
    if missing:
        raise RunError(f"{out}: no run for fold {', '.join(map(str, missing))}; train it, or name one fold")
    asked: dict[str, Any] = {"bag": bag, "tta": tta, "device": device, "progress": progress}
    tables = [evaluate_fold(leaf, index, **asked)[0] for leaf in leaves]
    twice = int(pd.concat([table[EXAM_COLUMNS].drop_duplicates() for table in tables]).duplicated().sum())
    if twice:
        raise DataError(f"{out}: {counted(twice, 'exam')} in more than one fold's table; let one leaf stand for a fold")
    table = pd.concat(tables, ignore_index=True)
    prevalences = [read_run(leaf)["prevalence"] for leaf in leaves]
    columns = list(zip(*prevalences, strict=True))
    prior = None if any(None in column for column in columns) else [sum(c) / len(c) for c in columns]
    metrics = {"run": str(out), "fold": "all", "bag": bag, "tta": list(tta), "data_key": index.key}
    metrics["phantom"] = index.phantom
    metrics |= evaluate_table(table, prior)
    write_table(table, out / "predictions.parquet")
    write_json(out / "metrics.json", metrics)
    return table, metrics
