"""The frozen stage: the sequence part alone, on embeddings that are computed once and kept."""

from typing import ClassVar, Literal

import numpy as np
from tqdm import tqdm

from ichseq.data.batches import EmbeddingBatch
from ichseq.data.index import Index
from ichseq.errors import ConfigError
from ichseq.model import Model, Output
from ichseq.training.embeddings import set_embeddings
from ichseq.training.losses import weighted_bce_sum
from ichseq.training.processes import Processes
from ichseq.training.stages.readers import EmbeddingReader, Reader
from ichseq.training.stages.stage import BatchSize, Loss, Stage
from ichseq.training.stopping import StopRequest


class FrozenStage(Stage[EmbeddingBatch]):
    """Trains what is behind the slice head; the backbone reads every slice of the set once, before the first step."""

    name: ClassVar[str] = "frozen"
    parts: ClassVar[tuple[str, ...]] = ("sequence", "exam")
    answers_with: ClassVar[Literal["slice_head", "sequence"]] = "sequence"

    def choose_parameters(self, model: Model) -> None:
        """As every stage; a model without weights behind its slice head has nothing to train here."""
        if model.sequence is None and (model.exam is None or model.exam.head is None):
            raise ConfigError("the frozen stage trains the sequence part and an exam head; model.sequence is none, and "
                              f"model.exam {model.config.exam} has no weights")  # fmt: skip
        super().choose_parameters(model)

    def largest_batch(self, index: Index, series: np.ndarray) -> BatchSize:
        """As every stage, but no Hounsfield units come with a slice."""
        return BatchSize(super().largest_batch(index, series).slices, 0)

    def reader(
        self, model: Model, index: Index, series: np.ndarray, *, processes: Processes, request: StopRequest, shown: bool
    ) -> Reader[EmbeddingBatch]:
        """Embeddings of the whole set; computed ahead, if those of this backbone are not kept beside it already."""
        train = self.config.train
        with tqdm(total=index.n_series, desc="embeddings", unit="series", disable=not shown) as bar:
            embeddings = set_embeddings(
                model, index, dtype=train.embeddings, threads=train.workers, processes=processes, request=request,
                progress=bar.update,
            )  # fmt: skip
        return EmbeddingReader(index, embeddings)

    def loss(self, model: Model, batch: EmbeddingBatch, *, backbone_frozen: bool = False) -> Loss:
        """The loss of the sequence part, and of the exam head."""
        in_order, of_exams = model.series_logits(batch.embeddings, batch.lengths, batch.positions_mm)
        loss = weighted_bce_sum(in_order, batch.labels)
        return Loss(loss, loss.detach(), *self.of_series(model, batch, in_order, of_exams))

    def answer(self, model: Model, batch: EmbeddingBatch) -> Output:
        """That of the whole network."""
        return model.answer(batch.embeddings, batch.lengths, batch.positions_mm)
