"""The loss: binary cross entropy on logits, each label with its weight, unknown labels left out."""

import math
from functools import cache
from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ichseq.labels import CLIP_PROBABILITY, LABEL_WEIGHTS


@cache
def _weights(device: torch.device) -> Tensor:
    """LABEL_WEIGHTS on a device, sent there once: sending them waits for the GPU."""
    return torch.tensor(LABEL_WEIGHTS, device=device)


def weighted_bce_sum(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum over slices and labels of weight x binary cross entropy; divide by `label_weight` for the mean.

    With every label known, the mean is (6 x mean over all six + 1 x mean over any) / 7, the published loss, and the
    competition's weighted log loss but for its clipping.

    Args:
        logits: (S, 6).
        labels: (S, 6), NaN where unknown.
    """
    known = ~labels.isnan()
    losses = F.binary_cross_entropy_with_logits(logits.float(), labels.nan_to_num(0.0), reduction="none")
    return (torch.where(known, losses, 0.0) * _weights(losses.device)).sum()


_LIMIT: Final = math.log((1 - CLIP_PROBABILITY) / CLIP_PROBABILITY)  # of a logit


def clipped_logits(logits: Tensor) -> Tensor:
    """Logits, at least float32, of probabilities that are clipped as the competition's metric clips them."""
    return (logits if logits.dtype == torch.float64 else logits.float()).clamp(-_LIMIT, _LIMIT)


class Weights(NamedTuple):
    """What the sums of a step are divided by, each at least 1.

    Attributes:
        slices: weights of the known labels of its slices.
        exams: of the known labels of its exams.
        every: of all labels of its slices, known or not.
    """

    slices: float
    exams: float
    every: float


def step_weights(labels: Tensor, exam_labels: Tensor) -> Weights:
    """Those of a step; labels are (S, 6) and (P, 6), on the CPU, NaN where unknown."""
    every = float(len(labels) * sum(LABEL_WEIGHTS))
    return Weights(max(label_weight(labels), 1.0), max(label_weight(exam_labels), 1.0), max(every, 1.0))


def label_weight(labels: Tensor) -> float:
    """Sum of the weights of the known labels, (S, 6) on the CPU."""
    return float(((~labels.isnan()) * _weights(labels.device)).sum())


def zero_through(module: nn.Module) -> Tensor:
    """Zero by way of every trained parameter: all get a gradient, so that no process waits for another's."""
    return torch.stack([p.sum() * 0 for p in module.parameters() if p.requires_grad]).sum()
