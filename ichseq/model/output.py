"""What the network answers for a batch."""

from typing import NamedTuple

from torch import Tensor


class Output(NamedTuple):
    """The answer for the slices of a batch; labels in the order of `ichseq.labels.LABELS`.

    Attributes:
        logits: (S, 6) of the slices in their order.
        slice_logits: (S, 6) of the slice head, of each slice by itself; the same without a sequence part.
    """

    logits: Tensor
    slice_logits: Tensor
