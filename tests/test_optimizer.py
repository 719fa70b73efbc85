"""The optimizer by name: AdamW, and SGD whose steps are those of Nesterov's momentum."""

from pathlib import Path

import torch
from conftest import tiny
from safetensors.torch import load_file

from ichseq.config import TrainConfig
from ichseq.training.optimizer import MOMENTUM, make_optimizer
from ichseq.training.train import train_stage


def test_sgd_steps_by_hand() -> None:
    weight, decay, rate = torch.nn.Parameter(torch.tensor([1.0, -2.0])), 0.1, 0.5
    train = TrainConfig(optimizer="sgd", weight_decay=decay)
    optimizer = make_optimizer([{"params": [weight], "lr": rate}], train, torch.device("cpu"))
    by_hand, speed = weight.detach().clone(), torch.zeros(2)
    for k in range(4):
        gradient = torch.tensor([0.3, -0.7]) * (k + 1)
        weight.grad = gradient.clone()
        optimizer.step()
        pull = gradient + decay * by_hand
        speed = MOMENTUM * speed + pull
        by_hand = by_hand - rate * (pull + MOMENTUM * speed)
        assert torch.allclose(weight.detach(), by_hand, atol=1e-6)


def test_adamw_is_what_no_name_means() -> None:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.1}]
    assert isinstance(make_optimizer(groups, TrainConfig(), torch.device("cpu")), torch.optim.AdamW)


def test_a_run_with_sgd_keeps_its_momentum_in_the_checkpoint(prepared: Path, tmp_path: Path) -> None:
    config = tiny("joint", "train.optimizer=sgd", "train.epochs=1", "model.sequence=transformer_post",
                  "model.sequence_dropout=0.2", "model.drop_path=0.3", "augment.flip_vertical=0.5")  # fmt: skip
    leaf = train_stage(config, "joint", data=prepared, fold=0, out=tmp_path, progress=False)
    state = load_file(sorted((leaf / "last").glob("step-*"))[-1] / "state.safetensors")
    kept = [tensor for name, tensor in state.items() if name.endswith("momentum_buffer")]
    assert kept
    assert all(tensor.isfinite().all() for tensor in kept)
    assert max(float(tensor.abs().max()) for tensor in kept) > 0
