"""Evaluation of a run on the fold that it held out, or of all folds together."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from ichseq.data.index import Index
from ichseq.errors import DataError, RunError, counted
from ichseq.evaluation.metrics import EXAM_COLUMNS, evaluate_table
from ichseq.inference.predict import predict_prepared
from ichseq.inference.tables import write_table
from ichseq.model import Model
from ichseq.training.runs import read_run, refuse_seen_patients, write_json

Progress = Callable[[int, int], object]


def evaluate_fold(
    leaf: Path, index: Index, *, device: str = "cpu", progress: Progress | None = None
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Predict the fold that a leaf held out and score it; writes predictions.parquet and metrics.json into the leaf.

    Raises:
        RunError: the run has trained on a patient of that fold of this set.
        DataError: the fold has no labels.
    """
    run = read_run(leaf)
    refuse_seen_patients(leaf, index, run["fold"])
    model = Model.load(leaf).to(device)
    table = predict_prepared([model], index, index.validation_series(run["fold"]), progress=progress)
    metrics = {"run": str(leaf), "fold": run["fold"], "data_key": index.key, "phantom": index.phantom}
    metrics |= evaluate_table(table, run["prevalence"])
    write_table(table, leaf / "predictions.parquet")
    write_json(leaf / "metrics.json", metrics)
    return table, metrics


def evaluate_all(
    leaves: list[Path], index: Index, *, device: str = "cpu", progress: Progress | None = None
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Score every fold's held-out predictions as one table; writes it beside the fold's leaves.

    Each fold is predicted by the leaf that held it out. The prior is the mean of the folds' training prevalences.

    Raises:
        RunError: a fold of the set has no leaf.
        DataError: an exam stands twice.
    """
    there = {read_run(leaf)["fold"] for leaf in leaves}
    missing = sorted(set(range(index.folds)) - there)
    if missing:
        raise RunError(
            f"{leaves[0].parent}: no run for fold {', '.join(map(str, missing))}; train it, or name one fold"
        )
    tables = [evaluate_fold(leaf, index, device=device, progress=progress)[0] for leaf in leaves]
    twice = int(pd.concat([table[EXAM_COLUMNS].drop_duplicates() for table in tables]).duplicated().sum())
    if twice:
        raise DataError(
            f"{leaves[0].parent}: {counted(twice, 'exam')} in more than one fold's table; let one leaf stand for a fold"
        )
    table = pd.concat(tables, ignore_index=True)
    prevalences = [read_run(leaf)["prevalence"] for leaf in leaves]
    columns = list(zip(*prevalences, strict=True))
    prior = None if any(None in column for column in columns) else [sum(c) / len(c) for c in columns]
    metrics = {"run": str(leaves[0].parent), "fold": "all", "data_key": index.key, "phantom": index.phantom}
    metrics |= evaluate_table(table, prior)
    write_table(table, leaves[0].parent / "predictions.parquet")
    write_json(leaves[0].parent / "metrics.json", metrics)
    return table, metrics
