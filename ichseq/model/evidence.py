"""Where in a slice the evidence for a label lies, in the maps of the backbone.

The last map, exactly: the gradient of the slice's logit with respect to the map, times the map, summed over channels.
Its mean is what the map adds to the logit. Where the slice head answers, after average pooling, this is the class
activation map of Zhou et al., "Learning deep features for discriminative localization" (2016), and the mean is the
logit less its bias. Through the sequence part it is true to first order, and of the slice's own embedding alone,
without what the sequence part has from the slice's neighbours (gradients as in Selvaraju et al., "Grad-CAM", 2017).

A place of the last map is large, some 3 cm of a head for a network of 192 pixels, and sees most of the slice: it says
that there is evidence, hardly where (`benchmarks/heatmap.py --depth last`). The maps before it do: of those of stride 8
and 16 what speaks for the label is taken, positive gradient times activation, as in Jiang et al., "LayerCAM" (2021),
and of both the geometric mean, so that a place counts that both depths name.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ichseq.errors import ConfigError
from ichseq.geometry import VIEWS
from ichseq.model.chunks import as_series
from ichseq.model.heads import Heads
from ichseq.model.model import Model

_VALUES_AT_ONCE: Final = 1 << 24
"""Of copies of a series' embeddings whose gradients are taken together: 64 MiB."""


FINE_STRIDES: Final = (8, 16)
"""Of the maps that say where; the peak of their geometric mean lay in the bleeding most often."""


def own_gradients(
    heads: Heads, embeddings: Tensor, positions_mm: Tensor | None, wanted: Sequence[tuple[int, int]], *, in_order: bool
) -> Tensor:
    """(K, D): the gradient of the logit of each slice and label with respect to the slice's own embedding.

    The series is copied for each of them, as many at a time as some memory holds: a logit of one slice depends on the
    embeddings of all, and the gradient of a sum over slices would mix them.

    Args:
        heads: in evaluation mode.
        embeddings: (n, D) of all slices of one series.
        positions_mm: (n,), for a sequence part that reads positions.
        wanted: K times slice and number of the label.
        in_order: whether the sequence part answers, with its share; else the slice head alone.
    """
    if not in_order or heads.sequence is None:
        return heads.slice_head.weight.detach()[[label for _, label in wanted]].float()
    slices, features = embeddings.shape
    copies = max(1, _VALUES_AT_ONCE // (slices * features))
    found = []
    # cuDNN's recurrent layers have no gradient in evaluation mode; in training mode dropout would be on.
    with _gradients(), torch.backends.cudnn.flags(enabled=False):
        for start in range(0, len(wanted), copies):
            part = wanted[start : start + copies]
            stack = embeddings.detach().float().repeat(len(part), 1).requires_grad_()
            positions = None if positions_mm is None else positions_mm.repeat(len(part))
            logits = heads.answer(stack, torch.full((len(part),), slices), positions).logits
            rows = [k * slices + number for k, (number, _) in enumerate(part)]
            chosen = logits[rows, [label for _, label in part]].sum()
            found.append(torch.autograd.grad(chosen, stack)[0][rows])
    return torch.cat(found)


def evidence_maps(
    backbone: nn.Module, images: Tensor, counts: Sequence[int], gradients: Tensor, strides: Sequence[int] = ()
) -> list[Tensor]:
    """What each place of the backbone's maps adds to the logits, to first order.

    Args:
        backbone: a timm model in evaluation mode.
        images: (n, C, size, size), what it sees of stacked series.
        counts: slices of each series.
        gradients: (L, n, D), of L logits of each slice with respect to its embedding.
        strides: of maps before the last one, ascending; those that the backbone does not have are left out.

    Returns:
        (L, n, h, w): of the last map all that it adds, whose mean over h and w is its part of the logit; then for each
        stride what its map adds through channels with a positive gradient.

    Raises:
        ConfigError: the backbone's last map is no (n, C, h, w).
    """
    found, network = [], cast(Any, backbone)
    with _gradients(), torch.autocast(images.device.type, enabled=False):
        with as_series(backbone, counts), _kept(backbone, strides) as kept:
            last = network.forward_features(images.detach().float())
        if not isinstance(last, Tensor) or last.ndim != 4 or last.shape[1] != network.num_features:
            raise ConfigError(
                f"model.backbone {type(backbone).__name__}: its last layer gives no maps (slices, channels, rows, "
                "columns), so there is no heat map; take a network with a convolutional backbone"
            )
        if not last.requires_grad:
            last.requires_grad_()
        maps = [last, *kept]
        embeddings = network.forward_head(last).float()
        for number, gradient in enumerate(gradients, 1):
            total = (embeddings * gradient).sum()
            slopes = torch.autograd.grad(total, maps, retain_graph=number < len(gradients))
            every = [slopes[0], *(slope.clamp(min=0) for slope in slopes[1:])]
            found.append([(one * slope).sum(1) * one[0, 0].numel() for one, slope in zip(maps, every, strict=True)])
    return [torch.stack(of_map).detach() for of_map in zip(*found, strict=True)]


def heat(maps: Sequence[Tensor]) -> Tensor:
    """(L, n, h, w), 0 or more: the geometric mean of the maps of strides; where there are none, the last map.

    Args:
        maps: of `evidence_maps`, the last map first.
    """
    if len(maps) == 1:
        return maps[0].clamp(min=0)
    size = maps[1].shape[2:]
    same = [F.interpolate(one, size, mode="bilinear", align_corners=False) for one in maps[1:]]
    return torch.stack(same).clamp_(min=0).log_().mean(0).exp_()


@contextmanager
def _kept(backbone: nn.Module, strides: Sequence[int]) -> Iterator[list[Tensor]]:
    """Within it the backbone's maps of these strides are put into the list, and gradients end before the first."""
    maps: list[Tensor] = []

    def keep(module: nn.Module, given: Any, made: Tensor) -> Tensor:
        maps.append(made if maps else made.detach().requires_grad_())
        return maps[-1]

    stages = {info["reduction"]: info["module"] for info in getattr(backbone, "feature_info", [])}
    hooks = [backbone.get_submodule(stages[one]).register_forward_hook(keep) for one in strides if one in stages]
    try:
        yield maps
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _gradients() -> Iterator[None]:
    """Within it gradients are kept, in whatever mode the caller is."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def to_pixels(maps: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """(k, rows, columns): maps of the cropped square, in the pixels of the slices; 0 outside of the square.

    Args:
        maps: (k, h, w).
        boxes: (k, 4) crop boxes, as `Model.crop_boxes` gives them.
        size: rows and columns.
    """
    half = boxes[:, 2:].amax(1, keepdim=True)
    x, y = (
        (torch.arange(count, device=maps.device) + 0.5 - boxes[:, axis, None]) / half
        for axis, count in enumerate(reversed(size))
    )  # (k, columns) and (k, rows), both -1..1 over the square
    grid = torch.stack(torch.broadcast_tensors(x[:, None], y[:, :, None]), dim=-1)
    sampled = F.grid_sample(maps[:, None], grid, padding_mode="border", align_corners=False)[:, 0]
    return sampled * (grid.abs() <= 1).all(-1)


def without_view(maps: Tensor, warp: Tensor | None) -> Tensor:
    """Maps (k, h, w) of slices that were seen through a warp (3, 3), as those of the slices as they are."""
    if warp is None:
        return maps
    inverse = torch.linalg.inv(warp.float())[None, :2].to(maps)
    grid = F.affine_grid(inverse.expand(len(maps), 2, 3), [len(maps), 1, *maps.shape[1:]], align_corners=False)
    return F.grid_sample(maps[:, None], grid, padding_mode="border", align_corners=False)[:, 0]


def heat_of_slices(
    model: Model,
    hu: Tensor,
    lengths: Tensor,
    boxes: Tensor,
    gradients: Tensor,
    *,
    warp: Tensor | None = None,
    strides: Sequence[int] = FINE_STRIDES,
) -> Tensor:
    """(L, S, h, w), 0 or more: evidence for L labels of each slice over the cropped square, the mean over `views`.

    Args:
        model: in evaluation mode.
        hu: (S, rows, columns) of stacked series, as for `Model.forward`.
        lengths: (P,) slices of each.
        boxes: (P, 4) or (S, 4) crop boxes.
        gradients: (L, S, D) of the logits with respect to the embeddings, see `own_gradients`.
        warp: (1, 3, 3), a view in which the slices are seen; the maps are of the slices as they are.
        strides: of the maps that say where; none: the last map.
    """
    views = [None, *(VIEWS[name][None] for name in model.config.views)]
    total: Tensor | None = None
    for view in views:
        seen = warp if view is None else view if warp is None else warp @ view
        images = model.images(hu, lengths, boxes=boxes, warp=None if seen is None else seen.expand(len(lengths), 3, 3))
        maps = heat(evidence_maps(model.backbone, images, lengths.tolist(), gradients, strides))
        turned = without_view(maps.flatten(0, 1), None if seen is None else seen[0]).view(maps.shape)
        total = turned if total is None else total + turned
    assert total is not None
    return total / len(views)
