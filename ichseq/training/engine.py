"""The one training loop, on accelerate: CPU, one GPU or several, and the same steps whether interrupted or not.

Random draws follow from (seed, epoch, series) and (seed, step, process), so a checkpoint needs no random states.
"""

import dataclasses
import json
import math
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import timm
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs
from timm.scheduler import CosineLRScheduler, StepLRScheduler
from timm.utils import ModelEmaV3
from torch import Tensor
from tqdm import tqdm

import ichseq
from ichseq.config import Config, save_config
from ichseq.data.augment import derive_seed, warps
from ichseq.data.batches import Batch, Item, item_labels, read_ahead, read_batch
from ichseq.data.index import Index
from ichseq.errors import DataError, IchseqError, RunError, Stopped
from ichseq.labels import CLIP_PROBABILITY
from ichseq.model import Model
from ichseq.training import checkpoint as ck
from ichseq.training.losses import label_weight, weighted_bce_sum
from ichseq.training.runs import leaf_of, patient_hashes, refuse_seen_patients, write_json
from ichseq.training.stages import STAGE_BY_NAME, StageNetwork, series_boxes, write_embeddings

_MAY_CHANGE = {("train", "workers"), ("train", "checkpoint_every")}


def train(
    config: Config,
    stage: str,
    *,
    data: Path,
    fold: int,
    out: Path,
    init: Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Path:
    """Train one stage on all folds but one and validate on that one after each epoch.

    Args:
        config: from `load_config`.
        stage: slice, frozen or joint.
        data: a prepared set.
        fold: the fold held out for validation.
        out: the run's folder, runs/NAME; this stage and fold get a leaf of their own in it.
        init: leaf of another run whose weights are the start.
        resume: go on from the last checkpoint of the leaf.
        progress: show a progress bar on standard error.

    Returns:
        The leaf's folder.

    Raises:
        DataError: the prepared set is missing or damaged, or has nothing to train on.
        RunError: the leaf is taken, nothing to resume, a run that has seen this fold's patients, a loss not finite.
        Stopped: SIGTERM or Ctrl-C; the step was finished and saved.
    """
    leaf = leaf_of(out, stage, fold)
    index = Index.load(data)
    trainer = Trainer(config, stage, index, fold, leaf, progress)
    trainer.prepare(init, resume)
    with stop_requests() as request:
        trainer.run(request)
    return leaf


class Trainer:
    """One stage on one fold: what `train` sets up, and the loop over its steps."""

    def __init__(self, config: Config, stage: str, index: Index, fold: int, leaf: Path, progress: bool) -> None:
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
            mixed_precision=_precision(config.train.precision),
            kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
        )
        self.main = self.accelerator.is_main_process
        self.progress = progress and self.main
        self.step, self.epoch, self.position = 0, 0, 0
        self.history: list[dict[str, Any]] = []
        self.best: float | None = None
        self.epoch_loss, self.epoch_weight, self.seconds = 0.0, 0.0, 0.0
        self.pending: list[tuple[list[Item], Tensor, float]] = []
        self.shown = ""

    # ---- before the first step -------------------------------------------------------------------------------------

    def prepare(self, init: Path | None, resume: bool) -> None:
        """Claim or reopen the leaf, build the model and the optimizer, restore or write the first checkpoint."""
        saved = ck.read_checkpoint(self.leaf / "last") if resume else None
        if saved is None:
            self._claim()
        else:
            self._check_same(saved)
        seen = refuse_seen_patients(init, self.index, self.fold) if init else []
        pretrained = self.config.model.pretrained
        if isinstance(pretrained, str) and (Path(pretrained).parent / "run.json").is_file():
            seen = seen + refuse_seen_patients(Path(pretrained).parent, self.index, self.fold)
        if saved is None:
            try:
                self._build(init, fetch=True)
                self._write_first(seen)
            except (IchseqError, OSError):
                self._clear()
                raise
        else:
            self._build(init, fetch=False)
            for line in saved.passed_over:
                self.note(line)
            self._restore(saved)
            self.note(f"resumed at step {self.step}, epoch {self.epoch + 1}")

    def _claim(self) -> None:
        if self.main and (ck.has_checkpoint(self.leaf / "last") or (self.leaf / "model.json").is_file()):
            raise RunError(f"{self.leaf}: there is a run here already; go on with --resume, or choose another -o")
        self._clear()  # what a run leaves that ended before its first checkpoint
        if self.leaf.exists() and any(self.leaf.iterdir()) and self.main:
            raise RunError(f"{self.leaf}: holds files that are no run's; choose another -o")
        try:
            self.leaf.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{self.leaf}: can't be made ({error.strerror}); choose another -o") from None
        self.accelerator.wait_for_everyone()

    def _write_first(self, seen: list[str]) -> None:
        """What a run leaves before its first step."""
        patients = self.index.series_column("patient_id")
        hashes = patient_hashes(patients[i] for i in self.training)
        self._write_run(sorted({*hashes, *seen}), finished=False)
        if self.main:
            save_config(self.config, self.leaf / "config.yaml")
        self.save()

    def _clear(self) -> None:
        """Remove the files of a run that has no checkpoint, and its folders if nothing else is in them."""
        if not self.main or not self.leaf.is_dir():
            return
        for name in ("config.yaml", "run.json", "run.json.part", "log.txt", "embeddings.npy.part"):
            (self.leaf / name).unlink(missing_ok=True)
        shutil.rmtree(self.leaf / "last", ignore_errors=True)
        with suppress(OSError):  # one that is not empty ends it
            for folder in (self.leaf, *self.leaf.parents[:2]):
                folder.rmdir()

    def _check_same(self, saved: ck.Checkpoint) -> None:
        if saved.state["data_key"] != self.index.key:
            raise RunError(f"{self.leaf}: was trained on another prepared set than {self.index.folder}; resume it with "
                           "--data set to that one")  # fmt: skip
        was, now = saved.state["config"], self.config.to_dict()
        for section, values in now.items():
            for key, value in values.items():
                if value != was[section].get(key) and (section, key) not in _MAY_CHANGE:
                    raise RunError(f"{self.leaf}: {section}.{key} was {was[section].get(key)!r} and is now {value!r}; "
                                   "a resumed run keeps its settings, start a new one with -o")  # fmt: skip

    def _build(self, init: Path | None, *, fetch: bool) -> None:
        config, train = self.config, self.config.train
        torch.manual_seed(derive_seed(train.seed, "weights"))
        settings = dataclasses.asdict(config.model)
        trained = init is not None or bool(config.model.pretrained)
        if settings["freeze_bn"] == "auto":
            settings["freeze_bn"] = trained
        if init is not None or not fetch:
            settings["pretrained"] = False  # the weights come from the run or from the checkpoint
        model = Model(**settings, checkpointing=train.checkpointing, chunk_size=train.chunk_size)
        model.trained_on = {"phantom": self.index.phantom, "data_key": self.index.key, "fold": self.fold}
        model.trained_on |= {"stage": self.stage.name, "ichseq": ichseq.__version__}
        model.start_at(self._prevalence())
        if init is not None and fetch:
            self._start_from(model, init)
        self.network = StageNetwork(model, self.stage, train.aux_weight)
        self.model = model
        groups = self.network.parameter_groups(train)
        fused = self.accelerator.device.type == "cuda"
        optimizer = torch.optim.AdamW(groups, weight_decay=train.weight_decay, fused=fused)
        model.to(self.accelerator.device)
        self.wrapped, self.optimizer = self.accelerator.prepare(self.network, optimizer)
        self.raw_optimizer = optimizer
        self.steps_per_epoch = len(self._plan(0))
        self.scheduler = self._scheduler(optimizer)
        self.ema = ModelEmaV3(model, decay=train.ema, use_warmup=True) if train.ema else None
        self.boxes = None
        if self.stage.name == "slice":
            self.boxes = series_boxes(model, self.index, self.training, train.workers)
        self.embeddings = self._embeddings() if self.stage.name == "frozen" else None

    def _start_from(self, model: Model, init: Path) -> None:
        """Weights of another run: the backbone's have to fit, the heads' and sequence part's are taken if they do."""
        other = Model.load(init)
        for key in ("backbone", "windows"):
            if other.settings[key] != model.settings[key]:
                raise RunError(f"{init}: its model.{key} is {other.settings[key]}, this run's {model.settings[key]}; "
                               f"set model.{key} to the same, or choose another --init")  # fmt: skip
        mine, theirs = model.state_dict(), other.state_dict()
        fitting = {k: t for k, t in theirs.items() if k in mine and mine[k].shape == t.shape}
        model.load_state_dict(fitting, strict=False)
        fresh = sorted({key.split(".")[0] for key in mine if key not in fitting})
        self.note(f"weights from {init}" + (f"; fresh: {', '.join(fresh)}" if fresh else ""))
        model.trained_on["phantom"] = bool(model.trained_on["phantom"] or other.trained_on.get("phantom"))

    def _scheduler(self, optimizer: torch.optim.Optimizer) -> CosineLRScheduler | StepLRScheduler:
        train = self.config.train
        total = self.steps_per_epoch * (train.epochs or 1)
        warmup: dict[str, Any] = {
            "warmup_t": min(train.warmup_steps, total),
            "warmup_lr_init": 0.0,
            "t_in_epochs": False,
        }
        if train.schedule == "cosine":
            return CosineLRScheduler(optimizer, t_initial=total, **warmup)
        return StepLRScheduler(optimizer, decay_t=self.steps_per_epoch, decay_rate=train.decay, **warmup)

    def _embeddings(self) -> np.ndarray:
        """float32 (n_slices, D), computed once and kept beside the run, keyed by its checkpointed weights and set."""
        path = self.leaf / "embeddings.npy"
        if self.main and not path.is_file():
            with tqdm(total=self.index.n_series, desc="embeddings", unit="series", disable=not self.progress) as bar:
                write_embeddings(self.model, self.index, path, self.config.train.workers, lambda done, _: bar.update())
        self.accelerator.wait_for_everyone()
        return np.load(path, mmap_mode="r")

    # ---- the loop --------------------------------------------------------------------------------------------------

    def run(self, request: "StopRequest") -> None:
        """All epochs that are left. Every exit leaves a checkpoint from which `--resume` goes on."""
        train, started = self.config.train, time.monotonic()
        total = self.steps_per_epoch * (train.epochs or 1)
        bar = tqdm(total=total, initial=self.step, desc=f"{self.stage.name} fold {self.fold}", unit="step",
                   disable=not self.progress, mininterval=0.5)  # fmt: skip
        with bar:
            while self.epoch < (train.epochs or 1):
                self._epoch(bar, request, started)
        self._write_run(None, finished=True, seconds=time.monotonic() - started)

    def _epoch(self, bar: Any, request: "StopRequest", started: float) -> None:
        train = self.config.train
        plan = self._plan(self.epoch)
        steps = plan[self.position :]
        tasks = [items for step in steps for items in step[self.accelerator.process_index]]
        batches = read_ahead(tasks, self._read, train.workers)
        self.network.train()
        last, slices, tick = time.monotonic(), 0, time.monotonic()
        for step in steps:
            slices += self._step(step, batches)
            self.seconds += time.monotonic() - tick
            tick = time.monotonic()
            if tick - last > 1:
                self._flush()
                rate = slices / (tick - last)
                bar.set_postfix_str(f"epoch {self.epoch + 1}, loss {self.shown}, lr {self._rate():.1e}, "
                                    f"{rate:.0f} slices/s", refresh=False)  # fmt: skip
                last, slices = tick, 0
            bar.update()
            if self.position < len(plan) and (self.step % train.checkpoint_every == 0 or request.code):
                self.save()
            if request.code and self.position < len(plan):
                self._stop(request.code)
            tick = time.monotonic()
        self._end_epoch()
        if request.code:
            self._stop(request.code)

    def _stop(self, code: int) -> None:
        raise Stopped(f"stopped at step {self.step}, saved; go on with --resume -o {self.leaf.parents[1]}", code)

    def _step(self, step: list[list[list[Item]]], batches: Iterator[Batch]) -> int:
        """One optimizer step over this process's micro-batches; the loss is the mean over the whole step's labels."""
        train, world = self.config.train, self.accelerator.num_processes
        torch.manual_seed(derive_seed(train.seed, "step", self.step, self.accelerator.process_index))
        everything = [item for process in step for items in process for item in items]
        weight = max(label_weight(torch.from_numpy(item_labels(self.index, everything))), 1.0)
        self.scheduler.step_update(self.step)
        own, slices = step[self.accelerator.process_index], 0
        for k in range(len(own)):
            batch = next(batches)
            slices += len(batch.labels)
            more = k + 1 < len(own)
            with self.accelerator.no_sync(self.wrapped) if more else nullcontext():
                loss, main = self.wrapped(*self._inputs(batch))
                self.accelerator.backward(loss * (world / weight))
            self.pending.append((batch.items, main / weight, weight))
        if train.clip_norm:
            self.accelerator.clip_grad_norm_([p for p in self.network.parameters() if p.requires_grad], train.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.position += 1
        if self.ema is not None:
            self.ema.update(self.model, step=self.step)
        return slices

    def _plan(self, epoch: int) -> list[list[list[list[Item]]]]:
        train = self.config.train
        return self.stage.plan(
            self.index, self.training, batch=self.stage.batch_size(train), accumulate=train.accumulate,
            processes=self.accelerator.num_processes, key=(train.seed, epoch),
        )  # fmt: skip

    def _read(self, items: list[Item]) -> Batch:
        if self.embeddings is None:
            return read_batch(self.index, items)
        rows = [slice(self.index.offsets[i], self.index.offsets[i + 1]) for i, _ in items]
        lengths = torch.tensor([r.stop - r.start for r in rows], dtype=torch.int64)
        width = self.embeddings.shape[1]
        stack = np.concatenate([self.embeddings[r] for r in rows]) if rows else np.zeros((0, width), np.float32)
        return Batch(items, torch.from_numpy(stack), lengths, [], torch.from_numpy(item_labels(self.index, items)))

    def _inputs(self, batch: Batch, *, augment: bool = True) -> tuple[Any, ...]:
        device, seed = self.accelerator.device, self.config.train.seed
        warp, boxes = None, None
        if augment and self.stage.augments:
            keys: list[tuple[int, ...]] = [
                (seed, self.epoch, i) if k < 0 else (seed, self.epoch, i, k) for i, k in batch.items
            ]
            warp = warps(self.config.augment, keys).to(device)
        if self.boxes is not None:
            boxes = self.boxes[[i for i, _ in batch.items]].to(device)
        return batch.hu.to(device), batch.lengths.tolist(), batch.labels.to(device), batch.sizes or None, boxes, warp

    def _flush(self) -> None:
        """Look at the losses since the last look, one wait for the device; a loss not finite ends the run."""
        if not self.pending:
            return
        losses = torch.stack([loss for _, loss, _ in self.pending]).tolist()
        for (items, _, weight), loss in zip(self.pending, losses, strict=True):
            if not math.isfinite(loss):
                numbers = ", ".join(str(self.index.store_path(i).name) for i, _ in items)
                raise RunError(f"{self.leaf}: the loss is {loss} on the series {numbers} (epoch {self.epoch + 1}); "
                               "the last good checkpoint is kept; lower the learning rates")  # fmt: skip
            self.epoch_loss += loss * weight
            self.epoch_weight += weight
        self.shown = f"{losses[-1]:.4f}"
        self.pending.clear()

    def _end_epoch(self) -> None:
        self._flush()
        train_loss = self._sum(self.epoch_loss) / max(self._sum(self.epoch_weight) / self.accelerator.num_processes, 1)
        best_of = self.ema.module if self.ema is not None else self.model
        valid = self.validate(best_of)
        slices = int(self.index.lengths[self.training].sum())
        self.history.append({
            "epoch": self.epoch + 1, "step": self.step, "seconds": round(self.seconds, 3), "train_loss": train_loss,
            "valid_loss": valid, "valid_weighted_log_loss": valid,
            "learning_rate_backbone": self._rate("backbone"), "learning_rate_sequence": self._rate("sequence"),
            "slices_per_second": round(slices / max(self.seconds, 1e-9), 2),
        })  # fmt: skip
        shown = "no labels" if valid is None else f"weighted log loss {valid:.5f}"
        self.note(f"epoch {self.epoch + 1}: train {train_loss:.5f}, validation {shown}")
        if self.main:
            if valid is None or self.best is None or valid < self.best:
                best_of.save(self.leaf)
            if self.config.train.keep_epochs:
                best_of.save(self.leaf / "epochs" / f"epoch-{self.epoch + 1:03d}")
            pd.DataFrame(self.history).to_csv(self.leaf / "history.csv", index=False)
        if valid is not None:
            self.best = valid if self.best is None else min(valid, self.best)
        self.epoch, self.position, self.epoch_loss, self.epoch_weight, self.seconds = self.epoch + 1, 0, 0.0, 0.0, 0.0
        self.save()
        self._drop_old_epochs()

    @torch.no_grad()
    def validate(self, model: Model) -> float | None:
        """Weighted log loss over the validation series, with clipping; None where no label is known."""
        model.eval()
        own = self.validation[self.accelerator.process_index :: self.accelerator.num_processes]
        limit = math.log((1 - CLIP_PROBABILITY) / CLIP_PROBABILITY)
        total, weight = 0.0, 0.0
        tasks = [[(int(i), -1)] for i in own]
        for batch in read_ahead(tasks, self._read, self.config.train.workers):
            slices, lengths = batch.hu.to(self.accelerator.device), batch.lengths
            with self.accelerator.autocast():
                if self.embeddings is not None:
                    logits = model.sequence_logits(slices, lengths)
                else:
                    embedded = model.embed(slices, lengths)
                    sliced = self.stage.name == "slice"
                    logits = model.slice_logits(embedded) if sliced else model.sequence_logits(embedded, lengths)
            total += float(weighted_bce_sum(logits.float().clamp(-limit, limit).cpu(), batch.labels))
            weight += label_weight(batch.labels)
        total, weight = self._sum(total), self._sum(weight)
        model.train()
        return total / weight if weight else None

    def _prevalence(self) -> list[float | None]:
        """Share of positive slices of the training part by label; None where none is known."""
        return [None if math.isnan(p) else float(p) for p in self.index.prevalence(self.training)]

    # ---- small things ----------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write a checkpoint; the losses so far are looked at first, so that none holds a poisoned step."""
        self._flush()
        if self.main:
            tensors = ck.with_prefix("model", self.model.state_dict()) | ck.optimizer_tensors(self.raw_optimizer)
            if self.ema is not None:
                tensors |= ck.with_prefix("ema", self.ema.module.state_dict())
            state = {"epoch": self.epoch, "position": self.position, "history": self.history, "best": self.best}
            state |= {"epoch_loss": self.epoch_loss, "epoch_weight": self.epoch_weight, "seconds": self.seconds}
            state |= {"config": self.config.to_dict(), "data_key": self.index.key, "freeze_bn": self._freeze_bn()}
            state["scaler"] = self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else {}
            ck.write_checkpoint(self.leaf / "last", self.step, tensors, state)
        self.accelerator.wait_for_everyone()

    def _freeze_bn(self) -> bool:
        return bool(self.model.settings["freeze_bn"])

    def _restore(self, saved: ck.Checkpoint) -> None:
        self.model.load_state_dict(ck.without_prefix("model", saved.tensors))
        self.model.settings["freeze_bn"] = saved.state["freeze_bn"]
        ck.restore_optimizer(self.raw_optimizer, saved.tensors)
        if self.ema is not None:
            self.ema.module.load_state_dict(ck.without_prefix("ema", saved.tensors))
        if self.accelerator.scaler is not None and saved.state["scaler"]:
            self.accelerator.scaler.load_state_dict(saved.state["scaler"])
        for name in ("step", "epoch", "position", "history", "best", "epoch_loss", "epoch_weight", "seconds"):
            setattr(self, name, saved.state[name])

    def _drop_old_epochs(self) -> None:
        kept = self.config.train.keep_epochs
        if kept and self.main:
            for old in sorted((self.leaf / "epochs").glob("epoch-*"))[:-kept]:
                for file in old.iterdir():
                    file.unlink()
                old.rmdir()

    def _rate(self, name: str = "sequence") -> float:
        rates = {group["name"]: group["lr"] for group in self.raw_optimizer.param_groups}
        return float(rates.get(name, 0.0))

    def _sum(self, value: float) -> float:
        if self.accelerator.num_processes == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=self.accelerator.device)
        return float(self.accelerator.reduce(total))

    def note(self, text: str) -> None:
        """A line on the screen and in log.txt."""
        if not self.main:
            return
        if self.progress:
            tqdm.write(text, file=sys.stderr)
        with open(self.leaf / "log.txt", "a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def _write_run(self, patients: list[str] | None, *, finished: bool, seconds: float = 0.0) -> None:
        if not self.main:
            return
        path = self.leaf / "run.json"
        if patients is None:
            content = json.loads(path.read_text(encoding="utf-8"))
        else:
            content = {
                "stage": self.stage.name, "fold": self.fold, "seed": self.config.train.seed, "commit": _commit(),
                "versions": _versions(), "device": str(self.accelerator.device), "data_key": self.index.key,
                "data_folder": str(self.index.folder), "phantom": self.index.phantom, "prevalence": self._prevalence(),
                "patients": patients, "seconds": 0.0,
            }  # fmt: skip
        content |= {"finished": finished, "seconds": round(content["seconds"] + seconds, 1)}
        write_json(path, content)


class StopRequest:
    """Set by SIGTERM or Ctrl-C; the loop looks at it after each step."""

    code = 0


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """While inside, the first SIGTERM or Ctrl-C only sets the request's code (143 or 130); a second leaves at once."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}

    def ask(number: int, _frame: object) -> None:
        request.code = 128 + number
        for other in numbers:
            signal.signal(other, signal.SIG_DFL)

    for number in numbers:
        signal.signal(number, ask)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _precision(asked: str) -> str:
    if asked != "auto":
        return asked
    if not torch.cuda.is_available():
        return "no"
    return "bf16" if torch.cuda.is_bf16_supported() else "fp16"


def _versions() -> dict[str, str]:
    return {"ichseq": ichseq.__version__, "python": platform.python_version(), "torch": torch.__version__,
            "timm": timm.__version__}  # fmt: skip


def _commit() -> str | None:
    """Commit of the source folder, where ichseq runs from a checkout."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() or None
