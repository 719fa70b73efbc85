"""The joint stage: everything at once, on batches of whole series."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ichseq.config import Config
from ichseq.data.batches import Item, SliceBatch
from ichseq.data.feed import feed
from ichseq.data.index import Index
from ichseq.errors import ConfigError
from ichseq.model import Model, Output
from ichseq.model.batch_norm import still_statistics
from ichseq.seeds import derive_seed
from ichseq.training.losses import weighted_bce_sum, zero_through
from ichseq.training.processes import Processes
from ichseq.training.stages.part import Remembered, draw_part, embed_part, run_length
from ichseq.training.stages.readers import Reader, SliceReader, series_boxes
from ichseq.training.stages.stage import BatchSize, Loss, Stage
from ichseq.training.stopping import StopRequest


class JointStage(Stage[SliceBatch]):
    """Trains everything, the gradients of the sequence part's and the exam head's losses reaching the backbone."""

    name: ClassVar[str] = "joint"
    parts: ClassVar[tuple[str, ...]] = ("backbone", "slice_head", "sequence", "exam")
    answers_with: ClassVar[Literal["slice_head", "sequence"]] = "sequence"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._remembered: Remembered | None = None  # with `train.gradient_share`, from `reader` or a checkpoint

    def check(self, processes: int) -> None:
        """As of every stage; remembered embeddings have to be those of the slices as they are now read."""
        if self.config.train.gradient_share == 1:
            return
        if processes > 1:
            raise ConfigError(f"train.gradient_share below 1 keeps embeddings in one process, not in {processes}; "
                              "train in one, or set it to 1")  # fmt: skip
        why = None
        if self.config.model.cross_slice:
            why = "model.cross_slice reads slices beyond those of a step"
        elif self.config.train.short_scans:
            why = "train.short_scans crops a slice now in one way, now in another"
        if why:
            raise ConfigError(f"{why}, which train.gradient_share below 1 can't remember; give up one of them")

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
        """Slices; where a batch holds windows, the crop boxes of whole series are found ahead.

        With `train.gradient_share` below 1 all slices are embedded, unless a checkpoint has brought their embeddings.
        """
        config, boxes = self.config, None
        if config.train.window:
            boxes = series_boxes(model, index, series, config.train.workers, request)
        reader = SliceReader(index, boxes, model.crop_boxes, config.model.neighbours, config.augment, config.train.seed)
        if config.train.gradient_share < 1 and self._remembered is None:
            with tqdm(total=len(series), desc="embeddings", unit="series", disable=not shown) as bar:
                self._remembered = self._embedded(model, index, series, reader, processes, request, bar)
        return reader

    @torch.no_grad()
    def _embedded(
        self, model: Model, index: Index, series: np.ndarray, reader: SliceReader, processes: Processes,
        request: StopRequest, bar: tqdm,
    ) -> Remembered:  # fmt: skip
        """The embeddings of the slices that are trained on: without augmentation, but as training sees them.

        In evaluation mode an untrained network's batch norm would put them on another scale.
        """
        remembered = Remembered(index, torch.zeros(index.n_slices, model.features, dtype=torch.float16))
        train = self.config.train
        items = [Item(int(i)) for i in series]
        tasks = [items[k : k + train.patients_per_batch] for k in range(0, len(items), train.patients_per_batch)]
        chunk = model.chunk_size
        model.train()
        torch.manual_seed(derive_seed(train.seed, "remembered"))  # of stochastic depth
        with still_statistics(model.backbone):
            for batch in feed(tasks, reader.validation(), threads=train.workers, device=processes.device):
                with processes.accelerator.autocast():
                    embeddings = model.embed(batch.hu, batch.lengths, **batch.seen_as)
                remembered.put(batch.items, slice(None), embeddings)
                bar.update(len(batch.items))
                if request.code:
                    raise InterruptedError
        if model.live_batch_norms():
            model.chunk_size = chunk  # which memory may have lowered here; in training it is part of the computation
        return remembered

    def slices_trained(self, lengths: Sequence[int]) -> int:
        """With `train.gradient_share`, those of the runs."""
        share = self.config.train.gradient_share
        return sum(lengths) if share == 1 else sum(run_length(n, share) for n in lengths)

    def largest_batch(self, index: Index, series: np.ndarray) -> BatchSize:
        """As of every stage; with `train.gradient_share`, the slices that are read, which bring the others' bytes."""
        whole = super().largest_batch(index, series)
        slices = run_length(whole.slices, self.config.train.gradient_share)
        return BatchSize(slices, whole.slice_bytes * whole.slices // slices)

    def state_dict(self) -> dict[str, Tensor]:
        """The remembered embeddings."""
        return {} if self._remembered is None else {"remembered": self._remembered.values}

    def load_state_dict(self, tensors: dict[str, Tensor], index: Index) -> None:
        """Put them back; a checkpoint from before the first step has none."""
        if "remembered" in tensors:
            self._remembered = Remembered(index, tensors["remembered"])

    def loss(self, model: Model, batch: SliceBatch, *, backbone_frozen: bool = False) -> Loss:
        """The loss of the sequence part, `train.aux_weight` of the slice head's (deep supervision), and the exams'."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not backbone_frozen):
            embeddings, rows = self._embeddings(model, batch)
        output = model.answer(embeddings, batch.lengths, batch.positions_mm)
        if rows is None:
            slice_loss = weighted_bce_sum(output.slice_logits, batch.labels)
        else:  # of the slices that were read, in the stead of all
            read = weighted_bce_sum(output.slice_logits[rows], batch.labels[rows])
            slice_loss = read * (len(batch.labels) / len(rows))
        if model.sequence is None:
            own = total = slice_loss
        else:
            own = weighted_bce_sum(output.logits, batch.labels)
            total = own + self.config.train.aux_weight * slice_loss
        if backbone_frozen:
            total = total + zero_through(model.backbone)
        return Loss(total, own.detach(), *self.of_series(model, batch, output.logits, output.exam_logits))

    def _embeddings(self, model: Model, batch: SliceBatch) -> tuple[Tensor, Tensor | None]:
        """(S, D) of a batch's slices; and which of them were read and not remembered, None: all."""
        if self._remembered is None:
            return model.embed(batch.hu, batch.lengths, **batch.seen_as), None
        part = draw_part(batch.lengths, self.config.train.gradient_share)
        own = embed_part(model, batch, part)
        others, rows = self._remembered.of(batch.items, own.device), part.rows.to(own.device)
        self._remembered.put(batch.items, part.rows, own)
        return others.index_copy(0, rows, own), rows

    def answer(self, model: Model, batch: SliceBatch) -> Output:
        """That of the whole network."""
        embeddings = model.embed(batch.hu, batch.lengths, **batch.seen_as)
        return model.answer(embeddings, batch.lengths, batch.positions_mm)
