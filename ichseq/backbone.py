"""The backbone: any timm model by name, with weights from timm's hub, from a local file, or random ones."""

import difflib
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import timm
import torch
from huggingface_hub import constants as hub_constants
from huggingface_hub.utils import logging as hub_logging
from safetensors.torch import load_file
from torch import Tensor, nn

from ichseq.errors import ConfigError


def make_backbone(name: str, pretrained: bool | str, channels: int, image_size: int, pool: str = "avg") -> nn.Module:
    """A timm model without its classifier; arguments as those of `ichseq.Model`.

    Raises:
        ConfigError: an unknown name, weights that can't be had, or an image size that the network can't take.
    """
    if name.split(".")[0] not in timm.list_models():
        close = difflib.get_close_matches(name.split(".")[0], timm.list_models(), n=3)
        hint = f"; did you mean {', '.join(close)}?" if close else "; timm.list_models() lists them"
        raise ConfigError(f"model.backbone: timm has no {name!r}{hint}")
    options: dict[str, Any] = {"in_chans": channels, "num_classes": 0}
    if pool != "avg":
        options["global_pool"] = pool
    try:
        backbone = _fetch(name, options) if pretrained is True else timm.create_model(name, **options)
        if isinstance(pretrained, str):
            _load_local(backbone, Path(pretrained), channels)
        with torch.no_grad(), _evaluating(backbone):
            backbone(torch.zeros(1, channels, image_size, image_size))
    except (AssertionError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"model.backbone {name} does not work at model.image_size {image_size}: {reason}") from None
    return backbone


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    module.eval()
    yield
    module.train()


def _fetch(name: str, options: dict[str, Any]) -> nn.Module:
    spoken = hub_logging.get_verbosity()
    hub_logging.set_verbosity_error()  # it prints its retries
    try:
        with _offline_without_network():
            return timm.create_model(name, pretrained=True, **options)
    except Exception as error:  # the hub's client raises types of its own, by version
        raise ConfigError(
            f"the weights of {name} can't be fetched ({type(error).__name__}); set model.pretrained to a local file "
            "with these weights, or to false for random ones"
        ) from None
    finally:
        hub_logging.set_verbosity(spoken)


@contextmanager
def _offline_without_network() -> Iterator[None]:
    """Where the hub's host has no address, have its client look into its cache alone; it would retry for a minute."""
    was = hub_constants.HF_HUB_OFFLINE
    try:
        socket.getaddrinfo(urlsplit(hub_constants.ENDPOINT).hostname, 443)
    except OSError:
        hub_constants.HF_HUB_OFFLINE = was or not getproxies()
    try:
        yield
    finally:
        hub_constants.HF_HUB_OFFLINE = was


def _load_local(backbone: nn.Module, path: Path, channels: int) -> None:
    """Load a file of timm's weights, or an ichseq weights.safetensors; every weight of the backbone has to be in it."""
    if not path.is_file():
        raise ConfigError(
            f"model.pretrained: no file {path}; give one, or true (timm's hub), or false (random weights)"
        )
    try:
        if path.suffix == ".safetensors":
            weights: dict[str, Tensor] = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
            weights = content.get("state_dict", content)
        weights = {key.removeprefix("backbone."): tensor for key, tensor in weights.items()}
        first = backbone.pretrained_cfg.get("first_conv")  # type: ignore[operator, union-attr]
        key = f"{first}.weight"
        if isinstance(first, str) and key in weights and weights[key].shape[1] != channels:
            weights[key] = timm.models.adapt_input_conv(channels, weights[key])
        wanted = backbone.state_dict()
        missing = [key for key in wanted if key not in weights and not key.endswith("num_batches_tracked")]
        if missing:
            raise ConfigError(f"model.pretrained: {path} is of another network; it lacks {len(missing)} weights, the "
                              f"first {missing[0]}")  # fmt: skip
        backbone.load_state_dict({key: tensor for key, tensor in weights.items() if key in wanted}, strict=False)
    except ConfigError:
        raise
    except Exception as error:  # unpickling raises whatever the bytes make it raise
        raise ConfigError(f"model.pretrained: {path} can't be read as weights ({type(error).__name__})") from None


def feature_count(backbone: nn.Module, channels: int, image_size: int) -> int:
    """Length D of the pooled embedding, as a pass over one empty image gives it."""
    mode = backbone.training
    with torch.no_grad(), _evaluating(backbone):
        features = backbone(torch.zeros(1, channels, image_size, image_size)).shape[-1]
    backbone.train(mode)
    return int(features)
