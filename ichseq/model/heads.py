"""What reads the embeddings of a backbone: slice head, sequence part, exam head."""

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from ichseq.config import ModelConfig
from ichseq.labels import LABELS
from ichseq.model.exam import make_exam_head
from ichseq.model.output import Output
from ichseq.model.sequence.inputs import add_noise, drop_channels, drop_slices, with_inputs
from ichseq.model.sequence.parts import make_sequence
from ichseq.model.sequence.thinned import thinned

SUREST: Final = math.log((1 - 1e-6) / 1e-6)
"""The largest logit of a slice that an exam's answer is blended with: one that is surer outvotes any exam head."""


class Heads(nn.Module):
    """The part of `ichseq.Model` behind the backbone.

    Attributes:
        config: its settings.
        slice_head: embeddings to logits, each slice by itself.
        sequence: embeddings to logits, in their order; None: there is no sequence part.
        exam: what the sequence part knows of the slices to logits of the series; None: there is no exam head.
        sequence_share: of the sequence part in the answer, by label, 0 to 1; the rest is the slice head's. None: all.
        exam_share: of the exam head in the answer for a series, likewise; the rest is the highest of what the slice
            head says of its slices.
    """

    config: ModelConfig

    def add_heads(self, features: int) -> None:
        """Make the heads for embeddings of D = `features` values."""
        config = self.config
        self.drop = nn.Dropout(config.dropout)
        self.slice_head = nn.Linear(features, len(LABELS))
        self.sequence = make_sequence(
            config.sequence, features, config.hidden_size, config.sequence_inputs, config.sequence_dropout
        )
        # Last, so that the others' weights are drawn as they are without it.
        self.exam = make_exam_head(config.exam, features if self.sequence is None else self.sequence.head.in_features)
        self.sequence_share: list[float] | None = None
        self.exam_share: list[float] | None = None

    def answer(self, embeddings: Tensor, lengths: Tensor, positions_mm: Tensor | None = None) -> Output:
        """All that the network says of some series; arguments as of `sequence_logits`.

        Out of training, slice head and sequence part are blended by `sequence_share`, and the exam head, which reads
        what the sequence part says, by `exam_share`.
        """
        return self.answer_counted(embeddings, lengths.tolist(), positions_mm)

    def answer_counted(self, embeddings: Tensor, counts: list[int], positions_mm: Tensor | None = None) -> Output:
        """`answer`, where the numbers of slices are no tensor but integers: an exported graph has one, still open."""
        of_slices = self.slice_logits(embeddings)
        if self.sequence is None:
            return Output(of_slices, of_slices, self._exam_logits(embeddings, of_slices, counts))
        in_order, of_exams = self._series_logits(embeddings, counts, positions_mm)
        of_exams = self._blended_exams(of_exams, of_slices, counts)
        return Output(self._blended(in_order, of_slices), of_slices, of_exams)

    def slice_logits(self, embeddings: Tensor) -> Tensor:
        """Logits (S, 6) of each slice by itself."""
        return self.slice_head(self.drop(embeddings))

    def sequence_logits(self, embeddings: Tensor, lengths: Tensor, positions_mm: Tensor | None = None) -> Tensor:
        """Logits (S, 6) of the slices in their order; those of `slice_logits` without a sequence part.

        Args:
            embeddings: (S, D) from `Model.embed`.
            lengths: (P,) slices of each series, on the CPU.
            positions_mm: (S,) places along the scan's axis; a series where one is NaN counts 5 mm a slice.

        Raises:
            ValueError: the sequence part, or one of its inputs, needs positions and gets None.
        """
        return self.series_logits(embeddings, lengths, positions_mm)[0]

    def series_logits(
        self, embeddings: Tensor, lengths: Tensor, positions_mm: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """`sequence_logits`, and the exam head's (P, 6) of the series, None without one; arguments as there."""
        return self._series_logits(embeddings, lengths.tolist(), positions_mm)

    def _series_logits(
        self, embeddings: Tensor, counts: list[int], positions_mm: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        if self.sequence is None:
            of_slices = self.slice_logits(embeddings)
            return of_slices, self._exam_logits(embeddings, of_slices, counts)
        if positions_mm is not None:
            positions_mm = positions_mm.to(embeddings.device, torch.float32)
        # In full precision: autocast makes a GPU's LSTM half precision even where bf16 is asked for, and in bf16 no
        # scaler keeps its gradients from vanishing. It is a small part of a step.
        with torch.autocast(embeddings.device.type, enabled=False):
            read = self.drop(embeddings.float())
            if self.training and self.config.channel_dropout > 0:
                read = drop_channels(read, counts, self.config.channel_dropout)
            if self.training:
                read = add_noise(read, self.config.embedding_noise)
                read = drop_slices(read, self.config.slice_dropout)
            if self.sequence.reads_logits:
                read = self.slice_head(read)
            read = with_inputs(read, counts, positions_mm, (*self.config.sequence_inputs, *self.sequence.own_inputs))
            return self._of_series(read, counts, positions_mm)

    def _of_series(self, read: Tensor, counts: list[int], positions_mm: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Logits of slices and of series from what the sequence part reads, of long series a part of the slices."""
        assert self.sequence is not None
        place = None
        if most := self.config.sequence_slices:
            counts, rows, place = thinned(counts, most)
            read, positions_mm = read[rows], None if positions_mm is None else positions_mm[rows]
        hidden = self.sequence.read(read, counts, positions_mm)
        in_order = self.sequence.logits(hidden)
        of_exams = self._exam_logits(hidden, in_order, counts)
        return in_order if place is None else in_order[place], of_exams

    def _exam_logits(self, hidden: Tensor, logits: Tensor, counts: list[int]) -> Tensor | None:
        if self.exam is None:
            return None
        with torch.autocast(hidden.device.type, enabled=False):
            return self.exam(hidden, logits, counts)

    def _blended(self, in_order: Tensor, of_slices: Tensor) -> Tensor:
        if self.training or self.sequence_share is None:
            return in_order
        return torch.lerp(of_slices.float(), in_order, in_order.new_tensor(self.sequence_share))

    def _blended_exams(self, of_exams: Tensor | None, of_slices: Tensor, counts: list[int]) -> Tensor | None:
        if self.training or of_exams is None or self.exam_share is None:
            return of_exams
        return torch.lerp(highest_of_series(of_slices, counts), of_exams, of_exams.new_tensor(self.exam_share))

    @torch.no_grad()
    def set_prior(
        self, prevalence: Sequence[float | None], of_exams: Sequence[float | None] = (None,) * len(LABELS)
    ) -> None:
        """Set the heads' biases so that fresh ones begin near the answer that knows only how frequent each label is.

        Without it the first hundreds of steps go into learning that most slices are negative.

        Args:
            prevalence: share of positive slices in the order of `ichseq.labels.LABELS`; None leaves a label at 0.5.
            of_exams: share of positive exams.
        """
        heads = [self.slice_head] if self.sequence is None else [self.slice_head, self.sequence.head]
        for head in heads:
            head.bias.copy_(_as_logits(prevalence))
        if self.exam is not None and self.exam.head is not None:
            self.exam.head.bias.copy_(_as_logits(of_exams))


def highest_of_series(logits: Tensor, counts: list[int]) -> Tensor:
    """(P, 6) the highest of the slices' logits (S, 6) of each series, within `SUREST`."""
    return torch.stack([series.amax(0) for series in logits.float().split(counts)]).clamp(-SUREST, SUREST)


def _as_logits(prevalence: Sequence[float | None]) -> Tensor:
    return torch.logit(torch.tensor([0.5 if p is None else p for p in prevalence]).clamp(1e-4, 1 - 1e-4))
