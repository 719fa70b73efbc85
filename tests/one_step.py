"""The gradients of one training step, by however many processes torchrun has started: python one_step.py SET OUT ..."""

import sys
from pathlib import Path

import torch
from conftest import tiny
from safetensors.torch import save_file

from ichseq.data.batches import item_exam_labels, item_labels
from ichseq.data.index import Index
from ichseq.training.gradients import gradients
from ichseq.training.losses import step_weights
from ichseq.training.train import start_training


def main(data: Path, out: Path, number: int, *settings: str) -> None:
    """Write the gradients and the loss of step `number` of the first epoch to `out`/step.safetensors."""
    config = tiny("joint", "model.freeze_bn=true", *settings)
    training = start_training(config, "joint", Index.load(data), 0, out / "leaf")
    setup, steps = training.setup, training.setup.plan(0)[number : number + 1]
    items = [item for process in steps[0] for batch in process for item in batch]
    labels = (item_labels(setup.index, items), item_exam_labels(setup.index, items))
    weights = step_weights(*map(torch.from_numpy, labels))
    batches = list(training.batches(training.read_ahead().training(0), steps))
    training.begin_epoch()
    losses = gradients(setup, training.position, batches, weights)
    loss = setup.processes.sum(float(sum(losses)))
    if setup.processes.main:
        trained = {name: p.grad for name, p in setup.model.named_parameters() if p.grad is not None}
        lengths = [float(setup.index.lengths[item.series]) for item in items]
        save_file(trained | {"loss": torch.tensor([loss]), "lengths": torch.tensor(lengths)}, out / "step.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
