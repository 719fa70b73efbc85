"""The loss on the series that are left out of training, after each epoch."""

import math
from typing import Any

import torch

from ichseq.data.batches import Item, item_labels
from ichseq.data.feed import feed
from ichseq.labels import CLIP_PROBABILITY
from ichseq.training.losses import label_weight, weighted_bce_sum
from ichseq.training.setup import Setup
from ichseq.training.stages.readers import Reader

_LIMIT = math.log((1 - CLIP_PROBABILITY) / CLIP_PROBABILITY)  # of a logit


@torch.no_grad()
def validate(setup: Setup, reader: Reader[Any]) -> float | None:
    """Weighted log loss over the validation series, with clipping; None where no label is known.

    To be called by every process: each scores its share of the series, with running statistics that are then the same
    in all.
    """
    setup.share_statistics()
    index, processes, model = setup.index, setup.processes, setup.answering
    everything = [Item(int(i)) for i in setup.validation_series]
    own, size = everything[processes.rank :: processes.count], setup.config.train.patients_per_batch
    tasks = [own[k : k + size] for k in range(0, len(own), size)]
    total = torch.zeros((), dtype=torch.float64, device=processes.device)
    chunk = model.chunk_size
    model.eval()
    for batch in feed(tasks, reader.validation(), threads=setup.config.train.workers, device=processes.device):
        with setup.accelerator.autocast():
            logits = setup.stage.logits(model, batch)
        total += weighted_bce_sum(logits.float().clamp(-_LIMIT, _LIMIT), batch.labels)
    model.train()
    if model.live_batch_norms():
        model.chunk_size = chunk  # which memory may have lowered here; in training it is part of the computation
    weight = label_weight(torch.from_numpy(item_labels(index, everything)))
    return processes.sum(float(total)) / weight if weight else None
