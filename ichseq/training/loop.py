"""The one training loop, on accelerate: CPU, one GPU or several, and the same steps whether interrupted or not.

Random draws follow from (seed, epoch, series) and (seed, step, process), so a checkpoint needs no random states.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from ichseq.data.batches import Batch, Item, item_exam_labels, item_labels, item_lengths
from ichseq.data.feed import feed
from ichseq.data.plan import Plan, Step
from ichseq.errors import RunError, Stopped, counted
from ichseq.runs.folders import checkpoints_of
from ichseq.runs.names import fold_words
from ichseq.training import checkpoint as ck
from ichseq.training.gradients import gradients
from ichseq.training.keep import given_exams, start_answers, with_start
from ichseq.training.losses import step_weights
from ichseq.training.memory_plan import MemoryPlan
from ichseq.training.progress import Position, StepBar
from ichseq.training.setup import Setup
from ichseq.training.share import fit_share
from ichseq.training.stages.readers import Read, Reader
from ichseq.training.stopping import StopRequest
from ichseq.training.validation import Validated, validate


class Training:
    """A stage in training: what it trains with, and where it stands.

    Attributes:
        setup: what it trains with.
        position: where it stands.
        request: SIGTERM or Ctrl-C.
    """

    def __init__(self, setup: Setup, saved: ck.Checkpoint | None = None, request: StopRequest | None = None) -> None:
        """Stand at the first step, and save that; or where a checkpoint was written.

        Raises:
            RunError: the first checkpoint can't be written.
        """
        self.setup, self.request = setup, request or StopRequest()
        self.position = Position()
        self._unread: list[tuple[list[Item], Tensor, float]] = []  # items, loss on the device, weight of the whole step
        self._last_loss = math.nan
        self._start: Tensor | None = None  # (n_slices, 6), what the start answers, once `read_ahead` has asked it
        if saved is None:
            self.save()
        else:
            self.load_state_dict(saved.tensors, saved.state)

    # ---- the loop --------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Train the epochs that are left. Whatever ends it, there is a checkpoint from which `--resume` goes on."""
        s, position, train = self.setup, self.position, self.setup.config.train
        reader = self.read_ahead()
        with self._bar() as bar:
            for epoch in range(position.epoch, s.epochs):
                if train.patience and position.epochs_since_best >= train.patience:
                    s.log.note(f"no better for {counted(position.epochs_since_best, 'epoch')}: stopped")
                    break
                plan = s.plan(epoch)
                steps = plan[position.step_of_epoch :]  # all of them, unless the epoch was interrupted
                batches = self.batches(reader.training(epoch), steps)
                self.begin_epoch()
                for step in steps:
                    bar.count(self.step(step, batches))
                    if bar.due:
                        bar.show(epoch, self.read_losses(), s.rates()["sequence"])
                    if position.step_of_epoch == len(plan):
                        break
                    stop = self.asked_to_stop()
                    if stop or position.step % train.checkpoint_every == 0:
                        self.save()
                    if stop:
                        raise self.stopped(stop)
                self.read_losses()
                self.end_epoch(plan, validate(s, reader))
                self.save()
                if stop := self.asked_to_stop():
                    raise self.stopped(stop)
        if s.stage.reads_series and train.fit_share:
            fit_share(s, reader)
        s.log.end(self.wall_seconds())

    def step(self, step: Step, batches: Iterator[Batch]) -> int:
        """One step of the optimizer, on the mean loss over the labels of all processes' batches.

        Returns:
            How many slices of this process's share have gone through what is trained.
        """
        s, position, started = self.setup, self.position, time.monotonic()
        items = [item for process in step for micro_batch in process for item in micro_batch]
        labels = (item_labels(s.index, items), item_exam_labels(s.index, items))
        weights = step_weights(*map(torch.from_numpy, labels))
        own = [next(batches) for _ in step[s.processes.rank]]
        s.scheduler.step_update(position.step)
        losses = gradients(s, position, own, weights)  # forward and backward
        if limit := s.config.train.clip_norm:
            s.accelerator.clip_grad_norm_([p for p in s.loss.parameters() if p.requires_grad], limit)
        if s.stage.freezes_backbone(position.epoch):
            s.model.backbone.zero_grad(set_to_none=True)  # so that the optimizer keeps no count of these steps
        s.optimizer.step()
        s.optimizer.zero_grad(set_to_none=True)
        position.step += 1
        position.step_of_epoch += 1
        if s.ema is not None:
            s.ema.update(s.model, step=position.step)
        weight = weights.exams if s.stage.trains_exams(s.model) else weights.slices
        self._unread += [(batch.items, loss, weight) for batch, loss in zip(own, losses, strict=True)]
        position.seconds += time.monotonic() - started
        return s.stage.slices_trained([n for batch in own for n in batch.lengths.tolist()])

    # ---- an epoch --------------------------------------------------------------------------------------------------

    def _bar(self) -> StepBar:
        s = self.setup
        title, steps = f"{s.stage.name} {fold_words(s.fold)}", s.steps_per_epoch * s.epochs
        return StepBar(title, steps, self.position.step, shown=s.log.shown)

    def read_ahead(self) -> Reader[Any]:
        """What reads the batches; a stage may have to look at the whole set first.

        Raises:
            Stopped: SIGTERM or Ctrl-C; what was done of it may be kept.
        """
        s = self.setup
        try:
            reader = s.stage.reader(
                s.model, s.index, s.training_series, processes=s.processes, request=self.request, shown=s.log.shown
            )
            if s.stage.reads_series and s.config.train.keep_weight > 0:
                answers = start_answers(s, reader, self.request, begun=self.position.step > 0)
                self._start = given_exams(answers, s.index) if s.config.train.keep == "posterior" else answers
            return reader
        except InterruptedError:
            raise self.stopped(self.request.code) from None

    def batches(self, read: Read[Any], steps: Plan) -> Iterator[Batch]:
        """This process's batches of some steps, on the device, read ahead."""
        s = self.setup
        tasks = [micro_batch for step in steps for micro_batch in step[s.processes.rank]]
        if self._start is not None:
            read = with_start(read, s.index, self._start)
        return feed(tasks, read, threads=s.config.train.workers, device=s.processes.device)

    def begin_epoch(self) -> None:
        """Put the network into training mode; the running statistics of a backbone that is left alone stay as well."""
        self.setup.loss.train()
        if self.setup.stage.freezes_backbone(self.position.epoch):
            self.setup.model.backbone.eval()

    def read_losses(self) -> float:
        """Add the losses since the last call to the epoch's; waits for the device, once.

        Returns:
            The last loss of this process.

        Raises:
            RunError: one is not finite; no checkpoint holds what came of it.
        """
        s, position = self.setup, self.position
        losses = torch.stack([loss for _, loss, _ in self._unread]).tolist() if self._unread else []
        for (items, _, weight), loss in zip(self._unread, losses, strict=True):
            if not math.isfinite(loss):
                names = ", ".join(str(s.index.store_path(item.series).name) for item in items)
                raise RunError(f"{s.leaf}: the loss is {loss} on the series {names} (epoch {position.epoch + 1}); the "
                               "last good checkpoint is kept; lower the learning rates")  # fmt: skip
            position.epoch_loss += loss * weight
            position.epoch_weight += weight / s.config.train.accumulate  # the step's, at each of its micro-batches
            self._last_loss = loss
        self._unread.clear()
        return self._last_loss

    def end_epoch(self, plan: Plan, validated: Validated) -> None:
        """Note what came of an epoch, keep its weights if they are the best or asked for, and go to the next."""
        s, position, valid = self.setup, self.position, validated.figure(self.setup.config.train)
        train_loss = s.processes.sum(position.epoch_loss) / max(position.epoch_weight, 1)
        items = [item for step in plan for process in step for items in process for item in items]
        slices = s.stage.slices_trained(item_lengths(s.index, items))
        rates = s.rates()
        position.history.append({
            "epoch": position.epoch + 1, "step": position.step, "seconds": round(position.seconds, 3),
            "train_loss": train_loss, "valid_loss": valid, "valid_weighted_log_loss": validated.slices,
            "learning_rate_backbone": rates["backbone"], "learning_rate_sequence": rates["sequence"],
            "slices": slices, "slices_per_second": round(slices / max(position.seconds, 1e-9), 2),
        } | ({"valid_exam_log_loss": validated.exams} if s.stage.trains_exams(s.model) else {}))  # fmt: skip
        s.log.note(f"epoch {position.epoch + 1}: train {train_loss:.5f}, validation {validated.words()}")
        if s.processes.main:
            if valid is None or position.is_best(valid):
                s.answering.save(s.leaf)
            if s.config.train.keep_epochs:
                ck.keep_epoch(s.answering, s.leaf, position.epoch + 1, s.config.train.keep_epochs)
        s.log.write_history(position.history)
        position.next_epoch(valid)

    # ---- stopping and going on -------------------------------------------------------------------------------------

    def asked_to_stop(self) -> int:
        """The exit code that was asked of any process, since all have to stop at one step; 0: none."""
        return self.setup.processes.largest(self.request.code)

    def stopped(self, code: int) -> Stopped:
        """The error that ends a run which is saved."""
        run = self.setup.leaf.parents[1]
        return Stopped(f"stopped at step {self.position.step}, saved; go on with --resume -o {run}", code)

    def wall_seconds(self) -> float:
        """Seconds that the run has taken: until the checkpoint that it was resumed from, and since."""
        return self.position.wall_seconds + time.monotonic() - self.setup.started

    def save(self) -> None:
        """Write a checkpoint; losses are read first, so that none holds a poisoned step. By every process."""
        s = self.setup
        self.read_losses()
        s.share_statistics()
        tensors, state = self.state_dict()
        if s.processes.main:
            ck.write_checkpoint(checkpoints_of(s.leaf), self.position.step, tensors, state)
        s.processes.wait()

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What decides the next step: named tensors, and what goes into JSON. To be called by every process."""
        s = self.setup
        tensors = ck.with_prefix("model", s.model.state_dict()) | ck.optimizer_tensors(s.optimizer)
        tensors |= ck.with_prefix("stage", s.stage.state_dict())
        if s.ema is not None:
            tensors |= ck.with_prefix("ema", s.ema.module.state_dict())
        sums = {"epoch_loss": s.processes.sum(self.position.epoch_loss), "wall_seconds": self.wall_seconds()}
        return tensors, {
            "position": asdict(self.position) | sums,
            "scaler": s.accelerator.scaler.state_dict() if s.accelerator.scaler is not None else {},
            "config": s.config.to_dict(),
            "data_key": s.index.key,
            "machine": s.machine,
            "memory_plan": asdict(MemoryPlan.of(s.model)),
            "freeze_bn": bool(s.model.config.freeze_bn),
            "trained_on": s.model.trained_on,
        }

    def load_state_dict(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave, into a set-up built for it (`set_up` with the same checkpoint)."""
        s = self.setup
        s.model.load_state_dict(ck.without_prefix("model", tensors))
        ck.restore_optimizer(s.optimizer, tensors)
        s.stage.load_state_dict(ck.without_prefix("stage", tensors), s.index)
        if s.ema is not None:
            s.ema.module.load_state_dict(ck.without_prefix("ema", tensors))
        if s.accelerator.scaler is not None and state["scaler"]:
            s.accelerator.scaler.load_state_dict(state["scaler"])
        self.position = Position(**state["position"])
        if not s.processes.main:
            self.position.epoch_loss = 0.0  # the sum over all processes was saved
