"""How a stage is trained."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from ichseq.config.fields import (
    STRICT,
    AtLeast0,
    AtLeast1,
    ByStage,
    Rate,
    ReadBy,
    Share,
    ShareBelow1,
    Switch,
    WithoutEffect,
)


def _window(slices: int) -> int:
    if slices == 1:
        raise ValueError("a window has at least 2 slices, and 0 reads whole series")
    return slices


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TrainConfig:
    """How a stage is trained. `load_config` gives fields with a default by stage that stage's."""

    epochs: Annotated[int | None, Field(ge=1), ByStage(slice=5, frozen=6, joint=5)] = None
    """Passes over the training series; the published lengths."""

    backbone_lr: Annotated[
        float | None, Field(ge=0), ByStage(slice=2e-5, frozen=0.0, joint=2e-5), ReadBy("slice", "joint")
    ] = None
    """Learning rate of the backbone; the published one."""

    sequence_lr: Annotated[float | None, Field(ge=0), ByStage(slice=2e-5, frozen=1e-4, joint=1e-4)] = None
    """Learning rate of the sequence part and the slice head; the published ones."""

    cross_slice_lr: Annotated[Rate, ReadBy("joint")] = 1e-2
    """Learning rate of the convolutions across slices, which begin at zero; without weight decay."""

    patients_per_batch: Annotated[AtLeast1, ReadBy("frozen", "joint")] = 4
    """Series a step and process."""

    slices_per_batch: Annotated[AtLeast1, ReadBy("slice")] = 32
    """Slices a step and process."""

    accumulate: AtLeast1 = 1
    """Batches summed before the optimizer steps."""

    mixup: Annotated[Rate, ReadBy("slice")] = 0.0
    """Slices are mixed in pairs, and their labels, in shares drawn from Beta(mixup, mixup); 0: none."""

    negatives: Share = 1.0
    """Share of the patients without bleeding that an epoch reads, drawn anew for each."""

    window: Annotated[AtLeast0, AfterValidator(_window), ReadBy("frozen", "joint")] = 0
    """So many neighbouring slices of each series an epoch, 2 or more, from a place drawn anew for each; 0: all.
    Validation and prediction read whole series."""

    short_scans: Share = 0.0
    """Share of the series of which an epoch reads a part alone, 1 up to all slices, as if it were the whole scan:
    cropped by itself (in the frozen stage as the whole), without neighbours. In the slice stage, the share of slices
    that are read so. For networks that will meet single slices."""

    gradient_share: Annotated[float, Field(gt=0, le=1), ReadBy("joint")] = 1.0
    """Share of each series' slices that go through the backbone in a step, with a gradient: a run of neighbours, its
    place drawn for each step. Of the others the sequence part reads the embeddings of the last time that they did;
    before the first step all are computed once. The backbone's time and memory fall in proportion, the reading of the
    scans does not. The embeddings of all slices (float16) lie on the device, and in every checkpoint. For one process;
    not with model.cross_slice or train.short_scans."""

    freeze_epochs: Annotated[AtLeast0, ReadBy("joint")] = 0
    """The backbone is left alone for so many epochs at the start."""

    warmup_steps: AtLeast0 = 100
    """Steps over which the learning rates rise."""

    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rates after the rise."""

    decay: Rate = 1.0
    """Factor of the constant schedule after each epoch."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW; or SGD with Nesterov's momentum of 0.9, whose rates are some hundred times as large."""

    weight_decay: Rate = 0.0
    """Weight decay of the optimizer."""

    clip_norm: Annotated[float | None, Field(ge=0)] = 1.0
    """Largest norm of the gradient; null: not clipped."""

    aux_weight: Annotated[Rate, ReadBy("joint")] = 0.2
    """Weight of the slice head's loss beside the sequence part's (deep supervision)."""

    slice_weight: Annotated[Rate, ReadBy("frozen", "joint")] = 1.0
    """Weight of the slices' loss, which is a mean over the labels of slices that are known in a step."""

    exam_weight: Annotated[Rate, ReadBy("frozen", "joint")] = 0.25
    """Weight of the exams' loss, the same mean over labels of exams; without model.exam there is none."""

    keep_weight: Annotated[Rate, ReadBy("frozen", "joint")] = 0.0
    """Weight of a term that holds each slice's answer near that of the weights that training starts from (--init): a
    mean cross entropy against those probabilities, which are computed once, without augmentation."""

    keep: Annotated[Literal["answers", "posterior"], ReadBy("frozen", "joint")] = "answers"
    """What keep_weight holds the slices near: what the start answers; or posterior, what follows from it and the exam's
    label: 0 in an exam without the label, and in one with it the answers divided by the probability, by these same
    answers, that any of its slices has it. Exams whose label is unknown keep the answers."""

    backbone_blocks: Annotated[AtLeast1 | Literal["all"], ReadBy("slice", "joint")] = "all"
    """So many of the backbone's last blocks are trained, of those that timm divides it into."""

    layer_decay: Annotated[Share, ReadBy("slice", "joint")] = 1.0
    """Learning rate of each block of the backbone, as a part of that of the block after it; the last one has
    backbone_lr."""

    patience: AtLeast0 = 0
    """Stop when so many epochs in a row were no better in validation than the best before them; 0: never."""

    fit_share: Annotated[Switch, ReadBy("frozen", "joint")] = False
    """After training, fit by label how much of the answer is the sequence part's and how much the slice head's, on the
    fold that is kept for validation, whose figures then flatter a little; prediction blends their logits in these
    shares."""

    ema: ShareBelow1 = 0.0
    """Decay of a moving average of the weights; 0: none."""

    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    """Mixed precision; auto: bf16 on a GPU that has it, fp16 on another, no on a CPU."""

    checkpointing: Annotated[Literal["auto", "on", "off"], WithoutEffect()] = "auto"
    """Recompute the backbone in the backward pass; auto: if the step would not fit the memory."""

    chunk_size: Annotated[AtLeast1 | Literal["auto"], WithoutEffect(with_live_batch_norm=False)] = "auto"
    """Slices that the backbone reads at once; auto: 32, or with fixed batch norm what fits the memory, up to 64 on a
    GPU."""

    compile: Switch = False
    """torch.compile for the backbone."""

    embeddings: Annotated[Literal["float32", "float16"], ReadBy("frozen")] = "float32"
    """Type in which the backbone's embeddings are kept beside the prepared set."""

    checkpoint_every: Annotated[AtLeast1, WithoutEffect()] = 500
    """Steps between checkpoints."""

    keep_epochs: AtLeast0 = 0
    """Keep the weights of so many of the last epochs."""

    workers: Annotated[AtLeast0, WithoutEffect()] = 2
    """Threads that read ahead."""

    seed: AtLeast0 = 0
    """Seed of the weights, the order and the augmentation."""
