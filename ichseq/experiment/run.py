"""Running an experiment: its stages, bags, views, smoothing and blend, from start to end, and again where it stopped.

    <runs>/<stage>-<key>/<stage>/fold<K>/   a training; experiments that ask for the same one share it
    <runs>/results/<name>/                  predictions.parquet, metrics.json, cost.json, models.json and
                                            experiment.yaml; of a quick one, <name>-quick; of a seed, <name>-seed<N>
    <runs>/results-test/<name>/             the same of another set, where that was scored

The key is a hash of everything that decides the training: settings, set, and the training that it starts from.
"""

import hashlib
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import ichseq
from ichseq.config import Config, settings_without_effect, weights_file
from ichseq.data.index import ALL_PATIENTS, Index
from ichseq.errors import DataError, counted
from ichseq.evaluation.score import score
from ichseq.experiment.spec import Spec
from ichseq.inference.model_ensemble import ModelEnsemble
from ichseq.inference.predict import predict_prepared
from ichseq.phantom import generator_hash
from ichseq.predictions.blend import blend
from ichseq.predictions.smooth import clip, smooth_by_name
from ichseq.runs.experiments import results_folder, write_description
from ichseq.runs.folders import bag_of, checkpoints_of, leaf_of
from ichseq.runs.names import fold_name
from ichseq.runs.records import read_history, read_run, write_scored
from ichseq.training.checkpoint import has_checkpoint
from ichseq.training.stages import STAGE_CLASSES
from ichseq.training.train import train_stage

Bar = Callable[[str, str], AbstractContextManager[Callable[[int, int], None]]]


class Runner:
    """Runs experiments on one prepared set.

    Attributes:
        data: folder of the set; `index` is its index.
        runs: folder for trainings and results.
        test: folder of another set, which is scored instead of the folds' validation parts; `test_index` is its index.
        quick: whether the specs are quick ones; noted with the results.
        costs: a row for each training that the experiment stands on, whether it was done now or found.
        models: folders of the models that answer for it.
    """

    def __init__(self, data: Path, runs: Path, *, bar: Bar, quick: bool = False, test: Path | None = None) -> None:
        """Open the sets.

        Args:
            data: folder of a prepared set.
            runs: folder for trainings and results.
            bar: gives a progress bar by name and unit.
            quick: whether the specs are quick ones.
            test: folder of another prepared set, all of which is scored.

        Raises:
            DataError: a set is missing or damaged, or the two have a patient in common, or it can't be
                known whether they have.
        """
        self.data, self.runs, self.index, self.quick = data, runs, Index.load(data), quick
        self.test_index = None if test is None else Index.load(test)
        if self.test_index is not None:
            if self.index.settings.get("pseudonyms") != self.test_index.settings.get("pseudonyms"):
                raise DataError(f"{test}, {data}: whether they share a patient can't be known, as their ids are not "
                                "pseudonyms by one salt; prepare both with one --salt-file")  # fmt: skip
            shared = len(set(self.index.patients()) & set(self.test_index.patients()))
            if shared:
                raise DataError(f"{test}: {counted(shared, 'patient')} of it are in {data} too, so figures on it would "
                                "be those of patients seen in training; name a set of others")  # fmt: skip
        self.bar = bar
        self.costs: list[dict[str, Any]] = []
        self.models: list[Path] = []

    def run(self, spec: Spec) -> Path:
        """Everything that an experiment asks for.

        Returns:
            The folder of its results. Trained on all patients, so that none is left to score it on, an experiment has
            no table and no figures, but its models can be asked: `ichseq predict --run` takes the folder.

        Raises:
            ConfigError: a fold that does not exist, or a window that shows what a set does not keep.
            DataError: the set has too few patients for its folds.
            RunError: as `train_stage`.
        """
        self.costs, self.models = [], []
        folds = spec.fold_numbers(self.index.folds)
        self._check_folds(folds)
        self._check_windows(spec)
        system = f"{spec.name}-quick" if self.quick else spec.name
        name = system if spec.seed is None else f"{system}-seed{spec.seed}"
        out = results_folder(self.runs, self.test_index is not None) / name
        if folds == [ALL_PATIENTS]:
            for part in spec.parts or [spec]:
                self._trained_models(part, 0, ALL_PATIENTS)
            self._describe(spec, out)
            return out
        table = clip(self._table(spec, folds), spec.plan.clip)
        identity = {"name": name, "system": system, "folds": folds, "recipe": spec.recipe}
        metrics = self._score(table, folds, identity)
        self._describe(spec, out)
        write_scored(out, table, metrics)
        return out

    def _score(self, table: pd.DataFrame, folds: list[int], identity: dict[str, Any]) -> dict[str, Any]:
        scored = self.test_index or self.index
        identity = identity | {"data_series": scored.n_series, "trained_on": self.index.key, "quick": self.quick}
        if scored.phantom:
            identity["generator"] = generator_hash()
        return score(table, [self._prevalence(fold) for fold in folds], scored, **identity)

    def _prevalence(self, fold: int) -> list[float | None]:
        """Of the six labels in a fold's training part, None where no label is known."""
        shares = self.index.prevalence(self.index.training_series(fold))
        return [None if np.isnan(share) else float(share) for share in shares]

    def _describe(self, spec: Spec, out: Path) -> None:
        """Write what the results stand on: the experiment as it was put together, its models and what they cost."""
        write_description(out, {"experiment": asdict(spec.plan), **spec.sections}, self.costs, self.models)

    def _check_folds(self, folds: list[int]) -> None:
        for fold in folds:
            if fold != ALL_PATIENTS and not len(self.index.validation_series(fold)):
                raise DataError(f"{self.index.folder}: no patient is in fold {fold}; the set has too few patients for "
                                f"its {self.index.folds} folds: prepare more, or with fewer folds")  # fmt: skip

    def _check_windows(self, spec: Spec) -> None:
        """Of all that the experiment stands on, before the first of it is trained."""
        for index in [self.index, *([self.test_index] if self.test_index else [])]:
            for stage in spec.plan.stages:
                index.refuse_windows(spec.config(stage).model.windows)
        for below in [*spec.parts, *([spec.start] if spec.start else [])]:
            self._check_windows(below)

    def _table(self, spec: Spec, folds: list[int]) -> pd.DataFrame:
        """Predictions of the folds' validation series, blended and smoothed."""
        if spec.parts:
            tables = [self._table(part, part.fold_numbers(self.index.folds)) for part in spec.parts]
            table = blend(tables, None, [part.name for part in spec.parts])
        else:
            tables = [self._answers(spec, place, fold) for place, fold in enumerate(folds)]
            if self.test_index is None:
                table = pd.concat(tables, ignore_index=True)
            else:  # every fold's models have answered for all of it
                table = blend(tables, None, [fold_name(fold) for fold in folds])
        return smooth_by_name(table, spec.plan.smooth)

    def _answers(self, spec: Spec, place: int, fold: int) -> pd.DataFrame:
        folders = self._trained_models(spec, place, fold)
        ensemble = ModelEnsemble.load(folders, spec.plan.tta)
        index, series = self.index, self.index.validation_series(fold)
        if self.test_index is not None:
            index, series = self.test_index, np.arange(self.test_index.n_series)
        with self.bar(f"{spec.name}: predict {fold_name(fold)}", "series") as progress:
            return predict_prepared(ensemble, index, series, progress=progress).slices

    def _trained_models(self, spec: Spec, place: int, fold: int) -> list[Path]:
        """Folders of the models that answer for a fold, trained where they are not there yet."""
        starts: list[tuple[Path | None, str]] = [(None, "")]  # weights, and the key of what led to them
        if spec.start is not None:
            known = list(self.models)
            found = self._trained_models(spec.start, place, fold)
            starts = [(folder, folder.relative_to(self.runs).as_posix()) for folder in found]
            self.models = known
        for stage in spec.plan.stages:
            config, trained = spec.config(stage, place), list[tuple[Path | None, str]]()
            for start, start_key in starts:
                decides = [_deciding(config), self.index.key, start_key, ichseq.__version__]
                key = hashlib.blake2b(json.dumps(decides, sort_keys=True).encode(), digest_size=5).hexdigest()
                leaf = self._trained(stage, fold, config, self.runs / f"{stage}-{key}", start)
                self.costs.append(self._cost(leaf, config, stage, fold))
                bag = bag_of(leaf, spec.plan.bag_of(stage, place))
                trained += [(folder, f"{key}/{folder.name}") for folder in bag]
            starts = trained
        models = [folder for folder, _ in starts if folder is not None]
        self.models += models
        return models

    def _trained(self, stage: str, fold: int, config: Config, run: Path, start: Path | None) -> Path:
        leaf = leaf_of(run, stage, fold)
        begun = has_checkpoint(checkpoints_of(leaf))
        if begun and read_run(leaf).get("finished"):
            return leaf
        return train_stage(config, stage, data=self.data, fold=fold, out=run, init=start, resume=begun)

    def _cost(self, leaf: Path, config: Config, stage: str, fold: int) -> dict[str, Any]:
        history, run = read_history(leaf), read_run(leaf)
        slices = int(history["slices"].sum())
        whole = int(self.index.lengths[self.index.training_series(fold)].sum())
        frozen = not STAGE_CLASSES[stage].trains("backbone")
        # Before the first step: of the frozen stage the whole set, of a joint one that remembers its training part.
        ahead = (1 + len(config.model.views)) * self.index.n_slices if frozen else 0
        ahead += whole if not frozen and config.train.gradient_share < 1 else 0
        return {
            "stage": stage, "fold": fold, "epochs": len(history), "passes": round(slices / whole, 3),
            "slices": 0 if frozen else slices, "embedded_slices": ahead,
            "steps": int(history["step"].iloc[-1]), "seconds": run["seconds"], "leaf": str(leaf),
        }  # fmt: skip


def _deciding(config: Config) -> dict[str, Any]:
    """The settings that decide a training's result, and for a file of weights its content."""
    settings = config.to_dict()
    for section, key in settings_without_effect():
        del settings[section][key]
    weights = weights_file(config.model)
    if weights is not None and weights.is_file():
        with open(weights, "rb") as file:
            settings["model"]["pretrained"] = hashlib.file_digest(file, "blake2b").hexdigest()
    return settings
