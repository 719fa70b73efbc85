"""Folders as a finished experiment leaves them, for the tests that read them."""

import json
from pathlib import Path

import pandas as pd
from five_slices import five_slices

from ichseq.evaluation.metrics import evaluate_table
from ichseq.predictions.write import write_table

PREVALENCE = [None, None, None, None, None, 0.4]
TRUTH = [0.0, 1.0, 0.0, 1.0, 1.0]


def table_of(right: float) -> pd.DataFrame:
    """Five slices of two patients; p(any) of the right answer is `right` in all, so the loss is -log(right)."""
    return five_slices(patients="ppqqq", scores=[right if truth else 1 - right for truth in TRUTH], truth=TRUTH)


def stage(name: str, fold: int, **figures: object) -> dict[str, object]:
    """What a stage of one fold cost."""
    known = {"epochs": 3, "passes": 3.0, "slices": 1000, "embedded_slices": 0, "steps": 40, "seconds": 61.2}
    return {"stage": name, "fold": fold, "leaf": f"runs/x/{name}/fold{fold}"} | known | figures


STAGES = [stage("slice", 0), stage("slice", 1, seconds=70.0),
          stage("frozen", 0, passes=5.0, slices=0, embedded_slices=500),
          stage("frozen", 1, passes=6.0, slices=0, embedded_slices=700)]  # fmt: skip


def leave(results: Path, name: str, table: pd.DataFrame, /, *, stages: object = STAGES, **changes: object) -> Path:
    """Write an experiment's folder; `changes` replace entries of metrics.json."""
    folder = results / name
    folder.mkdir(parents=True)
    write_table(table, folder / "predictions.parquet")
    metrics = {"name": name, "folds": [0, 1], "data_key": "k1", "data_series": 3000, "quick": False}
    metrics |= evaluate_table(table, PREVALENCE, draws=50)
    (folder / "metrics.json").write_text(json.dumps(metrics | changes))
    (folder / "cost.json").write_text(json.dumps({"stages": stages}))
    return folder
