"""What every stage of training offers to the loop that runs it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, Literal, NamedTuple, TypeVar

import numpy as np
from torch import Tensor

from ichseq.config import Config
from ichseq.data.batches import Batch
from ichseq.data.index import Index
from ichseq.data.plan import Plan, plan_epoch, plan_windows, share_of_negatives, short_scans
from ichseq.model import Model, Output
from ichseq.model.depth import blocks_of
from ichseq.training.losses import Weights, weighted_bce_sum
from ichseq.training.processes import Processes
from ichseq.training.stages.readers import Reader
from ichseq.training.stopping import StopRequest

B = TypeVar("B", bound=Batch)


class BatchSize(NamedTuple):
    """How much a batch holds: slices, and bytes of Hounsfield units that come with one of them."""

    slices: int
    slice_bytes: int


class Loss(NamedTuple):
    """Sums over a batch.

    Attributes:
        total: over its slices, what is minimised.
        own: over its slices, the stage's own loss, which is shown.
        exams: over its exams; None: no exam head is trained.
        kept: over its slices, against what the start answers; None: not asked for.
    """

    total: Tensor
    own: Tensor
    exams: Tensor | None = None
    kept: Tensor | None = None


class Stage(ABC, Generic[B]):
    """One stage of training: the parts of the model that it trains, how it goes through the data, and its loss.

    Its batches hold whole series, or with `train.window` neighbouring slices of each, unless a stage says otherwise.

    Attributes:
        name: as in `ichseq.config.STAGES`.
        parts: of the model that are trained, by the names of its attributes.
        answers_with: the part of the model that its logits come from.
        config: settings of the run.
    """

    name: ClassVar[str]
    parts: ClassVar[tuple[str, ...]]
    answers_with: ClassVar[Literal["slice_head", "sequence"]]

    def __init__(self, config: Config) -> None:
        self.config = config

    def trains_exams(self, model: Model) -> bool:
        """Whether the exam head's answers are trained, with what they are made of."""
        return self.trains("exam") and model.exam is not None and self.config.train.exam_weight > 0

    def check(self, processes: int) -> None:
        """See that its settings go together.

        Args:
            processes: that train together.

        Raises:
            ConfigError: they do not.
        """

    def slices_trained(self, lengths: Sequence[int]) -> int:
        """How many slices of items with so many each go through what is trained of the network."""
        return sum(lengths)

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint has to hold of the stage itself, by name."""
        return {}

    def load_state_dict(self, tensors: dict[str, Tensor], index: Index) -> None:
        """Put back what `state_dict` gave, of a run on this set."""

    @property
    def reads_series(self) -> bool:
        """Whether it trains what reads the slices in their order, and answers for exams."""
        return self.trains("sequence")

    # ---- what is trained -------------------------------------------------------------------------------------------

    @classmethod
    def trains(cls, part: str) -> bool:
        """Whether a part of the model is trained."""
        return part in cls.parts

    def choose_parameters(self, model: Model) -> None:
        """Let gradients reach the parts that are trained, and no others.

        Raises:
            ConfigError: the model lacks what the stage trains.
        """
        model.requires_grad_(False)
        for part in self.parts:
            if (module := getattr(model, part)) is not None:
                module.requires_grad_(True)
        if not self.trains("backbone"):
            model.freeze_backbone()
        elif self.config.train.backbone_blocks != "all":
            blocks = blocks_of(model.backbone)
            first = max(blocks.values()) + 1 - self.config.train.backbone_blocks
            for name, parameter in model.backbone.named_parameters():
                if blocks.get(name, first) < first:
                    parameter.requires_grad_(False)

    def freezes_backbone(self, epoch: int) -> bool:
        """Whether a backbone that is trained is left alone in this epoch."""
        return False

    def parameter_groups(self, model: Model) -> list[dict[str, Any]]:
        """Trained parameters in groups, each with its learning rate and a name, for the optimizer.

        Backbone, convolutions across slices and the rest; with `train.layer_decay`, one for each block of the backbone.
        """
        train = self.config.train
        blocks = blocks_of(model.backbone) if self.trains("backbone") and train.layer_decay < 1 else {}
        last, rate = max(blocks.values(), default=0), train.backbone_lr or 0.0
        groups: dict[str, dict[str, Any]] = {
            "backbone": {"lr": train.backbone_lr},
            **{f"backbone block {k}": {"lr": rate * train.layer_decay ** (last - k)} for k in range(last)},
            "cross_slice": {"lr": train.cross_slice_lr, "weight_decay": 0.0},  # a weight a channel, as those of norms
            "sequence": {"lr": train.sequence_lr},
        }
        for path, parameter in model.named_parameters():
            if parameter.requires_grad:
                name = "sequence" if not path.startswith("backbone.") else "backbone"
                name = "cross_slice" if path.startswith("backbone.cross_slice.") else name
                if name == "backbone" and blocks and (block := blocks[path.removeprefix("backbone.")]) < last:
                    name = f"backbone block {block}"
                groups[name].setdefault("params", []).append(parameter)
        return [{"name": name} | group for name, group in groups.items() if "params" in group]

    # ---- on which batches ------------------------------------------------------------------------------------------

    def plan(self, index: Index, series: np.ndarray, *, epoch: int, processes: int) -> Plan:
        """Steps of an epoch over these series, less the share of negative patients that it leaves out.

        Raises:
            DataError: none are left.
        """
        train = self.config.train
        key = (train.seed, epoch)
        series = share_of_negatives(index, series, train.negatives, key=key)
        steps = self._steps(index, series, accumulate=train.accumulate, processes=processes, key=key)
        return short_scans(steps, index, share=train.short_scans, key=key)

    def _steps(self, index: Index, series: np.ndarray, **sharing: Any) -> Plan:
        train = self.config.train
        if train.window:
            return plan_windows(index, series, slices=train.window, batch=train.patients_per_batch, **sharing)
        return plan_epoch(index, series, batch=train.patients_per_batch, **sharing)

    def largest_batch(self, index: Index, series: np.ndarray) -> BatchSize:
        """The most that a batch of any epoch over these series holds."""
        train, lengths = self.config.train, index.lengths[series]
        if train.window:
            lengths = lengths.clip(max=train.window)
        slices = int(np.sort(lengths)[-train.patients_per_batch :].sum())
        return BatchSize(slices, self._slice_bytes(index, parts=train.window > 0))

    def _slice_bytes(self, index: Index, *, parts: bool) -> int:
        """Bytes of int16 that come with a slice; one of a part of a series comes with its neighbours."""
        together = 1 + 2 * self.config.model.neighbours if parts else 1
        return 2 * together * int(index.shapes.prod(axis=1).max())

    @abstractmethod
    def reader(
        self, model: Model, index: Index, series: np.ndarray, *, processes: Processes, request: StopRequest, shown: bool
    ) -> Reader[B]:
        """What reads the stage's batches; first, what has to be known of the whole set is read ahead.

        Args:
            model: on the device, with the weights that training starts from.
            index: the set.
            series: that are trained on.
            processes: which share the work.
            request: SIGTERM or Ctrl-C end the reading ahead.
            shown: show a progress bar.

        Raises:
            InterruptedError: stopped, as asked for.
            RunError: what is read ahead can't be kept.
        """

    # ---- with which loss -------------------------------------------------------------------------------------------

    @abstractmethod
    def loss(self, model: Model, batch: B, *, backbone_frozen: bool = False) -> Loss:
        """The loss of a batch of training.

        Args:
            model: in training mode.
            batch: on its device, with at least one slice.
            backbone_frozen: no gradient reaches the backbone, see `freezes_backbone`.
        """

    def of_series(
        self, model: Model, batch: B, in_order: Tensor, of_exams: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """The last two of `Loss`, for a stage that reads series.

        Args:
            model: that is trained.
            batch: as for `loss`.
            in_order: (S, 6) logits of the slices.
            of_exams: (P, 6) logits of the exams.
        """
        trained = of_exams is not None and self.trains_exams(model)
        exams = weighted_bce_sum(of_exams, batch.exam_labels) if of_exams is not None and trained else None
        return exams, None if batch.start is None else weighted_bce_sum(in_order, batch.start)

    def mean_loss(self, loss: Loss, weights: Weights) -> tuple[Tensor, Tensor]:
        """What is minimised, and what is shown: the means over a step, each with its weight of the settings."""
        train = self.config.train
        slice_weight = train.slice_weight if self.reads_series else 1.0
        total, shown = loss.total * (slice_weight / weights.slices), slice_weight * (loss.own / weights.slices)
        if loss.exams is not None:
            exams = loss.exams * (train.exam_weight / weights.exams)
            total, shown = total + exams, shown + exams.detach()
        if loss.kept is not None:
            total = total + loss.kept * (train.keep_weight / weights.every)
        return total, shown

    @abstractmethod
    def answer(self, model: Model, batch: B) -> Output:
        """The answers on a batch of whole series, as validation scores them."""
