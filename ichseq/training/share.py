"""How much of the answer is the sequence part's, and for a series the exam head's, label by label.

Fitted on the validation series after training.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ichseq.data.batches import Item
from ichseq.data.feed import feed
from ichseq.labels import LABELS
from ichseq.model import Model
from ichseq.model.heads import highest_of_series
from ichseq.model.saved import write_shares
from ichseq.runs.folders import kept_epochs
from ichseq.runs.names import fold_words
from ichseq.training.losses import clipped_logits
from ichseq.training.setup import Setup
from ichseq.training.stages.readers import Reader

STEPS = 100
"""Shares are tried in steps of 1 / STEPS; the loss is convex in them, so that no better one is missed between two."""


def fit_share(setup: Setup, reader: Reader[Any]) -> None:
    """Fit the shares for the best weights of a leaf, and note them in its model.json and in those of kept epochs.

    To be called by every process; the first one does it.
    """
    if setup.processes.main:
        model = Model.load(setup.leaf, setup.processes.device)
        slices, exams = _answers(setup, model, reader)
        share, exam_share = best_shares(*slices), None if exams is None else best_shares(*exams)
        for folder in (setup.leaf, *kept_epochs(setup.leaf)):
            write_shares(folder, share, exam_share)
        for part, fitted in (("sequence part", share), ("exam head", exam_share)):
            if fitted is not None:
                words = ", ".join(f"{label} {one:g}" for label, one in zip(LABELS, fitted, strict=True))
                setup.log.note(f"share of the {part}, fitted on {fold_words(setup.fold)}: {words}")
    setup.processes.wait()


class Answered(NamedTuple):
    """Of slices or of exams, (n, 6) each and on the CPU: logits of what reads series, of the slice head, the truth."""

    in_order: Tensor
    of_slices: Tensor
    labels: Tensor


def best_shares(in_order: Tensor, of_slices: Tensor, labels: Tensor) -> list[float]:
    """The share of `in_order` in a blend of logits with the lowest log loss, by label.

    1 for a label that is nowhere known, or nowhere 1; of shares that are as good, the highest.

    Args:
        in_order: (n, 6) logits of the sequence part, or of the exam head.
        of_slices: (n, 6) logits of the slice head; of an exam the highest.
        labels: (n, 6), NaN where unknown.
    """
    best = []
    for k in range(len(LABELS)):
        known = ~labels[:, k].isnan()
        truth = labels[known, k].double()
        if not (truth == 1).any():
            best.append(1.0)
            continue
        shares = torch.arange(STEPS, -1, -1, dtype=torch.float64) / STEPS
        one, other = (logits[known, k].double() for logits in (in_order, of_slices))
        blends = clipped_logits(torch.lerp(other, one, shares[:, None]))  # (shares, S)
        losses = F.binary_cross_entropy_with_logits(blends, truth.expand_as(blends), reduction="none").mean(dim=1)
        best.append(float(shares[int(losses.argmin())]))
    return best


@torch.no_grad()
def _answers(setup: Setup, model: Model, reader: Reader[Any]) -> tuple[Answered, Answered | None]:
    """What a model says of the slices of the validation series, and of these as exams; None without an exam head."""
    series, size = setup.validation_series, setup.config.train.patients_per_batch
    tasks = [[Item(int(i)) for i in series[k : k + size]] for k in range(0, len(series), size)]
    slices, exams = list[Answered](), list[Answered]()
    model.sequence_share = model.exam_share = None  # of an earlier fit
    for batch in feed(tasks, reader.validation(), threads=setup.config.train.workers, device=model.device):
        with setup.accelerator.autocast():
            output = setup.stage.answer(model, batch)
        slices.append(_on_cpu(output.logits, output.slice_logits, batch.labels))
        if output.exam_logits is not None and setup.stage.trains_exams(model):
            highest = highest_of_series(output.slice_logits, batch.lengths.tolist())
            exams.append(_on_cpu(output.exam_logits, highest, batch.exam_labels))
    return _joined(slices), _joined(exams) if exams else None


def _on_cpu(in_order: Tensor, of_slices: Tensor, labels: Tensor) -> Answered:
    return Answered(in_order.float().cpu(), of_slices.float().cpu(), labels.cpu())


def _joined(parts: list[Answered]) -> Answered:
    return Answered(*(torch.cat(column) for column in zip(*parts, strict=True)))
