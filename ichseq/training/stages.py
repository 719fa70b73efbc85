"""What a stage trains: which parts of the model, on which batches, with which loss. One loop runs all three.

slice   backbone and slice head, on shuffled slices
frozen  the sequence part alone, on embeddings computed once
joint   everything, on batches of whole series, each part with its own learning rate
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ichseq.config import AugmentConfig, TrainConfig
from ichseq.data.augment import warps
from ichseq.data.batches import (
    Allocate,
    Batch,
    Item,
    item_labels,
    item_lengths,
    item_positions,
    item_rows,
    plan_epoch,
    plan_slices,
    read_batch,
)
from ichseq.data.feed import feed
from ichseq.data.index import Index
from ichseq.errors import ConfigError
from ichseq.model import Model
from ichseq.training.losses import weighted_bce_sum
from ichseq.training.stopping import StopRequest

Plan = list[list[list[list[Item]]]]


@dataclass(frozen=True)
class Stage:
    """One stage: the parts of the model that it trains and how it goes through the data."""

    name: str
    parts: tuple[str, ...]
    plan: Callable[..., Plan]
    batch_size: Callable[[TrainConfig], int]

    @property
    def augments(self) -> bool:
        """Embeddings computed once see no augmentation."""
        return self.name != "frozen"


STAGE_BY_NAME = {
    "slice": Stage("slice", ("backbone", "slice_head"), plan_slices, lambda train: train.slices_per_batch),
    "frozen": Stage("frozen", ("sequence",), plan_epoch, lambda train: train.patients_per_batch),
    "joint": Stage("joint", ("backbone", "slice_head", "sequence"), plan_epoch, lambda train: train.patients_per_batch),
}


def stage_logits(model: Model, stage: Stage, batch: Batch, *, held: bool = False) -> tuple[Tensor, Tensor | None]:
    """The stage's logits (S, 6); and in the joint stage those of the slice head, which are trained beside.

    With `held`, no gradient reaches the backbone.
    """
    if stage.name == "frozen":
        return model.sequence_logits(batch.hu, batch.lengths, batch.positions_mm), None
    with torch.set_grad_enabled(torch.is_grad_enabled() and not held):
        embeddings = model.embed(batch.hu, batch.lengths, **seen_by_the_backbone(batch))
    sliced = model.slice_logits(embeddings)
    if stage.name == "slice" or model.sequence is None:
        return sliced, None
    return model.sequence_logits(embeddings, batch.lengths, batch.positions_mm), sliced


def seen_by_the_backbone(batch: Batch) -> dict[str, Any]:
    """What `Model.embed` and `Model.images` are told beside slices and lengths."""
    return {"warp": batch.warp, "sizes": batch.sizes or None, "boxes": batch.boxes}


class StageNetwork(nn.Module):
    """The model with the stage's loss, in one forward pass, so that it can be wrapped for several processes.

    Attributes:
        held: whether the backbone is left alone for now.
    """

    def __init__(self, model: Model, stage: Stage, aux_weight: float, mixup: float = 0.0) -> None:
        super().__init__()
        if stage.name == "frozen" and model.sequence is None:
            raise ConfigError("the frozen stage trains the sequence part; model.sequence is none")
        self.model, self.stage, self.aux_weight = model, stage, aux_weight
        self.mixup = mixup if stage.name == "slice" else 0.0
        self.held = False
        model.requires_grad_(False)
        for part in stage.parts:
            module = getattr(model, part)
            if module is not None:
                module.requires_grad_(True)
        if aux_weight == 0 and stage.name == "joint" and model.sequence is not None and not model.sequence.reads_logits:
            model.slice_head.requires_grad_(False)  # a parameter without gradient would keep processes waiting
        if "backbone" not in stage.parts:
            model.freeze_backbone()

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sums over the batch's slices: (what is minimised, the stage's own loss); zeros for one without slices."""
        if len(batch.labels) == 0:
            zero = _touched(self)
            return zero, zero.detach()
        if self.mixup and self.training:
            return self._mixed(batch)
        logits, aux = stage_logits(self.model, self.stage, batch, held=self.held)
        main = weighted_bce_sum(logits, batch.labels)
        total = main if aux is None else main + self.aux_weight * weighted_bce_sum(aux, batch.labels)
        return total + _touched(self.model.backbone) if self.held else total, main.detach()

    def _mixed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss of mixup: every slice is mixed with another of the batch, and their labels in the same shares.

        A label that is unknown in either is unknown in the mixture. Source: Zhang et al., "mixup" (2018).
        """
        images = self.model.images(batch.hu, batch.lengths, **seen_by_the_backbone(batch))
        share = torch.distributions.Beta(self.mixup, self.mixup).sample((len(images),))
        share, partner = share.to(images.device)[:, None], torch.randperm(len(images)).to(images.device)
        images = torch.lerp(images[partner], images, share[:, :, None, None])
        labels = torch.lerp(batch.labels[partner], batch.labels, share)
        loss = weighted_bce_sum(self.model.slice_logits(self.model.embed_images(images)), labels)
        return loss, loss.detach()

    def parameter_groups(self, train: TrainConfig) -> list[dict[str, Any]]:
        """Trained parameters in up to three groups, each with its learning rate and a name."""
        groups: dict[str, dict[str, Any]] = {
            "backbone": {"lr": train.backbone_lr},
            "cross_slice": {"lr": train.cross_slice_lr, "weight_decay": 0.0},  # a weight a channel, as those of norms
            "sequence": {"lr": train.sequence_lr},
        }
        for path, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                name = "sequence" if not path.startswith("backbone.") else "backbone"
                name = "cross_slice" if path.startswith("backbone.cross_slice.") else name
                groups[name].setdefault("params", []).append(parameter)
        return [{"name": name} | group for name, group in groups.items() if "params" in group]


def _touched(module: nn.Module) -> Tensor:
    """Zero, by way of every parameter, so that no process waits for another's gradients."""
    return torch.stack([p.sum() * 0 for p in module.parameters() if p.requires_grad]).sum()


@dataclass(frozen=True)
class StageReader:
    """Reads a stage's batches: slices or embeddings, labels, crop boxes and the warps of an epoch.

    Attributes:
        index: the prepared set.
        boxes: (n_series, 4), where batches hold single slices.
        embeddings: (n_slices, D), in the frozen stage.
        neighbours: slices on each side that the model's backbone reads with a slice.
        augment: None: no augmentation, as in validation.
        seed: of the warps.
        epoch: of the warps.
    """

    index: Index
    boxes: Tensor | None = None
    embeddings: np.ndarray | None = None
    neighbours: int = 0
    augment: AugmentConfig | None = None
    seed: int = 0
    epoch: int = 0

    def __call__(self, items: list[Item], allocate: Allocate) -> Batch:
        """The batch of these items, on the CPU; to be called from any thread."""
        if self.embeddings is not None:
            return self._embedded(items, self.embeddings)
        batch = read_batch(self.index, items, allocate, neighbours=self.neighbours)
        boxes = None if self.boxes is None else self.boxes[[item.series for item in items]]
        return replace(batch, boxes=boxes, warp=self._warps(items))

    def _warps(self, items: list[Item]) -> Tensor | None:
        if self.augment is None:
            return None
        draws: list[tuple[int, ...]] = []
        for item in items:
            drawn = (self.seed, self.epoch, item.series)
            if item.slices == 1:
                draws.append((*drawn, item.first))
            elif self.augment.per == "slice":
                draws += [(*drawn, item.first + k) for k in range(item_lengths(self.index, [item])[0])]
            else:
                draws.append(drawn)
        return warps(self.augment, draws)

    def _embedded(self, items: list[Item], embeddings: np.ndarray) -> Batch:
        rows = item_rows(self.index, items)
        lengths = torch.tensor(item_lengths(self.index, items), dtype=torch.int64)
        stack = np.asarray(embeddings[rows], np.float32)
        labels, positions_mm = torch.from_numpy(item_labels(self.index, items)), item_positions(self.index, items)
        return Batch(items, torch.from_numpy(stack), lengths, [], labels, positions_mm=positions_mm)


@torch.no_grad()
def series_boxes(model: Model, index: Index, series: np.ndarray, threads: int, request: StopRequest) -> Tensor | None:
    """(n_series, 4): crop boxes of whole series, for batches that hold single slices; NaN for series not asked for.

    None where the model crops each slice by itself.

    Raises:
        InterruptedError: stopped, as asked for.
    """
    if model.config.crop == "slice":
        return None
    boxes = torch.full((index.n_series, 4), float("nan"))
    if model.config.crop == "none":
        sides = torch.from_numpy(index.shapes[:, [1, 0]].astype(np.float32)) / 2
        return torch.cat([sides, sides], dim=1)
    tasks = [[Item(int(i))] for i in series]
    for batch in feed(tasks, lambda items, allocate: read_batch(index, items, allocate), threads=threads):
        boxes[batch.items[0].series] = model.crop_boxes(batch.hu, batch.lengths)[0]
        if request.code:
            raise InterruptedError
    return boxes
