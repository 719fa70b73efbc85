"""The slice stage: backbone and slice head, on shuffled slices of all series."""

from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from ichseq.data.batches import SliceBatch
from ichseq.data.index import Index
from ichseq.data.plan import Plan, plan_slices
from ichseq.model import Model, Output
from ichseq.training.losses import weighted_bce_sum
from ichseq.training.processes import Processes
from ichseq.training.stages.readers import Reader, SliceReader, series_boxes
from ichseq.training.stages.stage import BatchSize, Loss, Stage
from ichseq.training.stopping import StopRequest


class SliceStage(Stage[SliceBatch]):
    """Trains the backbone and the slice head; what a slice shows is all that they see of it."""

    name: ClassVar[str] = "slice"
    parts: ClassVar[tuple[str, ...]] = ("backbone", "slice_head")
    answers_with: ClassVar[Literal["slice_head", "sequence"]] = "slice_head"

    def _steps(self, index: Index, series: np.ndarray, **sharing: Any) -> Plan:
        return plan_slices(index, series, batch=self.config.train.slices_per_batch, **sharing)

    def largest_batch(self, index: Index, series: np.ndarray) -> BatchSize:
        """Every batch but an epoch's last ones is the largest."""
        return BatchSize(self.config.train.slices_per_batch, self._slice_bytes(index, parts=True))

    def reader(
        self, model: Model, index: Index, series: np.ndarray, *, processes: Processes, request: StopRequest, shown: bool
    ) -> Reader[SliceBatch]:
        """Slices; the crop boxes of their series are found ahead."""
        config = self.config
        boxes = series_boxes(model, index, series, config.train.workers, request)
        return SliceReader(index, boxes, model.crop_boxes, config.model.neighbours, config.augment, config.train.seed)

    def loss(self, model: Model, batch: SliceBatch, *, backbone_frozen: bool = False) -> Loss:
        """The loss of each slice by itself, or of mixtures of slices with `train.mixup`."""
        mixup = self.config.train.mixup
        if mixup and model.training:
            loss = _mixed_loss(model, batch, mixup)
        else:
            loss = weighted_bce_sum(self.answer(model, batch).logits, batch.labels)
        return Loss(loss, loss.detach())

    def answer(self, model: Model, batch: SliceBatch) -> Output:
        """That of the slice head."""
        logits = model.slice_logits(model.embed(batch.hu, batch.lengths, **batch.seen_as))
        return Output(logits, logits)


def _mixed_loss(model: Model, batch: SliceBatch, mixup: float) -> Tensor:
    """The loss of mixup: every slice is mixed with another of the batch, and their labels in the same shares.

    A label that is unknown in either is unknown in the mixture. Source: Zhang et al., "mixup" (2018).
    """
    images = model.images(batch.hu, batch.lengths, **batch.seen_as)
    share = torch.distributions.Beta(mixup, mixup).sample((len(images),))
    share, partner = share.to(images.device)[:, None], torch.randperm(len(images)).to(images.device)
    images = torch.lerp(images[partner], images, share[:, :, None, None])
    labels = torch.lerp(batch.labels[partner], batch.labels, share)
    return weighted_bce_sum(model.slice_logits(model.embed_images(images)), labels)
