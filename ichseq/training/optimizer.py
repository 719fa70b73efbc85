"""The optimizer and its learning rates."""

from typing import Any, Final

import torch
from timm.scheduler import CosineLRScheduler, StepLRScheduler

from ichseq.config import TrainConfig

MOMENTUM: Final = 0.9
"""Of SGD."""


def make_optimizer(groups: list[dict[str, Any]], train: TrainConfig, device: torch.device) -> torch.optim.Optimizer:
    """AdamW, or SGD with Nesterov's momentum; on a GPU in one kernel for all parameters."""
    if train.optimizer == "sgd":
        return torch.optim.SGD(
            groups, momentum=MOMENTUM, nesterov=True, weight_decay=train.weight_decay, fused=device.type == "cuda"
        )
    return torch.optim.AdamW(groups, weight_decay=train.weight_decay, fused=device.type == "cuda")


def make_scheduler(
    optimizer: torch.optim.Optimizer, train: TrainConfig, steps_per_epoch: int
) -> CosineLRScheduler | StepLRScheduler:
    """Learning rates by step: a linear rise, then a cosine to zero, or constant with a factor after each epoch."""
    total = steps_per_epoch * (train.epochs or 1)
    warmup: dict[str, Any] = {"warmup_t": min(train.warmup_steps, total), "warmup_lr_init": 0.0, "t_in_epochs": False}
    if train.schedule == "cosine":
        return CosineLRScheduler(optimizer, t_initial=total, **warmup)
    return StepLRScheduler(optimizer, decay_t=steps_per_epoch, decay_rate=train.decay, **warmup)
