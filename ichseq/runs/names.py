"""What folds, and the files and folders of a run and of an experiment, are called.

runs/<name>/<stage>/fold<K>/        a leaf: one stage trained on all folds but one
runs/<name>/<stage>/all-patients/   a leaf of a stage that was trained on every patient, with no validation

of a leaf, by training     config.yaml, run.json, log.txt, history.csv, last/ (checkpoints),
                           weights.safetensors and model.json (the best epoch), epochs/epoch-<E>/ (the last ones)
of a leaf, by evaluation   predictions.parquet, exams.parquet, metrics.json, curves.csv, evaluation.html and .png; those
                           of all folds stand beside the leaves, those of another set in sets/<set>/
of a leaf, by calibration  calibration.json; that of all folds stands beside the leaves
of an experiment           predictions.parquet, metrics.json, cost.json, models.json, experiment.yaml
"""

from collections.abc import Iterable
from typing import Final

from ichseq.data.index import ALL_PATIENTS

CONFIG: Final = "config.yaml"
RUN: Final = "run.json"
LOG: Final = "log.txt"
HISTORY: Final = "history.csv"
CHECKPOINTS: Final = "last"
EPOCHS: Final = "epochs"

# As `Model.save` calls them; tests/test_run_folders.py sees that they agree.
WEIGHTS: Final = "weights.safetensors"
MODEL: Final = "model.json"

PREDICTIONS: Final = "predictions.parquet"
EXAMS: Final = "exams.parquet"
METRICS: Final = "metrics.json"
CURVES: Final = "curves.csv"
PAGE: Final = "evaluation.html"
PICTURE: Final = "evaluation.png"
SETS: Final = "sets"
CALIBRATION: Final = "calibration.json"

EXPERIMENT: Final = "experiment.yaml"
COST: Final = "cost.json"
MODELS: Final = "models.json"


def fold_name(fold: int) -> str:
    """Name of a fold's folder."""
    return fold_words(fold).replace(" ", "")


def fold_words(fold: int) -> str:
    """A fold in words."""
    return "all-patients" if fold == ALL_PATIENTS else f"fold {fold}"


def folds_text(folds: Iterable[int]) -> str:
    """Several folds in words, in order."""
    folds = sorted(folds)
    return f"fold{'s' * (len(folds) > 1)} {', '.join(map(str, folds))}"
