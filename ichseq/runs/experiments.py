"""What an experiment leaves in its folder, written, and read back with checks.

predictions.parquet   its predictions, a row a slice
metrics.json          their figures, and what they were measured on
cost.json             what each stage and fold cost
models.json           the models that answer for it
experiment.yaml       the experiment as it was put together
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import pandas as pd
import yaml

from ichseq.documents import read_document
from ichseq.errors import DataError, RunError, counted
from ichseq.files import write_text
from ichseq.labels import LABELS
from ichseq.predictions.read import read_table
from ichseq.runs.names import COST, EXPERIMENT, METRICS, MODELS, PREDICTIONS, folds_text
from ichseq.runs.records import read_json, write_json

Number = int | float
Kinds = Mapping[str, Any]

_IN_METRICS: Final[Kinds] = {
    "name": str,
    "folds": list,
    "data_key": str,
    "data_series": int,
    "quick": bool,
    "weighted_log_loss": Number,
    "ratio_to_prior": Number | None,
    "labels": dict,
    "exam": dict,
    "intervals": dict,
    "n_slices": int,
    "n_exams": int,
    "n_patients": int,
}
_IN_STAGE: Final[Kinds] = {
    "fold": int,
    "passes": Number,
    "slices": int,
    "embedded_slices": int,
    "steps": int,
    "seconds": Number,
}


class Measured(NamedTuple):
    """What figures were measured on; those of two experiments are compared where all of it agrees.

    Attributes:
        data_key: of the prepared set.
        folds: whose validation parts were scored, in order.
        slices: in all of them.
    """

    data_key: str
    folds: tuple[int, ...]
    slices: int

    def unlike(self, other: "Measured") -> str:
        """In what this differs from another, in words."""
        reasons = []
        if self.data_key != other.data_key:
            reasons.append(f"data set {self.data_key}, not {other.data_key}")
        if self.folds != other.folds:
            reasons.append(f"{folds_text(self.folds)}, not {folds_text(other.folds)}")
        elif self.slices != other.slices:
            reasons.append(f"{counted(self.slices, 'slice')}, not {other.slices:,}")
        return "; ".join(reasons)


@dataclass(frozen=True)
class ExperimentResult:
    """The figures and costs that one experiment left.

    Attributes:
        folder: where it lies; its name is the experiment's.
        metrics: of all its folds, as `evaluate_table` returns them, with what they were measured on.
        stages: cost of each stage and fold.
    """

    folder: Path
    metrics: Mapping[str, Any]
    stages: Sequence[Mapping[str, Any]]

    @property
    def name(self) -> str:
        """Name of the experiment."""
        return self.folder.name

    @property
    def system(self) -> str:
        """What was trained; with several seeds, the same for all of them."""
        return self.metrics.get("system", self.name)

    @property
    def measured_on(self) -> Measured:
        """What its figures were measured on."""
        return Measured(self.metrics["data_key"], tuple(sorted(self.metrics["folds"])), self.metrics["n_slices"])

    @property
    def loss(self) -> float:
        """Weighted log loss."""
        return self.metrics["weighted_log_loss"]

    def table(self) -> pd.DataFrame:
        """Its predictions.

        Raises:
            DataError: the table is missing or damaged, or not the one that was scored.
        """
        path = self.folder / PREDICTIONS
        table = read_table(path)
        if len(table) != self.metrics["n_slices"]:
            raise DataError(
                f"{path}: {counted(len(table), 'slice')}, but {METRICS} beside it was made of "
                f"{self.metrics['n_slices']:,}; run the experiment again"
            )
        return table


def results_folder(runs: Path, test: bool) -> Path:
    """Where results lie; those of another set apart, so that one table holds one kind."""
    return runs / ("results-test" if test else "results")


def write_description(
    folder: Path, experiment: Mapping[str, Any], stages: Sequence[Mapping[str, Any]], models: Sequence[Path]
) -> None:
    """Write what an experiment's predictions stand on; predictions and figures of an earlier run of it are removed.

    Args:
        folder: of the experiment; made if need be.
        experiment: its settings by section, as they were put together.
        stages: what each training cost; one that stands twice is noted once, by its leaf.
        models: folders of the models that answer for it.

    Raises:
        RunError: something can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in (METRICS, PREDICTIONS):
            (folder / name).unlink(missing_ok=True)  # of another time, with other folds perhaps
        plain = json.loads(json.dumps(experiment))  # YAML has no tuples
        write_text(folder / EXPERIMENT, yaml.safe_dump(plain, sort_keys=False))
    except OSError as error:
        raise RunError(f"{folder}: can't be written ({error.strerror}); make room, or make it writable") from None
    write_json(folder / COST, {"stages": list({stage["leaf"]: stage for stage in stages}.values())})
    write_json(folder / MODELS, {"models": [os.path.relpath(model, folder) for model in models]})


def read_models(folder: Path) -> list[str]:
    """Folders of the models that answer for an experiment, relative to its own.

    Raises:
        RunError: the list is missing or damaged.
    """
    remedy = "run the experiment again"
    models = read_json(folder / MODELS, remedy).get("models")
    if not isinstance(models, list) or not all(isinstance(model, str) for model in models):
        raise RunError(f"{folder / MODELS}: names no models; {remedy}")
    return models


def read_results(folder: Path) -> list[ExperimentResult]:
    """The experiments of a folder by name.

    Raises:
        DataError: there is none, or one of its JSON files is missing or damaged.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; name the one that holds a folder for each experiment")
    found = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    # One that trained on all patients has models and no figures.
    found = [path for path in found if (path / METRICS).exists() or not (path / MODELS).exists()]
    if not found:
        raise DataError(f"{folder}: holds no experiment; run one first")
    return [_read(path) for path in found]


def _read(folder: Path) -> ExperimentResult:
    path = folder / METRICS
    metrics = _json(path)
    _check(path, metrics, _IN_METRICS)
    _check(path, metrics["labels"], dict.fromkeys(LABELS, dict), "labels.")
    for label in LABELS:
        _check(path, metrics["labels"][label], {"auc": Number | None}, f"labels.{label}.")
    _check(path, metrics["exam"], {"auc_any": Number | None}, "exam.")
    _check(path, metrics["intervals"], {"weighted_log_loss": list | None}, "intervals.")
    interval = metrics["intervals"]["weighted_log_loss"]
    if interval is not None and not (len(interval) == 2 and all(_is(end, Number) for end in interval)):
        raise DataError(f"{path}: interval {interval!r:.60} is not two numbers; run the experiment again")
    if metrics["name"] != folder.name:
        raise DataError(f"{path}: is of experiment {metrics['name']}; give its folder that name")
    if not metrics["folds"] or not all(_is(fold, int) for fold in metrics["folds"]):
        raise DataError(f"{path}: folds {metrics['folds']} are not numbers of folds; run the experiment again")
    path = folder / COST
    cost = _json(path)
    _check(path, cost, {"stages": list})
    for stage in cost["stages"]:
        _check(path, stage, _IN_STAGE)
    folds = {stage["fold"] for stage in cost["stages"]}
    if folds and folds != set(metrics["folds"]):
        raise DataError(
            f"{path}: is of {folds_text(folds)}, and {METRICS} of {folds_text(metrics['folds'])}; run the "
            "experiment again"
        )
    return ExperimentResult(folder, metrics, cost["stages"])


def _json(path: Path) -> Any:
    try:
        return read_document(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; finish the experiment, or move its folder away") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: can't be read ({type(error).__name__}); run the experiment again") from None


def _check(path: Path, content: Any, kinds: Kinds, within: str = "") -> None:
    if not isinstance(content, dict):
        raise DataError(f"{path}: is not what an experiment leaves; run the experiment again")
    for name, kind in kinds.items():
        if name not in content:
            raise DataError(f"{path}: has no {within}{name}; run the experiment again")
        if not _is(content[name], kind):
            raise DataError(f"{path}: {within}{name} is {content[name]!r:.60}; run the experiment again")


def _is(value: object, kind: Any) -> bool:
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))  # True is an int to Python
