"""Evidence in the backbone's maps: it adds up to the logit, and a slice's does not depend on what else is there."""

import pytest
import torch
from small_models import small_model
from torch import Tensor

from ichseq import Model
from ichseq.model.evidence import evidence

LENGTHS = torch.tensor([4, 3])
SEQUENCES = ("lstm2", "lstm1", "lstm2_delta", "logits", "gru", "transformer", "conv")


@pytest.fixture(scope="module")
def hu() -> Tensor:
    return (torch.randn(7, 40, 40, generator=torch.Generator().manual_seed(3)) * 200).to(torch.int16)


def of_slice_head(model: Model, slices: int) -> Tensor:
    """(6, slices, D): its weights, which are the gradients of its logits."""
    return model.slice_head.weight.detach()[:, None].expand(-1, slices, -1)


@pytest.mark.parametrize("settings", [{}, {"views": ["flip", "transpose"]}, {"neighbours": 1}, {"crop": "slice"},
                                      {"backbone": "mobilenetv3_small_050"}, {"pool": "max"}, {"pool": "catavgmax"},
                                      {"cross_slice": [8]}])  # fmt: skip
def test_the_mean_of_the_map_is_the_logit_less_its_bias(settings: dict[str, object], hu: Tensor) -> None:
    """Exact where the embedding is linear in the map: all of these but the last layers of MobileNetV3."""
    model = small_model(**settings).eval()
    for weights in (getattr(model.backbone, "cross_slice", None) and model.backbone.cross_slice.weights) or ():
        weights.data.fill_(0.3)
    with torch.no_grad():
        boxes = model.crop_boxes(hu, LENGTHS)
        added = model.slice_logits(model.embed(hu, LENGTHS)) - model.slice_head.bias
    maps = evidence(model, hu, LENGTHS, boxes, of_slice_head(model, len(hu)))
    assert maps.shape[:2] == (6, 7)
    found = maps.mean((2, 3)).T
    if "backbone" in settings:
        assert maps.abs().max() > 0
    else:
        assert torch.allclose(found, added, atol=1e-4)
        assert added.abs().max() > 1e-2
