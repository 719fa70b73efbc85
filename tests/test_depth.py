"""Blocks of a backbone: every parameter is of one, and rates and what is trained go by them."""

import pytest
import torch
from conftest import tiny
from small_models import small_model
from torch import nn

from ichseq.errors import ConfigError
from ichseq.model.depth import blocks_of
from ichseq.training.stage_loss import StageLoss
from ichseq.training.stages import make_stage


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"])
def test_every_parameter_is_of_a_block_and_they_follow_each_other(backbone: str) -> None:
    side = {"image_size": 160} if backbone == "test_vit" else {}
    model = small_model(backbone=backbone, **side).backbone
    blocks = blocks_of(model)
    assert list(blocks) == [name for name, _ in model.named_parameters()]
    assert sorted(set(blocks.values())) == list(range(max(blocks.values()) + 1))
    assert blocks[next(iter(blocks))] == 0


def test_a_network_without_blocks_is_named() -> None:
    with pytest.raises(ConfigError, match=r"timm lists no blocks of Linear; leave train\.backbone_blocks at all"):
        blocks_of(nn.Linear(2, 2))


@pytest.mark.parametrize("cross_slice", [(), (8,)])
def test_only_the_last_blocks_are_trained(cross_slice: tuple[int, ...]) -> None:
    model = small_model(cross_slice=cross_slice, freeze_bn=True)
    network = StageLoss(model, make_stage("joint", tiny("joint", "train.backbone_blocks=2")))
    blocks = blocks_of(model.backbone)
    for name, parameter in model.backbone.named_parameters():
        assert parameter.requires_grad == (blocks.get(name, 4) >= 3), name
    assert all(p.requires_grad for p in model.sequence.parameters())
    before = {name: p.clone() for name, p in model.backbone.named_parameters()}
    optimizer = torch.optim.SGD(network.stage.parameter_groups(model))
    output = model(torch.randint(-100, 200, (4, 40, 40), dtype=torch.int16), torch.tensor([4]))
    output.logits.square().sum().backward()
    optimizer.step()
    changed = {name for name, p in model.backbone.named_parameters() if not torch.equal(before[name], p)}
    assert {blocks.get(name, 4) for name in changed} == {3, 4}


def test_more_blocks_than_there_are_is_all() -> None:
    model = small_model()
    StageLoss(model, make_stage("slice", tiny("slice", "train.backbone_blocks=99")))
    assert all(p.requires_grad for p in model.backbone.parameters())


def test_rates_fall_from_the_last_block_to_the_first() -> None:
    model = small_model(cross_slice=[8])
    plain, decayed = (make_stage("joint", tiny("joint", f"train.layer_decay={decay}")) for decay in (1, 0.5))
    for stage in (plain, decayed):
        StageLoss(model, stage)
    (whole, *_), groups = plain.parameter_groups(model), decayed.parameter_groups(model)
    assert whole["name"] == "backbone"
    rate = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    for name, block in blocks_of(model.backbone).items():
        assert rate[id(model.backbone.get_parameter(name))] == pytest.approx(1e-3 * 0.5 ** (4 - block))
    assert len(rate) == sum(1 for p in model.parameters() if p.requires_grad)
    assert [group["lr"] for group in groups if group["name"] in ("sequence", "cross_slice")] == [1e-2, 1e-3]
