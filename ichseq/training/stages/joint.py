"""The joint stage: everything at once, on batches of whole series."""

from typing import ClassVar, Literal

import numpy as np
import torch

from ichseq.data.batches import SliceBatch
from ichseq.data.index import Index
from ichseq.model import Model, Output
from ichseq.training.losses import weighted_bce_sum, zero_through
from ichseq.training.processes import Processes
from ichseq.training.stages.readers import Reader, SliceReader, series_boxes
from ichseq.training.stages.stage import Loss, Stage
from ichseq.training.stopping import StopRequest


class JointStage(Stage[SliceBatch]):
    """Trains everything, the gradients of the sequence part's and the exam head's losses reaching the backbone."""

    name: ClassVar[str] = "joint"
    parts: ClassVar[tuple[str, ...]] = ("backbone", "slice_head", "sequence", "exam")
    answers_with: ClassVar[Literal["slice_head", "sequence"]] = "sequence"

    def choose_parameters(self, model: Model) -> None:
        """As every stage; a slice head that no loss reaches is not trained."""
        super().choose_parameters(model)
        if self.config.train.aux_weight == 0 and model.sequence is not None and not model.sequence.reads_logits:
            model.slice_head.requires_grad_(False)  # a parameter without gradient would keep processes waiting

    def freezes_backbone(self, epoch: int) -> bool:
        """For the first `train.freeze_epochs`."""
        return epoch < self.config.train.freeze_epochs

    def reader(
        self, model: Model, index: Index, series: np.ndarray, *, processes: Processes, request: StopRequest, shown: bool
    ) -> Reader[SliceBatch]:
        """Slices; where a batch holds windows, the crop boxes of whole series are found ahead."""
        config, boxes = self.config, None
        if config.train.window:
            boxes = series_boxes(model, index, series, config.train.workers, request)
        return SliceReader(index, boxes, config.model.neighbours, config.augment, config.train.seed)

    def loss(self, model: Model, batch: SliceBatch, *, backbone_frozen: bool = False) -> Loss:
        """The loss of the sequence part, `train.aux_weight` of the slice head's (deep supervision), and the exams'."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not backbone_frozen):
            embeddings = model.embed(batch.hu, batch.lengths, **batch.seen_as)
        output = model.answer(embeddings, batch.lengths, batch.positions_mm)
        slice_loss = weighted_bce_sum(output.slice_logits, batch.labels)
        if model.sequence is None:
            own = total = slice_loss
        else:
            own = weighted_bce_sum(output.logits, batch.labels)
            total = own + self.config.train.aux_weight * slice_loss
        if backbone_frozen:
            total = total + zero_through(model.backbone)
        return Loss(total, own.detach(), *self.of_series(model, batch, output.logits, output.exam_logits))

    def answer(self, model: Model, batch: SliceBatch) -> Output:
        """That of the whole network."""
        embeddings = model.embed(batch.hu, batch.lengths, **batch.seen_as)
        return model.answer(embeddings, batch.lengths, batch.positions_mm)
