"""Evidence in the backbone's maps: it adds up to the logit, and a slice's does not depend on what else is there."""

import numpy as np
import pytest
import torch
from small_models import small_model
from torch import Tensor

from ichseq import Model
from ichseq.errors import ConfigError
from ichseq.geometry import VIEWS
from ichseq.model.evidence import evidence_maps, heat, heat_of_slices, own_gradients, to_pixels, without_view

LENGTHS = torch.tensor([4, 3])
SEQUENCES = ("lstm2", "lstm1", "lstm2_delta", "logits", "gru", "transformer", "conv")


@pytest.fixture(scope="module")
def hu() -> Tensor:
    return (torch.randn(7, 40, 40, generator=torch.Generator().manual_seed(3)) * 200).to(torch.int16)


def of_slice_head(model: Model, slices: int) -> Tensor:
    """(6, slices, D): its weights, which are the gradients of its logits."""
    return model.slice_head.weight.detach()[:, None].expand(-1, slices, -1)


@pytest.mark.parametrize("settings", [{}, {"neighbours": 1}, {"crop": "slice"}, {"pool": "max"},
                                      {"pool": "catavgmax"}, {"cross_slice": [8]},
                                      {"backbone": "tf_efficientnet_lite0"}])  # fmt: skip
def test_the_mean_of_the_last_map_is_the_logit_less_its_bias(settings: dict[str, object], hu: Tensor) -> None:
    model = small_model(**settings).eval()
    if "cross_slice" in settings:
        for weights in model.backbone.cross_slice.weights:
            weights.data.fill_(0.3)
    with torch.no_grad():
        added = model.slice_logits(model.embed(hu, LENGTHS)) - model.slice_head.bias
    images = model.images(hu, LENGTHS)
    (maps,) = evidence_maps(model.backbone, images, LENGTHS.tolist(), of_slice_head(model, len(hu)))
    assert maps.shape[:2] == (6, 7)
    assert torch.allclose(maps.mean((2, 3)).T, added, atol=1e-4)
    assert added.abs().max() > 1e-2


def test_maps_of_strides_are_finer_and_say_what_speaks_for_a_label(hu: Tensor) -> None:
    model = small_model(image_size=64).eval()
    images, asked = model.images(hu, LENGTHS), of_slice_head(model, 7)
    last, eight, sixteen = evidence_maps(model.backbone, images, [4, 3], asked, (8, 16))
    assert [one.shape[2:] for one in (last, eight, sixteen)] == [(2, 2), (8, 8), (4, 4)]
    assert torch.allclose(last, evidence_maps(model.backbone, images, [4, 3], asked)[0], atol=1e-6)
    found = heat([last, eight, sixteen])
    assert (found >= 0).all()
    assert found.max() > 0
    assert not found[eight <= 0].any(), "a place counts that both depths name"
    assert torch.allclose(heat([last, eight]), eight.clamp(min=0), rtol=1e-4)
    assert torch.equal(heat([last]), last.clamp(min=0))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_network_whose_head_is_not_linear_has_maps(hu: Tensor) -> None:
    """MobileNetV3 has a layer after the pooling; a feature map without strides is shown by itself."""
    model = small_model(backbone="mobilenetv3_small_050").eval()
    found = heat_of_slices(model, hu, LENGTHS, model.crop_boxes(hu, LENGTHS), of_slice_head(model, 7), strides=())
    assert found.max() > 0


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("strides", [(), (8, 16)])
def test_a_models_views_are_averaged_as_maps_of_the_slice_as_it_is(
    view: str, strides: tuple[int, ...], hu: Tensor
) -> None:
    plain, averaging = small_model(crop="none").eval(), small_model(crop="none", views=[view]).eval()
    turn = {"flip": lambda x: x.flip(-1), "transpose": lambda x: x.transpose(-1, -2)}[view]
    boxes, asked = plain.crop_boxes(hu, LENGTHS), of_slice_head(plain, 7)
    one, other = (
        heat_of_slices(plain, given, LENGTHS, boxes, asked, strides=strides) for given in (hu, turn(hu).contiguous())
    )
    expected = (one + turn(other)) / 2
    assert torch.allclose(
        heat_of_slices(averaging, hu, LENGTHS, boxes, asked, strides=strides), expected, atol=1e-4, rtol=1e-3
    )
    seen = heat_of_slices(plain, hu, LENGTHS, boxes, asked, warp=VIEWS[view][None], strides=strides)
    assert torch.allclose(seen, turn(other), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("sequence", SEQUENCES)
@pytest.mark.parametrize("share", [None, [0.3] * 6])
def test_own_gradients_are_the_slopes_of_the_logits(sequence: str, share: list[float] | None) -> None:
    """Of many asked for together as of each alone, without dropout, and in inference mode."""
    model = small_model(sequence=sequence, dropout=0.5).eval()
    model.sequence_share = share
    embeddings = torch.randn(5, model.features, generator=torch.Generator().manual_seed(1))
    positions = torch.arange(5) * 5.0
    wanted = [(0, 5), (3, 1), (3, 2), (4, 0)]
    with torch.inference_mode():
        slopes = own_gradients(model, embeddings, positions, wanted, in_order=True)
    for (number, label), slope in zip(wanted, slopes, strict=True):
        given = embeddings.clone().requires_grad_()
        logit = model.answer(given, torch.tensor([5]), positions).logits[number, label]
        assert torch.allclose(slope, torch.autograd.grad(logit, given)[0][number], atol=1e-6)
        assert slope.abs().max() > 0
    of_head = own_gradients(model, embeddings, positions, wanted, in_order=False)
    assert torch.equal(of_head, model.slice_head.weight[[label for _, label in wanted]])


def test_few_copies_at_a_time_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model().eval()
    embeddings = torch.randn(6, model.features, generator=torch.Generator().manual_seed(1))
    wanted = [(k, label) for k in range(6) for label in range(6)]
    whole = own_gradients(model, embeddings, None, wanted, in_order=True)
    monkeypatch.setattr("ichseq.model.evidence._VALUES_AT_ONCE", 1)
    assert torch.allclose(own_gradients(model, embeddings, None, wanted, in_order=True), whole, atol=1e-6)


def test_a_slice_has_the_same_map_whatever_is_beside_it(hu: Tensor) -> None:
    model = small_model(crop="none").eval()
    box = model.crop_boxes(hu, LENGTHS)
    together = heat_of_slices(model, hu, LENGTHS, box, of_slice_head(model, 7))
    alone = heat_of_slices(model, hu[5:6], torch.tensor([1]), box[1:], of_slice_head(model, 1))
    assert torch.allclose(together[:, 5:6], alone, atol=1e-5)
    one_label = torch.zeros(1, 7, model.features)
    one_label[0, 5] = model.slice_head.weight[2].detach()
    only = heat_of_slices(model, hu, LENGTHS, box, one_label)
    assert torch.allclose(only[0, 5], together[2, 5], atol=1e-5)
    assert not only[0, :5].any()


def test_a_backbone_without_maps_is_refused() -> None:
    model = small_model(backbone="test_vit", image_size=160).eval()
    with pytest.raises(ConfigError, match="convolutional backbone"):
        evidence_maps(model.backbone, torch.zeros(1, 3, 160, 160), [1], of_slice_head(model, 1))


@pytest.mark.parametrize("view", VIEWS)
def test_a_views_map_is_turned_back(view: str) -> None:
    maps = torch.arange(9.0).view(1, 3, 3)
    turned = {"flip": maps.flip(2), "transpose": maps.transpose(1, 2)}[view]
    assert torch.allclose(without_view(turned, VIEWS[view]), maps, atol=1e-4)
    assert without_view(maps, None) is maps


def test_maps_lie_where_the_crop_box_lies() -> None:
    """A box of 8 x 4 pixels is seen as a square of 8 x 8 with its middle; each place of the map is 2 x 2 pixels."""
    maps = torch.zeros(1, 4, 4)
    maps[0, 1, 3] = 1
    pixels = to_pixels(maps, torch.tensor([[10.0, 8.0, 4.0, 2.0]]), (20, 30))[0]
    assert np.unravel_index(int(pixels.argmax()), (20, 30)) in {(6, 12), (6, 13), (7, 12), (7, 13)}
    inside = torch.zeros(20, 30, dtype=torch.bool)
    inside[4:12, 6:14] = True
    assert not pixels[~inside].any()
