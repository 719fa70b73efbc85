"""Recomputation and chunk follow from the memory, unless they are stated, or batch norm is live."""

import pytest
import torch

from ichseq import Model
from ichseq.config import load_config
from ichseq.devices import USABLE, free_bytes
from ichseq.training.memory_plan import LIVE_CHUNK, fit_step

CPU = torch.device("cpu")


def fit(*settings: str, slices: int = 140, freeze_bn: bool = True, trained: bool = True):  # type: ignore[no-untyped-def]
    model = Model("test_resnet", image_size=64, hidden_size=8, freeze_bn=freeze_bn)
    model.freeze_backbone(not trained)
    train = load_config("joint", None, settings).train
    return fit_step(model, train, slices=slices, pixels=512 * 512, device=CPU), model


def test_what_fits_is_kept() -> None:
    chosen, _ = fit()
    assert not chosen.recompute
    assert "they are kept" in chosen.reason


def test_what_does_not_fit_is_recomputed() -> None:
    model = fit()[1]
    too_many = int(1.5 * USABLE * free_bytes(CPU) / model.activation_bytes())
    chosen, _ = fit(slices=too_many)
    assert chosen.recompute
    assert chosen.chunk_size * model.activation_bytes() < free_bytes(CPU)
    assert "recomputed" in chosen.reason


@pytest.mark.parametrize(("asked", "recompute"), [("on", True), ("off", False)])
def test_what_is_stated_is_kept_to(asked: str, recompute: bool) -> None:
    chosen, _ = fit(f"train.checkpointing={asked}", "train.chunk_size=7", slices=10**9)
    assert chosen.recompute is recompute
    assert chosen.chunk_size == 7


def test_neighbours_are_counted() -> None:
    one, three = (Model("test_resnet", image_size=64, hidden_size=8, neighbours=n) for n in (0, 1))
    assert three.input_channels == 3 * one.input_channels == 9
    assert three.activation_bytes() >= one.activation_bytes() + 6 * 64**2 * 4  # the input is kept for the first layer


def test_live_batch_norm_has_one_chunk_whatever_the_memory() -> None:
    few, many = fit(freeze_bn=False)[0], fit(freeze_bn=False, slices=10**9)[0]
    assert few.chunk_size == many.chunk_size == LIVE_CHUNK
    assert many.recompute


def test_a_backbone_that_is_not_trained_keeps_nothing() -> None:
    assert not fit(trained=False, slices=10**9)[0].recompute
