"""What a stage trains: which parts of the model, on which batches, with which loss. One loop runs all three.

slice   backbone and slice head, on shuffled slices
frozen  the sequence part alone, on embeddings computed once
joint   everything, on batches of whole series, each part with its own learning rate
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ichseq.config import TrainConfig
from ichseq.data.batches import Item, plan_epoch, plan_slices, read_ahead, read_batch
from ichseq.data.index import Index
from ichseq.errors import ConfigError
from ichseq.model import Model
from ichseq.training.losses import weighted_bce_sum

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


class StageNetwork(nn.Module):
    """The model with the stage's loss, in one forward pass, so that it can be wrapped for several processes."""

    def __init__(self, model: Model, stage: Stage, aux_weight: float) -> None:
        super().__init__()
        if stage.name == "frozen" and model.sequence is None:
            raise ConfigError("the frozen stage trains the sequence part; model.sequence is none")
        self.model, self.stage, self.aux_weight = model, stage, aux_weight
        model.requires_grad_(False)
        for part in stage.parts:
            module = getattr(model, part)
            if module is not None:
                module.requires_grad_(True)
        if aux_weight == 0 and stage.name == "joint" and model.sequence is not None:
            model.slice_head.requires_grad_(False)  # a parameter without gradient would keep processes waiting
        if "backbone" not in stage.parts:
            model.freeze_backbone()

    def forward(
        self,
        slices: Tensor,
        lengths: Sequence[int],
        labels: Tensor,
        sizes: Sequence[tuple[int, int]] | None = None,
        boxes: Tensor | None = None,
        warp: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Sums over slices: (what is minimised, the stage's own loss); zeros for a batch without slices.

        Args:
            slices: (S, H, W) in HU, or (S, D) embeddings in the frozen stage.
            lengths: slices of each series.
            labels: (S, 6), NaN where unknown.
            sizes: as in `Model.forward`.
            boxes: as in `Model.forward`.
            warp: as in `Model.forward`.
        """
        if len(slices) == 0:
            # Touches every parameter, so that the other processes do not wait for this one's gradients.
            zero = torch.stack([p.sum() * 0 for p in self.parameters() if p.requires_grad]).sum()
            return zero, zero.detach()
        counts = torch.tensor(list(lengths), dtype=torch.int64)
        if self.stage.name == "frozen":
            main = weighted_bce_sum(self.model.sequence_logits(slices, counts), labels)
            return main, main.detach()
        embeddings = self.model.embed(slices, counts, warp=warp, sizes=sizes, boxes=boxes)
        aux = weighted_bce_sum(self.model.slice_logits(embeddings), labels)
        if self.stage.name == "slice" or self.model.sequence is None:
            return aux, aux.detach()
        main = weighted_bce_sum(self.model.sequence_logits(embeddings, counts), labels)
        return main + self.aux_weight * aux, main.detach()

    def parameter_groups(self, train: TrainConfig) -> list[dict[str, Any]]:
        """Trained parameters in up to two groups, each with its learning rate and a name."""
        parts: dict[str, list[nn.Module | None]] = {
            "backbone": [self.model.backbone],
            "sequence": [self.model.slice_head, self.model.sequence],
        }
        rates = {"backbone": train.backbone_lr, "sequence": train.sequence_lr}
        groups = []
        for name, modules in parts.items():
            trained = [p for m in modules if m is not None for p in m.parameters() if p.requires_grad]
            if trained:
                groups.append({"params": trained, "lr": rates[name], "name": name})
        return groups


@torch.no_grad()
def series_boxes(model: Model, index: Index, series: np.ndarray, threads: int) -> Tensor:
    """(n_series, 4): crop boxes of whole series, for batches that hold single slices; NaN for series not asked for."""
    boxes = torch.full((index.n_series, 4), float("nan"))
    tasks = [[(int(i), -1)] for i in series]
    for batch in read_ahead(tasks, lambda items: read_batch(index, items), threads):
        boxes[batch.items[0][0]] = model.crop_boxes(batch.hu, batch.lengths)[0]
    return boxes


@torch.no_grad()
def write_embeddings(
    model: Model, index: Index, path: Path, threads: int, progress: Callable[[int, int], object]
) -> None:
    """Compute every slice's embedding once and write float32 (n_slices, D) to a .npy file, beside and then renamed."""
    model.eval()
    beside = path.with_name(path.name + ".part")
    shape = (index.n_slices, model.features)
    out = np.lib.format.open_memmap(beside, mode="w+", dtype=np.float32, shape=shape)
    tasks = [[(i, -1)] for i in range(index.n_series)]
    for done, batch in enumerate(read_ahead(tasks, lambda items: read_batch(index, items), threads)):
        i = batch.items[0][0]
        out[index.offsets[i] : index.offsets[i + 1]] = model.embed(batch.hu, batch.lengths).cpu().numpy()
        progress(done + 1, len(tasks))
    out.flush()
    del out
    beside.replace(path)
