"""Convolutions across slices within the backbone: what lies at one place of a slice is seen at that of its neighbours.

The sequence part reads embeddings, which no longer say where in the slice something is. These convolutions run on
feature maps, place by place, and begin as if they were not there, so that a network trained on single slices goes on
as the same function. They cost next to nothing: a weight for each channel and neighbour.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ichseq.config import BackboneConfig
from ichseq.errors import ConfigError


class CrossSlice(nn.Module):
    """Depthwise convolutions of three slices, with a residual, after stages of a backbone.

    x[s] + before * x[s - 1] + after * x[s + 1] for each channel; beyond a series' ends are zeros, as for a slice that
    is read by itself. The weights begin at zero. Depthwise temporal convolutions in a 2D network: Lin et al., "Temporal
    shift module" (2019), which moves channels by one; here how much is learned.

    Args:
        channels: channels of the feature maps after each of the stages.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.weights = nn.ParameterList(nn.Parameter(torch.zeros(2, count)) for count in channels)
        self._inner: tuple[Tensor, Tensor] | None = None  # which slices have one before, and after; None: unknown

    @property
    def reach(self) -> int:
        """On how many slices to each side an embedding depends."""
        return len(self.weights)

    def after_stage(self, place: int, stage: nn.Module, given: Any, maps: Tensor) -> Tensor:
        """A forward hook: the feature maps (n, C, H, W) after the stage, with their neighbours'."""
        if self._inner is None:
            return maps
        before, after = (w[:, None, None] * inner for w, inner in zip(self.weights[place], self._inner, strict=True))
        mixed = maps.clone()
        mixed[1:] += maps[:-1] * before[1:].to(maps.dtype)
        mixed[:-1] += maps[1:] * after[:-1].to(maps.dtype)
        return mixed

    @contextmanager
    def series(self, counts: Sequence[int]) -> Iterator[None]:
        """Within it the backbone reads stacked series with so many slices each; outside it each slice by itself."""
        inner = torch.ones(2, sum(counts), 1, 1, 1)
        stops = torch.tensor(counts).cumsum(0)
        inner[0, 0], inner[0, stops[:-1]], inner[1, stops - 1] = 0, 0, 0
        device = self.weights[0].device
        self._inner = tuple(inner.to(device, non_blocking=True))
        try:
            yield
        finally:
            self._inner = None


def add_cross_slice(backbone: nn.Module, config: BackboneConfig, read: Callable[[], Any]) -> CrossSlice:
    """Convolutions across slices after the stages of a timm backbone that leave maps of the strides asked for.

    They become a part of the backbone, `backbone.cross_slice`.

    Args:
        backbone: from `make_backbone`.
        config: names the strides of feature maps: their side is the image's divided by it.
        read: has the backbone read some image, to see its maps.

    Raises:
        ConfigError: no stage has that stride, or its maps are not (n, C, H, W).
    """
    strides, where = config.cross_slice, config.backbone
    stages = {info["reduction"]: info for info in getattr(backbone, "feature_info", [])}
    if any(stride not in stages for stride in strides):
        known = ", ".join(map(str, stages)) or "none"
        raise ConfigError(f"model.cross_slice is {list(strides)}; the maps of {where} have strides {known}")
    modules = [backbone.get_submodule(stages[stride]["module"]) for stride in strides]
    shapes: dict[int, tuple[int, ...]] = {}

    def note(place: int, stage: nn.Module, given: Any, maps: Any) -> None:
        shapes[place] = tuple(getattr(maps, "shape", ()))

    hooks = [module.register_forward_hook(partial(note, place)) for place, module in enumerate(modules)]
    read()
    for hook in hooks:
        hook.remove()
    for place, stride in enumerate(strides):
        channels = stages[stride]["num_chs"]
        if len(shapes.get(place, ())) != 4 or shapes[place][1] != channels:
            raise ConfigError(f"model.cross_slice: {where} has no maps (n, {channels}, H, W) of stride {stride}; leave "
                              "it empty, or choose a convolutional backbone")  # fmt: skip
    cross = CrossSlice([stages[stride]["num_chs"] for stride in strides])
    backbone.cross_slice = cross
    for place, module in enumerate(modules):
        # A bound method in a partial: copies of the network, such as the moving average, get their own.
        module.register_forward_hook(partial(cross.after_stage, place))
    return cross
