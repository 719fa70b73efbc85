"""A stage's loss as a module, so that accelerate can wrap it for the precision and for several processes."""

from typing import Any

from torch import nn

from ichseq.data.batches import Batch
from ichseq.model import Model
from ichseq.training.losses import zero_through
from ichseq.training.stages import Stage
from ichseq.training.stages.stage import Loss


class StageLoss(nn.Module):
    """The model with the stage's loss in one forward pass; only what the stage trains gets gradients."""

    def __init__(self, model: Model, stage: Stage[Any]) -> None:
        """Choose the parameters that are trained.

        Raises:
            ConfigError: the model lacks what the stage trains.
        """
        super().__init__()
        stage.choose_parameters(model)
        self.model, self.stage = model, stage

    def forward(self, batch: Batch, backbone_frozen: bool = False) -> Loss:
        """Sums over the batch's slices; zeros for the share of a process that got none."""
        if len(batch.labels) == 0:
            zero = zero_through(self)
            return Loss(zero, zero.detach())
        return self.stage.loss(self.model, batch, backbone_frozen=backbone_frozen)
