"""Memory format, recomputation and chunk follow from the memory, unless they are stated, or batch norm is live."""

import pytest
import torch
from conftest import tiny

from ichseq import Model
from ichseq.devices import USABLE, free_bytes
from ichseq.training.memory_plan import LIVE_CHUNK, MemoryPlan, faster_channels_last, plan_memory, plan_with_less
from ichseq.training.stages.stage import BatchSize

CPU = torch.device("cpu")


def make(freeze_bn: bool = True, trained: bool = True) -> Model:
    model = Model("test_resnet", image_size=64, hidden_size=8, freeze_bn=freeze_bn)
    model.freeze_backbone(not trained)
    return model


def planned(*settings: str, slices: int = 140, **made: bool) -> tuple[MemoryPlan, str]:
    return plan_memory(make(**made), tiny("joint", *settings), BatchSize(slices, 2 * 512 * 512))


def test_what_fits_is_kept() -> None:
    plan, reason = planned()
    assert not plan.recompute
    assert "they are kept" in reason


def test_what_does_not_fit_is_recomputed() -> None:
    one = make().activation_bytes()
    plan, reason = planned(slices=int(1.5 * USABLE * free_bytes(CPU) / one))
    assert plan.recompute
    assert plan.chunk_size * one < free_bytes(CPU)
    assert "recomputed" in reason


@pytest.mark.parametrize(("asked", "recompute"), [("on", True), ("off", False)])
def test_what_is_stated_is_kept_to(asked: str, recompute: bool) -> None:
    plan, _ = planned(f"train.checkpointing={asked}", "train.chunk_size=7", "model.channels_last=true", slices=10**9)
    assert plan == MemoryPlan(channels_last=True, recompute=recompute, chunk_size=7)


def test_neighbours_are_counted() -> None:
    one, three = (Model("test_resnet", image_size=64, hidden_size=8, neighbours=n) for n in (0, 1))
    assert three.input_channels == 3 * one.input_channels == 9
    assert three.activation_bytes() >= one.activation_bytes() + 6 * 64**2 * 4  # the input is kept for the first layer


def test_live_batch_norm_has_one_chunk_whatever_the_memory() -> None:
    few, many = planned(freeze_bn=False)[0], planned(freeze_bn=False, slices=10**9)[0]
    assert few.chunk_size == many.chunk_size == LIVE_CHUNK
    assert many.recompute


def test_a_backbone_that_is_not_trained_keeps_nothing() -> None:
    assert not planned(trained=False, slices=10**9)[0].recompute


def test_models_follow_a_plan() -> None:
    plan, models = MemoryPlan(channels_last=True, recompute=True, chunk_size=5), [make(), make()]
    plan.apply(models)
    assert [MemoryPlan.of(model) for model in models] == [plan, plan]
    weights = [p for p in models[0].backbone.parameters() if p.ndim == 4]
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in weights)


def less(model: Model) -> list[MemoryPlan]:
    """The plans that follow each other as the memory runs out again and again."""
    MemoryPlan(False, False, 8).apply([model])
    plans = []
    while (found := plan_with_less(model)) is not None:
        plans.append(found[0])
        found[0].apply([model])
    return plans


def test_a_plan_with_less_memory_recomputes_and_then_halves_the_chunk() -> None:
    assert less(make()) == [MemoryPlan(False, True, chunk) for chunk in (8, 4, 2, 1)]
    assert less(make(trained=False)) == [MemoryPlan(False, False, chunk) for chunk in (4, 2, 1)]
    assert less(make(freeze_bn=False)) == [MemoryPlan(False, True, 8)]  # a smaller chunk would be another computation


@pytest.mark.parametrize("freeze_bn", [True, False])
@pytest.mark.parametrize("mode", [True, False])
def test_measuring_the_memory_format_leaves_the_model_as_it_was(freeze_bn: bool, mode: bool) -> None:
    model = make(freeze_bn=freeze_bn).train(mode)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = {name: module.training for name, module in model.named_modules()}
    assert faster_channels_last(model, slices=2, rounds=1) in (True, False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert all(p.grad is None for p in model.parameters())


def test_with_little_memory_the_memory_format_is_measured_on_fewer_slices() -> None:
    model, seen = make(), list[int]()

    def take(_module: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        seen.append(len(inputs[0]))
        torch.empty(2**60 if seen[-1] > 3 else 1, dtype=torch.int8)  # more than any machine has

    model.backbone.register_forward_pre_hook(take)
    assert faster_channels_last(model, slices=12, rounds=1) in (True, False)
    assert seen[:2] == [12, 6]
    assert set(seen[2:]) == {3}
    model.backbone.register_forward_pre_hook(lambda *_: torch.empty(2**60, dtype=torch.int8))
    assert not faster_channels_last(model, slices=4, rounds=1)


def test_another_error_than_memory_is_not_taken_for_it() -> None:
    model = make()
    model.backbone.register_forward_pre_hook(lambda *_: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="size"):
        faster_channels_last(model, slices=4, rounds=1)
