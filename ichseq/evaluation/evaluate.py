"""Evaluation of a run: on patients that it kept for validation, of a fold or all, or on a set that it never saw."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ichseq.data.index import ALL_PATIENTS, Index
from ichseq.errors import DataError, RunError, counted
from ichseq.evaluation.judge import Scans, curves, judge
from ichseq.evaluation.page import write_evaluation_page
from ichseq.evaluation.score import Prevalence, score
from ichseq.evaluation.subgroups import bleed_volumes, characteristics
from ichseq.inference.model_ensemble import ModelEnsemble
from ichseq.inference.predict import predict_prepared
from ichseq.networks.named import is_network
from ichseq.predictions.calibration import Calibration
from ichseq.predictions.check import count_shared_exams
from ichseq.predictions.write import write_table
from ichseq.runs.calibration import calibration_in, find_calibration
from ichseq.runs.folders import bag_of, models_of, set_folder
from ichseq.runs.names import CURVES
from ichseq.runs.patients import refuse_seen_patients, refuse_seen_set
from ichseq.runs.records import read_run, write_scored

Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class Scored:
    """What an evaluation gave, and has written.

    Attributes:
        slices: the prediction table, with the truth.
        exams: the table of exams, with the truth.
        metrics: the content of metrics.json.
        folder: where all of it is.
        series: numbers of the exams' series in the set.
    """

    slices: pd.DataFrame
    exams: pd.DataFrame
    metrics: dict[str, Any]
    folder: Path
    series: np.ndarray


def evaluate_fold(
    leaf: Path,
    index: Index,
    *,
    bag: int = 0,
    tta: Sequence[str] = (),
    device: str = "auto",
    bleeds: Path | None = None,
    progress: Progress | None = None,
) -> Scored:
    """Predict the validation part of a leaf's fold and score it; all of it is written into the leaf.

    Args:
        leaf: of a run.
        index: the prepared set.
        bag: 0 asks the leaf's best weights; n, the mean over those of its last n epochs.
        tta: views that are asked beside the slices as they are.
        device: where the models compute; "auto": a GPU if there is one.
        bleeds: of phantoms, their table of bleeds, for figures by the bleeding's volume.
        progress: called with (series done, series in all).

    Raises:
        RunError: the run has trained on a patient of that fold of this set, or keeps fewer epochs than the bag has.
        DataError: the fold has no labels.
    """
    run = read_run(leaf)
    if run["fold"] == ALL_PATIENTS:
        raise RunError(f"{leaf}: was trained on every patient, so that none is left to score it on; name a fold, or a "
                       "set of others with --data")  # fmt: skip
    remarks = refuse_seen_patients(leaf, index, run["fold"])
    ensemble = ModelEnsemble.load(bag_of(leaf, bag), tta, device)
    series = index.validation_series(run["fold"])
    predicted = predict_prepared(ensemble, index, series, progress=progress)
    identity = {"run": str(leaf), "fold": run["fold"], "bag": bag, "tta": list(tta), "weights": ensemble.hashes}
    identity |= {"remarks": remarks} if remarks else {}
    calibration = calibration_in(leaf, leaf.parent)
    return _score(
        leaf, index, series, predicted.slices, predicted.exams, [run["prevalence"]], calibration, bleeds, identity
    )


def evaluate_all(
    leaves: list[Path],
    index: Index,
    *,
    bag: int = 0,
    tta: Sequence[str] = (),
    device: str = "auto",
    bleeds: Path | None = None,
    progress: Progress | None = None,
) -> Scored:
    """Score every fold's validation predictions as one table; all of it is written beside the folds' leaves.

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
    asked: dict[str, Any] = {"bag": bag, "tta": tta, "device": device, "bleeds": bleeds, "progress": progress}
    parts = [evaluate_fold(leaf, index, **asked) for leaf in leaves]
    shared = count_shared_exams([part.slices for part in parts])
    if shared:
        raise DataError(f"{out}: {counted(shared, 'exam')} in more than one fold's table; let one leaf stand for a "
                        "fold")  # fmt: skip
    slices, exams = (pd.concat(tables, ignore_index=True) for tables in zip(*((part.slices, part.exams)
                     for part in parts), strict=True))  # fmt: skip
    series = np.concatenate([part.series for part in parts])
    prevalences = [run["prevalence"] for run in runs]
    hashes = list(dict.fromkeys(one for part in parts for one in part.metrics["weights"]))
    identity = {"run": str(out), "fold": "all", "bag": bag, "tta": list(tta), "weights": hashes}
    remarks = [text for part in parts for text in part.metrics.get("remarks", [])]
    identity |= {"remarks": remarks} if remarks else {}
    return _score(out, index, series, slices, exams, prevalences, calibration_in(out), bleeds, identity)


def evaluate_set(
    run: Path,
    index: Index,
    *,
    bag: int = 0,
    tta: Sequence[str] = (),
    device: str = "auto",
    bleeds: Path | None = None,
    progress: Progress | None = None,
) -> Scored:
    """Score a run on all of a set that it never saw; all of it is written into a folder of the run for that set.

    The models of all its folds answer together, as in `ichseq predict`.

    Args:
        run: a run, a leaf, an experiment's result or the name of a network.
        index: the set.
        bag: as for `evaluate_fold`.
        tta: as for `evaluate_fold`.
        device: as for `evaluate_fold`.
        bleeds: as for `evaluate_fold`.
        progress: as for `evaluate_fold`.

    Raises:
        RunError: no such run, or it has seen a patient of the set.
        DataError: the set has no labels.
    """
    folders = models_of(run, bag)
    remarks = refuse_seen_set(folders, index)
    ensemble = ModelEnsemble.load(folders, tta, device)
    series = np.arange(index.n_series)
    predicted = predict_prepared(ensemble, index, series, progress=progress)
    identity = {"run": str(run), "fold": None, "bag": bag, "tta": list(tta), "weights": ensemble.hashes}
    identity |= {"remarks": remarks} if remarks else {}
    prevalences = [None if is_network(folder) else read_run(folder).get("prevalence") for folder in folders]
    out = set_folder(run, index.folder, index.key)
    calibration = find_calibration(run)
    return _score(out, index, series, predicted.slices, predicted.exams, prevalences, calibration, bleeds, identity)


def _score(
    out: Path,
    index: Index,
    series: np.ndarray,
    slices: pd.DataFrame,
    exams: pd.DataFrame,
    prevalences: Sequence[Prevalence],
    calibration: Calibration | None,
    bleeds: Path | None,
    identity: dict[str, Any],
) -> Scored:
    """Figures of the tables, everything written."""
    metrics = score(slices, prevalences, index, exams=exams, **identity)
    volumes = None if bleeds is None else bleed_volumes(bleeds, exams)
    judged = judge(slices, exams, Scans(characteristics(index, series), volumes), calibration)
    for name in ("by_exam", "undefined"):
        judged[name] = _merged(metrics[name], judged[name])
    metrics |= judged
    drawn = curves(slices, exams)
    write_scored(out, slices, metrics, exams)
    write_table(drawn, out / CURVES)
    write_evaluation_page(out, metrics, drawn)
    return Scored(slices, exams, metrics, out, series)


def _merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Two dicts as one, and so the dicts in them."""
    both = one.keys() & other.keys()
    nested = {name: _merged(one[name], other[name]) for name in both if isinstance(one[name], dict)}
    return {**one, **other, **nested}
