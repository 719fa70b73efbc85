"""What a run trains with: processes, network, optimizer and files, set up before the first step and saved with it."""

import math
import time
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs
from timm.utils import ModelEmaV3
from tqdm import tqdm

from ichseq.config import Config
from ichseq.data.batches import plan_windows, share_of_negatives
from ichseq.data.index import Index
from ichseq.devices import with_index
from ichseq.errors import DataError, IchseqError, RunError, Stopped
from ichseq.model import Model
from ichseq.runs.folders import patient_hashes, refuse_seen_patients
from ichseq.runs.log import Journal
from ichseq.training import checkpoint as ck
from ichseq.training.build import (
    build_model,
    choose_precision,
    faster_channels_last,
    make_optimizer,
    make_scheduler,
    start_from,
)
from ichseq.training.embeddings import set_embeddings
from ichseq.training.memory_plan import fit_step
from ichseq.training.processes import Processes
from ichseq.training.stages import STAGE_BY_NAME, Plan, StageNetwork, StageReader, series_boxes
from ichseq.training.stopping import StopRequest


@dataclass
class Position:
    """Where a run stands, and the epoch's sums so far."""

    step: int = 0  # of the whole run
    epoch: int = 0
    step_of_epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)  # a row an epoch
    best: float | None = None  # lowest validation loss
    epoch_loss: float = 0.0  # sum over this process's labels
    epoch_weight: float = 0.0  # of all processes' labels
    seconds: float = 0.0  # of this epoch's steps
    wall_seconds: float = 0.0  # of everything up to the checkpoint, all tries together


class Session:
    """One stage on one fold: everything but the loop.

    Attributes:
        accelerator: devices and precision; `device` is taken from it.
        group: the processes that train together.
        network: the model with the stage's loss; `wrapped` is the same for several processes.
        optimizer: of the network; `stepper` is the same, wrapped for the precision; `scheduler` sets its rates by step.
        ema: moving average of the weights, if asked for.
        reader: reads batches without augmentation.
        at: where the run stands.
    """

    def __init__(self, config: Config, stage: str, index: Index, fold: int, leaf: Path, progress: bool) -> None:
        """Look at the set and find the devices; nothing is written yet."""
        self.config, self.index, self.fold, self.leaf = config, index, fold, leaf
        self.stage = STAGE_BY_NAME[stage]
        self.training, self.validation = index.training_series(fold), index.validation_series(fold)
        known = ~np.isnan(index.labels[index.slice_rows(self.training)]).all()
        if not len(self.training) or not known:
            raise DataError(f"{index.folder}: no labelled series outside fold {fold}, so nothing to train on; prepare "
                            "the scans with --labels")  # fmt: skip
        # accelerate keeps the precision of the process's first training and raises for another.
        AcceleratorState._reset_state()
        self.accelerator = Accelerator(
            cpu=not torch.cuda.is_available(),  # else it takes no notice of torchrun on CPUs
            mixed_precision=choose_precision(config.train.precision),
            kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
        )
        self.device, self.group = with_index(self.accelerator.device), Processes(self.accelerator)
        self.journal = Journal(leaf, writes=self.group.main, shown=progress)
        self.at = Position()
        self.started = time.monotonic()

    @property
    def machine(self) -> dict[str, Any]:
        """What of the machine decides a step's result, rounding aside."""
        return {"processes": self.group.count, "precision": str(self.accelerator.mixed_precision)}

    def prepare(self, init: Path | None = None, resume: bool = False, request: StopRequest | None = None) -> None:
        """Claim or reopen the leaf, build the model and the optimizer, restore or write the first checkpoint."""
        saved = ck.read_checkpoint(self.leaf / "last") if resume else None
        seen: list[str] = []
        if saved is None:
            self._claim()
            seen = self._patients_of_the_start(init)
        else:
            ck.check_same(saved, self.config, self.index, self.leaf)
            ck.check_same_machine(saved, self.machine, self.leaf)
        try:
            self._build(init, saved)
            if saved is None:
                patients = self.index.patients()
                hashes = patient_hashes(patients[i] for i in self.training)
                self.journal.begin(self.config, self._described(sorted({*hashes, *seen})))
                self.save()
        except (IchseqError, OSError):
            if saved is None:
                self.journal.clear()
            raise
        if saved is not None:
            for line in saved.drop_damaged() if self.group.main else []:
                self.journal.note(line)
            self._restore(saved)
            self.journal.note(f"resumed at step {self.at.step}, epoch {self.at.epoch + 1}")
        self._read_ahead(request or StopRequest())

    def _claim(self) -> None:
        if self.group.main and (ck.has_checkpoint(self.leaf / "last") or (self.leaf / "model.json").is_file()):
            raise RunError(f"{self.leaf}: there is a run here already; go on with --resume, or choose another -o")
        self.journal.clear()  # what a run leaves that ended before its first checkpoint
        if self.group.main and self.leaf.exists() and any(self.leaf.iterdir()):
            raise RunError(f"{self.leaf}: holds files that are no run's; choose another -o")
        if self.group.main:
            try:
                self.leaf.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise RunError(f"{self.leaf}: can't be made ({error.strerror}); choose another -o") from None
        self.group.wait()

    def _patients_of_the_start(self, init: Path | None) -> list[str]:
        """Hashes of the patients that the first weights have seen; none of them is in the validation part."""
        seen = refuse_seen_patients(init, self.index, self.fold) if init else []
        pretrained = self.config.model.pretrained
        if isinstance(pretrained, str) and (Path(pretrained).parent / "run.json").is_file():
            seen = seen + refuse_seen_patients(Path(pretrained).parent, self.index, self.fold)
        return seen

    def _described(self, patients: list[str]) -> dict[str, Any]:
        return {
            "stage": self.stage.name, "fold": self.fold, "seed": self.config.train.seed, "device": str(self.device),
            "data_key": self.index.key, "data_folder": str(self.index.folder), "phantom": self.index.phantom,
            "prevalence": self._prevalence(), "patients": patients,
        }  # fmt: skip

    def _build(self, init: Path | None, saved: ck.Checkpoint | None) -> None:
        train = self.config.train
        model = build_model(self.config, self.stage.name, self.index, self.fold, init=init, fetch=saved is None)
        model.set_prior(self._prevalence())
        if init is not None and saved is None:
            self.journal.note(start_from(model, init))
        self.model, self.network = model, StageNetwork(model, self.stage, train.aux_weight, train.mixup)
        optimizer = make_optimizer(self.network.parameter_groups(train), train, self.device)
        model.to(self.device)
        self.ema = ModelEmaV3(model, decay=train.ema, use_warmup=True) if train.ema else None
        self._fit(saved)
        if train.compile:
            model.backbone.compile(dynamic=True)  # chunks differ in length; a size for each would be compiled
        self.wrapped, self.stepper = self.accelerator.prepare(self.network, optimizer)
        self.optimizer = optimizer
        self.steps_per_epoch = len(self.plan(0))
        self.scheduler = make_scheduler(optimizer, train, self.steps_per_epoch)

    def _fit(self, saved: ck.Checkpoint | None) -> None:
        """Choose memory format, recomputation and chunk; a resumed run keeps its own, so that its steps stay the same.

        Unless it was given others: then its results differ by rounding.
        """
        if saved is not None and ck.same_fit(saved, self.config):
            chosen = saved.state["fit"]
        else:
            with self.accelerator.autocast():
                wish = self.config.model.channels_last
                if wish == "auto":
                    trains = "backbone" in self.stage.parts
                    wish = self.device.type == "cuda" and trains and faster_channels_last(self.model)
                slices, pixels = self._largest_batch()
                fit = fit_step(self.model, self.config.train, slices=slices, pixels=pixels, device=self.device)
            # Times and free memory differ between processes, and their networks have to be laid out alike.
            layout, recompute, chunk = self.group.of_the_first([int(wish), int(fit.recompute), fit.chunk_size])
            chosen = {"channels_last": bool(layout), "recompute": bool(recompute), "chunk_size": chunk}
            self.journal.note(fit.reason)
        for model in self.models():
            model.use_channels_last(chosen["channels_last"])
        self.set_fit(chosen["recompute"], chosen["chunk_size"])

    def set_fit(self, recompute: bool, chunk_size: int) -> None:
        for model in self.models():
            model.checkpointing, model.chunk_size = "on" if recompute else "off", chunk_size

    def models(self) -> list[Model]:
        return [self.model] if self.ema is None else [self.model, self.ema.module]

    def _largest_batch(self) -> tuple[int, int]:
        """Most slices of a batch of any epoch, and most pixels that come with a slice."""
        train, lengths = self.config.train, self.index.lengths[self.training]
        count = self.stage.batch_size(train)
        if train.window:
            lengths = lengths.clip(max=train.window)
        slices = int(count if self.stage.name == "slice" else np.sort(lengths)[-count:].sum())
        together = 1 + 2 * self.config.model.neighbours if self._reads_parts else 1
        return slices, together * int(self.index.shapes.prod(axis=1).max())

    @property
    def _reads_parts(self) -> bool:
        """Whether the backbone is given slices or windows, and not whole series."""
        return self.stage.name == "slice" or (self.stage.name == "joint" and self.config.train.window > 0)

    def _read_ahead(self, request: StopRequest) -> None:
        """What a stage has to know of the whole set: crop boxes, or embeddings."""
        train, boxes, embeddings = self.config.train, None, None
        try:
            if self._reads_parts:
                boxes = series_boxes(self.model, self.index, self.training, train.workers, request)
            if self.stage.name == "frozen":
                with tqdm(total=self.index.n_series, desc="embeddings", unit="series", disable=not self.journal.shown,
                          ) as bar:  # fmt: skip
                    embeddings = set_embeddings(
                        self.model, self.index, dtype=train.embeddings, threads=train.workers,
                        accelerator=self.accelerator, group=self.group, request=request, progress=bar.update,
                    )  # fmt: skip
        except InterruptedError:
            self.stop(request.code)
        self.reader = StageReader(self.index, boxes, embeddings, self.config.model.neighbours)

    def save(self) -> None:
        """Write a checkpoint. To be called by every process."""
        self.share_statistics()
        epoch_loss = self.group.sum(self.at.epoch_loss)
        if self.group.main:
            tensors = ck.with_prefix("model", self.model.state_dict()) | ck.optimizer_tensors(self.optimizer)
            if self.ema is not None:
                tensors |= ck.with_prefix("ema", self.ema.module.state_dict())
            state: dict[str, Any] = {item.name: getattr(self.at, item.name) for item in fields(Position)}
            state |= {"epoch_loss": epoch_loss, "config": self.config.to_dict(), "data_key": self.index.key}
            state["wall_seconds"] = self.wall_seconds()
            state |= {"machine": self.machine, "trained_on": self.model.trained_on}
            state["freeze_bn"] = bool(self.model.config.freeze_bn)
            state["fit"] = {
                "channels_last": self.model.config.channels_last,
                "recompute": self.model.checkpointing == "on",
                "chunk_size": self.model.chunk_size,
            }
            state["scaler"] = self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else {}
            ck.write_checkpoint(self.leaf / "last", self.at.step, tensors, state)
        self.group.wait()

    def share_statistics(self) -> None:
        """Give every process the mean of all their running statistics, which are then those of the saved weights."""
        for model in self.models():
            self.group.average([buffer for buffer in model.buffers() if buffer.is_floating_point()])

    def _restore(self, saved: ck.Checkpoint) -> None:
        self.model.load_state_dict(ck.without_prefix("model", saved.tensors))
        for model in self.models():
            model.freeze_batch_norm(saved.state["freeze_bn"])
            model.trained_on = dict(saved.state["trained_on"])
        ck.restore_optimizer(self.optimizer, saved.tensors)
        if self.ema is not None:
            self.ema.module.load_state_dict(ck.without_prefix("ema", saved.tensors))
        if self.accelerator.scaler is not None and saved.state["scaler"]:
            self.accelerator.scaler.load_state_dict(saved.state["scaler"])
        self.at = Position(**{item.name: saved.state[item.name] for item in fields(Position)})
        if not self.group.main:
            self.at.epoch_loss = 0.0  # the sum over all processes was saved

    # ---- for the loop ----------------------------------------------------------------------------------------------

    def plan(self, epoch: int) -> Plan:
        """Steps of an epoch: plan[step][process][micro-batch] is a list of items."""
        train = self.config.train
        series = share_of_negatives(self.index, self.training, train.negatives, key=(train.seed, epoch))
        plan = self.stage.plan
        if train.window and self.stage.name != "slice":
            plan = partial(plan_windows, slices=train.window)
        return plan(
            self.index, series, batch=self.stage.batch_size(train), accumulate=train.accumulate,
            processes=self.group.count, key=(train.seed, epoch),
        )  # fmt: skip

    def wall_seconds(self) -> float:
        """Seconds that the run has taken: until the checkpoint that it was resumed from, and since."""
        return self.at.wall_seconds + time.monotonic() - self.started

    def stop(self, code: int) -> None:
        """End the run, which is saved."""
        raise Stopped(f"stopped at step {self.at.step}, saved; go on with --resume -o {self.leaf.parents[1]}", code)

    def _prevalence(self) -> list[float | None]:
        """Share of positive slices of the training part by label; None where none is known."""
        return [None if math.isnan(p) else float(p) for p in self.index.prevalence(self.training)]
