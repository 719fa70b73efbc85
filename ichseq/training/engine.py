"""The one training loop, on accelerate: CPU, one GPU or several, and the same steps whether interrupted or not.

Random draws follow from (seed, epoch, series) and (seed, step, process), so a checkpoint needs no random states.
"""

import math
import time
import traceback
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ichseq.config import Config
from ichseq.data.batches import Batch, Item, item_labels, item_lengths
from ichseq.data.feed import feed
from ichseq.data.index import Index
from ichseq.devices import out_of_memory, release_memory
from ichseq.errors import IchseqError, RunError
from ichseq.labels import CLIP_PROBABILITY
from ichseq.model import Model
from ichseq.runs.folders import leaf_of
from ichseq.runs.names import fold_words
from ichseq.seeds import derive_seed
from ichseq.training import checkpoint as ck
from ichseq.training.losses import label_weight, weighted_bce_sum
from ichseq.training.session import Session
from ichseq.training.stages import stage_logits
from ichseq.training.stopping import StopRequest, stop_requests


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
        fold: the fold held out for validation; `ichseq.data.index.ALL_PATIENTS` holds none out.
        out: the run's folder, runs/NAME; this stage and fold get a leaf of their own in it.
        init: leaf of another run whose weights are the start.
        resume: go on from the last checkpoint of the leaf.
        progress: show a progress bar on standard error.

    Returns:
        The leaf's folder.

    Raises:
        DataError: the prepared set is missing or damaged, or has nothing to train on.
        RunError: the leaf is taken, nothing to resume, a run that has seen this fold's patients, a loss not finite,
            memory that does not do.
        Stopped: SIGTERM or Ctrl-C; the step was finished and saved.
    """
    leaf = leaf_of(out, stage, fold)
    session = Session(config, stage, Index.load(data), fold, leaf, progress)
    with stop_requests() as request:
        try:
            session.prepare(init, resume, request)
            Trainer(session, request).run()
        except IchseqError:
            raise
        except OSError as error:
            session.journal.log(traceback.format_exc())
            raise RunError(f"{error.filename or leaf}: {error.strerror}; once that is mended, go on with --resume -o "
                           f"{out}") from error  # fmt: skip
        except Exception:
            session.journal.log(traceback.format_exc())  # the screen shows one line of it
            raise
    return leaf


class Trainer:
    """The loop over a session's steps and epochs."""

    def __init__(self, session: Session, request: StopRequest) -> None:
        """Take a session that is prepared; `request` says when to stop."""
        self.session, self.request = session, request
        self.pending: list[tuple[list[Item], Tensor, float]] = []  # losses that nobody has looked at yet
        self.shown = ""

    def run(self) -> None:
        """All epochs that are left. Every exit leaves a checkpoint from which `--resume` goes on."""
        s = self.session
        epochs = s.config.train.epochs or 1
        with tqdm(total=s.steps_per_epoch * epochs, initial=s.at.step, desc=f"{s.stage.name} {fold_words(s.fold)}",
                  unit="step", disable=not s.journal.shown, mininterval=0.5) as bar:  # fmt: skip
            while s.at.epoch < epochs:
                self._epoch(bar)
        s.journal.end(s.wall_seconds())

    def _epoch(self, bar: Any) -> None:
        s, train = self.session, self.session.config.train
        plan = s.plan(s.at.epoch)
        steps = plan[s.at.step_of_epoch :]
        tasks = [items for step in steps for items in step[s.group.rank]]
        augment = s.config.augment if s.stage.augments else None
        reader = replace(s.reader, augment=augment, seed=train.seed, epoch=s.at.epoch)
        batches = feed(tasks, reader, threads=train.workers, device=s.device)
        s.network.held = s.stage.name == "joint" and s.at.epoch < train.freeze_epochs
        s.network.train()
        if s.network.held:
            s.model.backbone.eval()  # its running statistics stay as well
        last, slices, tick = time.monotonic(), 0, time.monotonic()
        for step in steps:
            slices += self._step(step, batches)
            s.at.seconds += time.monotonic() - tick
            tick = time.monotonic()
            if tick - last > 1:
                self._look_at_losses()
                bar.set_postfix_str(f"epoch {s.at.epoch + 1}, loss {self.shown}, lr {self._rate('sequence'):.1e}, "
                                    f"{slices / (tick - last):.0f} slices/s", refresh=False)  # fmt: skip
                last, slices = tick, 0
            bar.update()
            stop, ended = self._asked_to_stop(), s.at.step_of_epoch == len(plan)
            if not ended and (stop or s.at.step % train.checkpoint_every == 0):
                self._save()
            if stop and not ended:
                s.stop(stop)
            tick = time.monotonic()
        self._end_epoch()
        if stop := self._asked_to_stop():
            s.stop(stop)

    def _asked_to_stop(self) -> int:
        """The exit code that was asked of any process, since all have to stop at one step; 0: none."""
        return self.session.group.largest(self.request.code)

    # ---- a step ----------------------------------------------------------------------------------------------------

    def _step(self, step: list[list[list[Item]]], batches: Iterator[Batch]) -> int:
        """One optimizer step over this process's micro-batches; the loss is the mean over the whole step's labels."""
        s, train = self.session, self.session.config.train
        everything = [item for process in step for items in process for item in items]
        weight = max(label_weight(torch.from_numpy(item_labels(s.index, everything))), 1.0)
        s.scheduler.step_update(s.at.step)
        own = [next(batches) for _ in step[s.group.rank]]
        statistics = s.model.running_statistics()
        while True:
            torch.manual_seed(derive_seed(train.seed, "step", s.at.step, s.group.rank))
            try:
                losses = self._backward(own, weight)
                break
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
            s.model.restore_statistics(statistics)
            self._make_room()
        self.pending += [(batch.items, loss, weight) for batch, loss in zip(own, losses, strict=True)]
        if train.clip_norm:
            s.accelerator.clip_grad_norm_([p for p in s.network.parameters() if p.requires_grad], train.clip_norm)
        if s.network.held:
            s.model.backbone.zero_grad(set_to_none=True)  # so that the optimizer keeps no count of these steps
        s.stepper.step()
        s.stepper.zero_grad(set_to_none=True)
        s.at.step += 1
        s.at.step_of_epoch += 1
        if s.ema is not None:
            s.ema.update(s.model, step=s.at.step)
        return sum(len(batch.labels) for batch in own)

    def _backward(self, batches: list[Batch], weight: float) -> list[Tensor]:
        """Gradients of this process's share of a step, and each batch's share of the mean loss."""
        s, losses = self.session, []
        for k, batch in enumerate(batches):
            more = k + 1 < len(batches)
            with s.accelerator.no_sync(s.wrapped) if more else nullcontext():
                loss, main = s.wrapped(batch)
                # Processes' gradients are averaged; each then stands for the sum over all of them.
                s.accelerator.backward(loss * (s.group.count / weight))
            losses.append(main / weight)
        return losses

    def _make_room(self) -> None:
        """After a step that ran out of memory: change how it is computed, but not its result, or give up."""
        s, model = self.session, self.session.model
        s.stepper.zero_grad(set_to_none=True)
        release_memory(s.device)
        chunk, recompute = model.chunk_size, model.checkpointing == "on"
        where = f"out of memory at step {s.at.step + 1}"
        advice = "lower train.patients_per_batch (with train.accumulate for the same step) or model.image_size"
        if s.group.count > 1:  # the others are waiting for this one's gradients
            raise RunError(f"{s.leaf}: {where} on process {s.group.rank}; resume with --set train.checkpointing=on "
                           f"--set train.chunk_size={max(chunk // 2, 1)}, or {advice}")  # fmt: skip
        if not recompute and "backbone" in s.stage.parts:
            s.journal.note(f"{where}: the backbone is recomputed in the backward pass from here on")
            s.set_fit(True, chunk)
        elif chunk > 1 and not model.live_batch_norms():
            s.journal.note(f"{where}: chunks of {chunk // 2} slices instead of {chunk} from here on")
            s.set_fit(recompute, chunk // 2)
        else:
            raise RunError(f"{s.leaf}: {where}, with chunks of {chunk} slices; {advice}")

    def _look_at_losses(self) -> None:
        """Those since the last look, one wait for the device; a loss not finite ends the run."""
        if not self.pending:
            return
        s = self.session
        losses = torch.stack([loss for _, loss, _ in self.pending]).tolist()
        for (items, _, weight), loss in zip(self.pending, losses, strict=True):
            if not math.isfinite(loss):
                names = ", ".join(str(s.index.store_path(i).name) for i, _, _ in items)
                raise RunError(f"{s.leaf}: the loss is {loss} on the series {names} (epoch {s.at.epoch + 1}); the last "
                               "good checkpoint is kept; lower the learning rates")  # fmt: skip
            s.at.epoch_loss += loss * weight
            s.at.epoch_weight += weight / s.config.train.accumulate  # the whole step's, at each of its micro-batches
        self.shown = f"{losses[-1]:.4f}"
        self.pending.clear()

    # ---- the end of an epoch ---------------------------------------------------------------------------------------

    def _save(self) -> None:
        """A checkpoint; the losses so far are looked at first, so that none holds a poisoned step."""
        self._look_at_losses()
        self.session.save()

    def _end_epoch(self) -> None:
        self._look_at_losses()
        s, at = self.session, self.session.at
        s.share_statistics()
        train_loss = s.group.sum(at.epoch_loss) / max(at.epoch_weight, 1)
        best_of = s.ema.module if s.ema is not None else s.model
        valid = self.validate(best_of)
        everything = [item for step in s.plan(at.epoch) for process in step for items in process for item in items]
        slices = sum(item_lengths(s.index, everything))
        at.history.append({
            "epoch": at.epoch + 1, "step": at.step, "seconds": round(at.seconds, 3), "train_loss": train_loss,
            "valid_loss": valid, "valid_weighted_log_loss": valid,
            "learning_rate_backbone": self._rate("backbone"), "learning_rate_sequence": self._rate("sequence"),
            "slices": slices, "slices_per_second": round(slices / max(at.seconds, 1e-9), 2),
        })  # fmt: skip
        shown = "no labels" if valid is None else f"weighted log loss {valid:.5f}"
        s.journal.note(f"epoch {at.epoch + 1}: train {train_loss:.5f}, validation {shown}")
        if s.group.main:
            if valid is None or at.best is None or valid < at.best or math.isnan(at.best):
                best_of.save(s.leaf)
            if s.config.train.keep_epochs:
                ck.keep_epoch(best_of, s.leaf / "epochs", at.epoch + 1, s.config.train.keep_epochs)
        s.journal.write_history(at.history)
        if valid is not None:
            at.best = valid if at.best is None or math.isnan(at.best) else min(valid, at.best)
        s.at = replace(at, epoch=at.epoch + 1, step_of_epoch=0, epoch_loss=0.0, epoch_weight=0.0, seconds=0.0)
        s.save()

    @torch.no_grad()
    def validate(self, model: Model) -> float | None:
        """Weighted log loss over the validation series, with clipping; None where no label is known."""
        s, train = self.session, self.session.config.train
        model.eval()
        chunk = model.chunk_size
        limit = math.log((1 - CLIP_PROBABILITY) / CLIP_PROBABILITY)
        everything = [Item(int(i)) for i in s.validation]
        own = everything[s.group.rank :: s.group.count]
        tasks = [own[k : k + train.patients_per_batch] for k in range(0, len(own), train.patients_per_batch)]
        total = torch.zeros((), dtype=torch.float64, device=s.device)
        for batch in feed(tasks, replace(s.reader, boxes=None), threads=train.workers, device=s.device):
            with s.accelerator.autocast():
                logits, _ = stage_logits(model, s.stage, batch)
            total += weighted_bce_sum(logits.float().clamp(-limit, limit), batch.labels)
        weight = label_weight(torch.from_numpy(item_labels(s.index, everything)))
        model.train()
        if model.live_batch_norms():
            model.chunk_size = chunk  # which memory may have lowered here; in training it is part of the computation
        return s.group.sum(float(total)) / weight if weight else None

    def _rate(self, name: str) -> float:
        rates = {group["name"]: group["lr"] for group in self.session.optimizer.param_groups}
        return float(rates.get(name, 0.0))
