"""How much of the answer is the sequence part's, label by label: fitted on the validation series after training."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ichseq.data.batches import Item
from ichseq.data.feed import feed
from ichseq.labels import LABELS
from ichseq.model import Model
from ichseq.model.saved import write_share
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
        in_order, of_slices, labels = _logits(setup, model, reader)
        share = best_shares(in_order, of_slices, labels)
        for folder in (setup.leaf, *kept_epochs(setup.leaf)):
            write_share(folder, share)
        words = ", ".join(f"{label} {one:g}" for label, one in zip(LABELS, share, strict=True))
        setup.log.note(f"share of the sequence part, fitted on {fold_words(setup.fold)}: {words}")
    setup.processes.wait()


def best_shares(in_order: Tensor, of_slices: Tensor, labels: Tensor) -> list[float]:
    """The share of `in_order` in a blend of logits with the lowest log loss, by label.

    1 for a label that is nowhere known, or nowhere 1; of shares that are as good, the highest.

    Args:
        in_order: (S, 6) logits of the sequence part.
        of_slices: (S, 6) logits of the slice head.
        labels: (S, 6), NaN where unknown.
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
def _logits(setup: Setup, model: Model, reader: Reader[Any]) -> tuple[Tensor, Tensor, Tensor]:
    """What sequence part and slice head say of the validation slices, and the truth, on the CPU."""
    series, size = setup.validation_series, setup.config.train.patients_per_batch
    tasks = [[Item(int(i)) for i in series[k : k + size]] for k in range(0, len(series), size)]
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    model.sequence_share = None  # of an earlier fit
    for batch in feed(tasks, reader.validation(), threads=setup.config.train.workers, device=model.device):
        with setup.accelerator.autocast():
            output = setup.stage.answer(model, batch)
        found.append((output.logits.float().cpu(), output.slice_logits.float().cpu(), batch.labels.cpu()))
    in_order, of_slices, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
    return in_order, of_slices, labels
