"""The loss: binary cross entropy on logits, each label with its weight, unknown labels left out."""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ichseq.labels import LABEL_WEIGHTS


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


def label_weight(labels: Tensor) -> float:
    """Sum of the weights of the known labels, (S, 6) on the CPU."""
    return float(((~labels.isnan()) * _weights(labels.device)).sum())


def zero_through(module: nn.Module) -> Tensor:
    """Zero by way of every trained parameter: all get a gradient, so that no process waits for another's."""
    return torch.stack([p.sum() * 0 for p in module.parameters() if p.requires_grad]).sum()
