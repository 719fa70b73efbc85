"""The exam head: from what is known of a series' slices to six logits for the series as a whole.

`HEADS` holds the heads by their names in `model.exam`. Slices of all series are stacked, (S, ...); `counts` is the
number of slices of each series. What a head answers for a series does not depend on what else is in the batch.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ichseq.errors import ConfigError
from ichseq.labels import LABELS


class ExamHead(nn.Module):
    """What every head is; made from the width of what it may read of a slice.

    Attributes:
        head: linear layer that gives the logits; None: the slices' logits decide.
    """

    head: nn.Linear | None

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head = None

    def forward(self, hidden: Tensor, logits: Tensor, counts: list[int]) -> Tensor:
        """Logits (P, 6) of the series.

        Args:
            hidden: (S, W), what the slices' logits are made of.
            logits: (S, 6) of the slices.
            counts: slices of each series.
        """
        raise NotImplementedError


class Attention(ExamHead):
    """Attention over the slices, for each label by itself: linear, tanh, linear, softmax, and a linear answer.

    Source: Ilse, Tomczak and Welling, "Attention-based deep multiple instance learning" (2018).
    """

    units = 128
    head: nn.Linear

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.enter = nn.Linear(width, self.units)
        self.score = nn.Linear(self.units, len(LABELS), bias=False)  # which the softmax would take no notice of
        self.head = nn.Linear(width, len(LABELS))

    def forward(self, hidden: Tensor, logits: Tensor, counts: list[int]) -> Tensor:
        hidden = hidden.float()
        weights = _shares(self.score(torch.tanh(self.enter(hidden))), counts)  # (P, longest, 6)
        seen = torch.einsum("pik,piw->pkw", weights, _padded(hidden, counts, 0.0))  # (P, 6, W)
        return torch.einsum("pkw,kw->pk", seen, self.head.weight) + self.head.bias


class Pooled(ExamHead):
    """The mean of the slices' logits, each weighted by their softmax over the series: a soft maximum."""

    def forward(self, hidden: Tensor, logits: Tensor, counts: list[int]) -> Tensor:
        logits = logits.float()
        return (_shares(logits, counts) * _padded(logits, counts, 0.0)).sum(dim=1)


class Highest(ExamHead):
    """The highest of the slices' logits."""

    def forward(self, hidden: Tensor, logits: Tensor, counts: list[int]) -> Tensor:
        return _padded(logits.float(), counts, -torch.inf).amax(dim=1)


HEADS: dict[str, type[ExamHead]] = {"attention": Attention, "pooled": Pooled, "max": Highest}


def make_exam_head(name: str, width: int) -> ExamHead | None:
    """The head of that name, None for "none"; it may read `width` values of a slice.

    Raises:
        ConfigError: an unknown name.
    """
    if name == "none":
        return None
    if name not in HEADS:
        raise ConfigError(f"model.exam is {name!r}; choose one of {', '.join((*HEADS, 'none'))}")
    return HEADS[name](width)


def _shares(scores: Tensor, counts: list[int]) -> Tensor:
    """(P, longest, 6): softmax of (S, 6) over the slices of each series; 0 where a series has none."""
    return _padded(scores, counts, -torch.inf).softmax(dim=1)


def _padded(values: Tensor, counts: list[int], value: float) -> Tensor:
    return pad_sequence(list(values.split(counts)), batch_first=True, padding_value=value)
