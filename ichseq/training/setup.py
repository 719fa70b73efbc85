"""What a training works with, built once before its first step and complete from then on."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3
from torch import nn

from ichseq.config import Config, weights_file
from ichseq.data.index import ALL_PATIENTS, Index
from ichseq.data.plan import Plan
from ichseq.errors import ConfigError, DataError
from ichseq.model import Model
from ichseq.networks.named import is_network
from ichseq.runs.folders import has_run
from ichseq.runs.log import RunLog
from ichseq.runs.patients import Seen, refuse_seen_patients, refuse_set_of_network
from ichseq.training.checkpoint import Checkpoint, saved_plan
from ichseq.training.memory_plan import MemoryPlan, plan_memory
from ichseq.training.optimizer import make_optimizer, make_scheduler
from ichseq.training.processes import Processes
from ichseq.training.stage_loss import StageLoss
from ichseq.training.stages import Stage, make_stage
from ichseq.training.start import build_model, start_from


@dataclass(frozen=True, eq=False)
class Setup:
    """One stage on one fold: everything but the loop and where it stands.

    Attributes:
        config: settings of the run.
        stage: that is trained.
        index: the prepared set.
        fold: left out of training, for validation.
        training_series: numbers of the series that are trained on.
        validation_series: of those that are validated on.
        leaf: the run's folder for this stage and fold.
        log: what the run writes there for people to read.
        processes: that train together.
        model: the network.
        ema: moving average of its weights, if asked for.
        loss: the model with the stage's loss, wrapped for the precision and for several processes.
        optimizer: of the trained parameters, wrapped alike.
        scheduler: sets the optimizer's learning rates by step.
        steps_per_epoch: the same in every epoch.
        started: by time.monotonic(), when it began to be built.
    """

    config: Config
    stage: Stage[Any]
    index: Index
    fold: int
    training_series: np.ndarray
    validation_series: np.ndarray
    leaf: Path
    log: RunLog
    processes: Processes
    model: Model
    ema: ModelEmaV3 | None
    loss: nn.Module
    optimizer: AcceleratedOptimizer
    scheduler: Scheduler
    steps_per_epoch: int
    started: float

    @property
    def epochs(self) -> int:
        """How many epochs the run has."""
        return self.config.train.epochs or 1

    @property
    def accelerator(self) -> Accelerator:
        """Of the processes."""
        return self.processes.accelerator

    @property
    def models(self) -> list[Model]:
        """The model and its moving average."""
        return [self.model] if self.ema is None else [self.model, self.ema.module]

    @property
    def answering(self) -> Model:
        """The model that is validated and saved: the moving average, if there is one."""
        return self.models[-1]

    @property
    def machine(self) -> dict[str, Any]:
        """What of the machine decides a step's result, rounding aside."""
        return {"processes": self.processes.count, "precision": self.processes.precision}

    def plan(self, epoch: int) -> Plan:
        """The steps of an epoch."""
        return self.stage.plan(self.index, self.training_series, epoch=epoch, processes=self.processes.count)

    def rates(self) -> Mapping[str, float]:
        """The optimizer's learning rates now, by group; 0 for a part that is not trained."""
        rates = {group["name"]: float(group["lr"]) for group in self.optimizer.param_groups}
        return {"backbone": 0.0, "sequence": 0.0} | rates

    def share_statistics(self) -> None:
        """Give every process the mean of all their running statistics, which are then those of the saved weights."""
        for model in self.models:
            self.processes.average([buffer for buffer in model.buffers() if buffer.is_floating_point()])


def set_up(
    config: Config,
    stage_name: str,
    index: Index,
    fold: int,
    leaf: Path,
    *,
    processes: Processes,
    log: RunLog,
    init: Path | None = None,
    saved: Checkpoint | None = None,
) -> Setup:
    """Build what a run trains with; a new run's config.yaml and run.json are written.

    Args:
        config: settings of the run.
        stage_name: slice, frozen or joint.
        index: the prepared set.
        fold: left out of training, for validation.
        leaf: the run's folder for this stage and fold; there, and free to be written to.
        processes: that train together.
        log: of the leaf.
        init: leaf of another run whose weights a new run starts from.
        saved: the checkpoint of a resumed run; the loop puts back what it holds.

    Raises:
        ConfigError: a fold, backbone, window or weights file that does not work, or shows what the set does not keep.
        DataError: nothing to train on.
        RunError: the start does not fit, or has seen this fold's patients.
    """
    started, train, stage = time.monotonic(), config.train, make_stage(stage_name, config)
    index.refuse_windows(config.model.windows)
    training, prevalence, of_exams = _labelled_series(config, stage, index, fold)
    _check_wishes(config, stage, index, fold, has_start=init is not None or saved is not None)
    stage.check(processes.count)
    starts = _starts(config, init) if saved is None else []
    if init is not None and saved is None:
        refuse_set_of_network(init, index)
    for text in [text for start in starts for text in refuse_seen_patients(start, index, fold)]:
        log.note(f"Note: {text}")

    model = build_model(config, stage_name, index, fold, init=init, saved=saved)
    model.set_prior(prevalence, of_exams)
    if init is not None and saved is None:
        log.note(start_from(model, init))
    loss = StageLoss(model, stage)
    optimizer = make_optimizer(stage.parameter_groups(model), train, processes.device)
    model.to(processes.device)
    ema = ModelEmaV3(model, decay=train.ema, use_warmup=True) if train.ema else None

    plan = None if saved is None else saved_plan(saved, config)
    if plan is None:
        plan = _planned(model, stage, index, training, processes, log)
    plan.apply([model] if ema is None else [model, ema.module])
    if train.compile:
        model.backbone.compile(dynamic=True)  # chunks differ in length; a size for each would be compiled

    loss, optimizer = processes.accelerator.prepare(loss, optimizer)
    steps_per_epoch = len(stage.plan(index, training, epoch=0, processes=processes.count))
    scheduler = make_scheduler(optimizer, train, steps_per_epoch)

    if saved is None:
        log.begin(config, {
            "stage": stage_name, "fold": fold, "seed": train.seed, "device": str(processes.device),
            "data_key": index.key, "data_folder": str(index.folder), "phantom": index.phantom,
            "prevalence": prevalence, "exam_prevalence": of_exams,
        }, Seen.of(index, training, starts))  # fmt: skip
    return Setup(
        config=config, stage=stage, index=index, fold=fold, training_series=training,
        validation_series=index.validation_series(fold), leaf=leaf, log=log, processes=processes, model=model, ema=ema,
        loss=loss, optimizer=optimizer, scheduler=scheduler, steps_per_epoch=steps_per_epoch, started=started,
    )  # fmt: skip


def _labelled_series(
    config: Config, stage: Stage[Any], index: Index, fold: int
) -> tuple[np.ndarray, list[float | None], list[float | None]]:
    """The series outside a fold; and by label their shares of positive slices and exams, None where none is known.

    Those of which nothing is known are left out: they would be read for nothing.
    """
    series = index.training_series(fold)
    exams = stage.trains("exam") and config.model.exam != "none" and config.train.exam_weight > 0
    known = np.array([~np.isnan(index.labels[index.offsets[i] : index.offsets[i + 1]]).all() for i in series], bool)
    if exams:
        known |= ~np.isnan(index.exam_labels[series]).all(axis=1)
    shares = (index.prevalence(series), index.exam_prevalence(series))
    slices, of_exams = ([None if math.isnan(one) else float(one) for one in share] for share in shares)
    outside = "" if fold == ALL_PATIENTS else f" outside fold {fold}"
    no_slices, no_exams = (all(one is None for one in share) for share in (slices, of_exams))
    if no_slices and no_exams:
        raise DataError(f"{index.folder}: no labelled series{outside}, so nothing to train on; prepare the scans with "
                        "--labels")  # fmt: skip
    if no_slices and not exams:
        raise DataError(f"{index.folder}: labels of exams alone{outside}; set model.exam (pooled, attention or max) "
                        "and train the frozen or the joint stage")  # fmt: skip
    if exams and no_exams:
        raise DataError(f"{index.folder}: no exam with a known label{outside}; set model.exam=none, or prepare the "
                        "scans with labels of exams")  # fmt: skip
    return series[known], slices, of_exams


def _check_wishes(config: Config, stage: Stage[Any], index: Index, fold: int, *, has_start: bool) -> None:
    """See that settings which need something have it."""
    train, model = config.train, config.model
    if not stage.reads_series:
        return
    if model.exam == "attention" and train.exam_weight == 0:
        raise ConfigError("model.exam is attention and train.exam_weight 0, so that it would stay untrained; raise the "
                          "weight, or set model.exam=none")  # fmt: skip
    if train.slice_weight == 0 and (model.exam == "none" or train.exam_weight == 0):
        raise ConfigError("train.slice_weight is 0 and no exam head is trained, so nothing is; set model.exam, or "
                          "raise a weight")  # fmt: skip
    parts = [name for name in ("window", "short_scans") if getattr(train, name)]
    if parts and model.exam != "none" and train.exam_weight > 0:
        raise ConfigError(f"train.{parts[0]} reads parts of series, and a part need not show what its exam bleeds; set "
                          "it to 0, or model.exam=none")  # fmt: skip
    if train.keep_weight > 0 and not has_start:
        raise ConfigError("train.keep_weight holds answers near those of a start; give one with --init, or set it to 0")
    if train.fit_share and (fold == ALL_PATIENTS or model.sequence == "none"):
        why = "keeps no patient for validation" if fold == ALL_PATIENTS else "has no sequence part"
        raise ConfigError(f"train.fit_share is fitted on validation for a sequence part, and this run {why}; set it to "
                          "false")  # fmt: skip
    if train.fit_share and np.isnan(index.labels[index.slice_rows(index.validation_series(fold))]).all():
        raise ConfigError(f"train.fit_share wants labels of slices, and fold {fold} has none; set it to false")


def _starts(config: Config, init: Path | None) -> list[Path]:
    """The leaves of runs that the first weights are from.

    Of a network there is no list of those that it has seen; its card may name them.
    """
    starts = [init] if init and not is_network(init) else []
    file = weights_file(config.model)
    return [*starts, file.parent] if file is not None and has_run(file.parent) else starts


def _planned(
    model: Model, stage: Stage[Any], index: Index, series: np.ndarray, processes: Processes, log: RunLog
) -> MemoryPlan:
    """The first process's plan for memory, for all: times and free memory differ between them, and layouts must not."""
    with processes.accelerator.autocast():
        largest, ahead = stage.largest_batch(index, series), stage.config.train.workers + 2
        plan, reason = plan_memory(model, stage.config, largest, ahead=ahead)
    layout, recompute, chunk = processes.of_the_first([plan.channels_last, plan.recompute, plan.chunk_size])
    log.note(reason)
    return MemoryPlan(bool(layout), bool(recompute), chunk)
