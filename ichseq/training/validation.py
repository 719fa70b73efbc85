"""The loss on the series that are left out of training, after each epoch."""

from typing import Any, NamedTuple

import torch

from ichseq.config import TrainConfig
from ichseq.data.batches import Item, item_exam_labels, item_labels
from ichseq.data.feed import feed
from ichseq.training.losses import clipped_logits, label_weight, weighted_bce_sum
from ichseq.training.setup import Setup
from ichseq.training.stages.readers import Reader


class Validated(NamedTuple):
    """Weighted log losses over the validation series, with clipping; None where no label is known.

    Attributes:
        slices: of the slices.
        exams: of the exams; None too where no exam head is trained.
    """

    slices: float | None
    exams: float | None

    def figure(self, train: TrainConfig) -> float | None:
        """What the best epoch has the lowest of: the mean of what is known, weighted as in training."""
        known = [(loss, weight) for loss, weight in ((self.slices, train.slice_weight), (self.exams, train.exam_weight))
                 if loss is not None and weight > 0]  # fmt: skip
        if not known:  # nothing that is trained on is known here; what is, still tells the epochs apart
            return self.slices if self.exams is None else self.exams
        if len(known) == 1:
            return known[0][0]
        return sum(loss * weight for loss, weight in known) / sum(weight for _, weight in known)

    def words(self) -> str:
        """For a person to read."""
        shown = [] if self.slices is None else [f"weighted log loss {self.slices:.5f}"]
        shown += [] if self.exams is None else [f"of exams {self.exams:.5f}"]
        return ", ".join(shown) or "no labels"


@torch.no_grad()
def validate(setup: Setup, reader: Reader[Any]) -> Validated:
    """Score the validation series.

    To be called by every process: each scores its share of the series, with running statistics that are then the same
    in all.
    """
    setup.share_statistics()
    index, processes, model = setup.index, setup.processes, setup.answering
    everything = [Item(int(i)) for i in setup.validation_series]
    own, size = everything[processes.rank :: processes.count], setup.config.train.patients_per_batch
    tasks = [own[k : k + size] for k in range(0, len(own), size)]
    total, total_exams = torch.zeros((2,), dtype=torch.float64, device=processes.device)
    with_exams = setup.stage.trains_exams(model)
    chunk = model.chunk_size
    model.eval()
    for batch in feed(tasks, reader.validation(), threads=setup.config.train.workers, device=processes.device):
        with setup.accelerator.autocast():
            output = setup.stage.answer(model, batch)
        total += weighted_bce_sum(clipped_logits(output.logits), batch.labels)
        if with_exams and output.exam_logits is not None:
            total_exams += weighted_bce_sum(clipped_logits(output.exam_logits), batch.exam_labels)
    model.train()
    if model.live_batch_norms():
        model.chunk_size = chunk  # which memory may have lowered here; in training it is part of the computation
    weight = label_weight(torch.from_numpy(item_labels(index, everything)))
    slices = processes.sum(float(total)) / weight if weight else None
    exam_weight = label_weight(torch.from_numpy(item_exam_labels(index, everything))) if with_exams else 0.0
    return Validated(slices, processes.sum(float(total_exams)) / exam_weight if exam_weight else None)
