"""The gradients of one training step, by however many processes torchrun has started: python one_step.py SET OUT ..."""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from conftest import tiny
from safetensors.torch import save_file

from ichseq.data.batches import item_labels
from ichseq.data.feed import feed
from ichseq.data.index import Index
from ichseq.training.engine import Trainer
from ichseq.training.losses import label_weight
from ichseq.training.session import Session
from ichseq.training.stopping import StopRequest


def main(data: Path, out: Path, number: int, *settings: str) -> None:
    """Write the gradients and the loss of step `number` of the first epoch to `out`/step.safetensors."""
    config = tiny("joint", "model.freeze_bn=true", *settings)
    session = Session(config, "joint", Index.load(data), 0, out / "leaf", False)
    session.prepare()
    step = session.plan(0)[number]
    reader = replace(session.reader, augment=config.augment)
    items = [item for process in step for batch in process for item in batch]
    weight = label_weight(torch.from_numpy(item_labels(session.index, items)))
    session.network.train()
    batches = list(feed(step[session.group.rank], reader, threads=0))
    losses = Trainer(session, StopRequest())._backward(batches, weight)
    loss = session.group.sum(float(sum(losses)))
    if session.group.main:
        gradients = {name: p.grad for name, p in session.network.named_parameters() if p.grad is not None}
        lengths = [float(session.index.lengths[i]) for i, _, _ in items]
        save_file(
            gradients | {"loss": torch.tensor([loss]), "lengths": torch.tensor(lengths)}, out / "step.safetensors"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
