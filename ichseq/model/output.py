"""What the network answers for a batch."""

from typing import NamedTuple

from torch import Tensor


class Output(NamedTuple):
    """The answer for a batch; labels in the order of `ichseq.labels.LABELS`.

    Attributes:
        logits: (S, 6) of the slices in their order.
        slice_logits: (S, 6) of the slice head, of each slice by itself; the same without a sequence part.
        exam_logits: (B, 6) of the exam head, of each series as a whole; None without one.
    """

    logits: Tensor
    slice_logits: Tensor
    exam_logits: Tensor | None = None
