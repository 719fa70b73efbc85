"""The stages of training: what each trains, on which batches, with which loss. One loop runs them all.

slice   backbone and slice head, on shuffled slices
frozen  the sequence part alone, on embeddings computed once
joint   everything, on batches of whole series, each part with its own learning rate
"""

from typing import Any

from ichseq.config import Config
from ichseq.training.stages.frozen import FrozenStage
from ichseq.training.stages.joint import JointStage
from ichseq.training.stages.slices import SliceStage
from ichseq.training.stages.stage import Stage

STAGE_CLASSES: dict[str, type[Stage[Any]]] = {
    "slice": SliceStage,
    "frozen": FrozenStage,
    "joint": JointStage,
}


def make_stage(name: str, config: Config) -> Stage[Any]:
    """The stage of a name of `ichseq.config.STAGES`, with the settings of a run."""
    return STAGE_CLASSES[name](config)
