"""What a sequence part reads: embeddings less dropped channels, with places and distances appended.

`INPUTS` holds what `model.sequence_inputs` can append. Slices of all series are stacked, (S, ...); `counts` is the
number of slices of each series.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

USUAL_DISTANCE_MM = 5.0  # between slices of a head CT; taken for series without positions


def drop_channels(embeddings: Tensor, counts: list[int], share: float) -> Tensor:
    """Embeddings (S, D) less a random share of their channels, the same ones for all slices of a series."""
    masks = F.dropout(embeddings.new_ones(len(counts), embeddings.shape[1]), share)  # (P, D)
    return torch.cat([series * mask for series, mask in zip(embeddings.split(counts), masks, strict=True)])


def drop_slices(embeddings: Tensor, share: float) -> Tensor:
    """Embeddings (S, D), those of a random share of the slices 0."""
    if not share:
        return embeddings
    return embeddings * (torch.rand(len(embeddings), 1, device=embeddings.device) >= share)


def add_noise(embeddings: Tensor, share: float) -> Tensor:
    """Embeddings (S, D) with Gaussian noise, of a standard deviation that is a share of that of the slice's values."""
    if not share:
        return embeddings
    return embeddings + share * embeddings.std(dim=1, keepdim=True) * torch.randn_like(embeddings)


def with_inputs(embeddings: Tensor, counts: list[int], positions_mm: Tensor | None, names: Sequence[str]) -> Tensor:
    """(S, D + 2n): the embeddings and what the n names of `INPUTS` stand for.

    Raises:
        ValueError: one needs positions and gets None.
    """
    if not names:
        return embeddings
    return torch.cat([embeddings, *(INPUTS[name](embeddings, counts, positions_mm) for name in names)], dim=1)


def with_differences(values: Tensor, counts: list[int]) -> Tensor:
    """(S, 3D): values, current minus previous, current minus next; zeros at the ends of a series."""
    steps = [series[1:] - series[:-1] for series in values.split(counts)]
    previous = torch.cat([F.pad(step, (0, 0, 1, 0)) for step in steps])
    following = torch.cat([F.pad(-step, (0, 0, 0, 1)) for step in steps])
    return torch.cat([values, previous, following], dim=1)


def relative_mm(positions_mm: Tensor | None, counts: list[int], asking: str) -> Tensor:
    """(S,): places in mm from the series' first slice.

    A series with a NaN among its positions (files in an order that was asked for, without positions) takes the number
    of the slice times 5 mm.

    Args:
        positions_mm: (S,) places along the scan's axis.
        counts: slices of each series.
        asking: what needs them, for the error.

    Raises:
        ValueError: there are none.
    """
    if positions_mm is None:
        raise ValueError(f"{asking} needs positions_mm, the place of every slice in mm; give them beside the slices")
    places = []
    for series in positions_mm.split(counts):
        usual = torch.arange(series.shape[0], device=series.device, dtype=series.dtype) * USUAL_DISTANCE_MM
        places.append(torch.where(series.isnan().any(), usual, series - series[0]))
    return torch.cat(places)


def _position(embeddings: Tensor, counts: list[int], positions_mm: Tensor | None) -> Tensor:
    """(S, 2): k / (n - 1) and log(1 + k) of slice k = 0, 1, ... of n; one slice alone is at 0."""
    numbers = [torch.arange(n, device=embeddings.device, dtype=embeddings.dtype) for n in counts]
    ends: list[Any] = [torch.sym_max(n - 1, 1) for n in counts]  # in an exported graph a number that is still open
    return torch.cat([torch.stack([k / end, k.log1p()], dim=1) for k, end in zip(numbers, ends, strict=True)])


def _spacing(embeddings: Tensor, counts: list[int], positions_mm: Tensor | None) -> Tensor:
    """(S, 2): distance to the previous and to the next slice in cm, 0 at the ends of the series."""
    places = relative_mm(positions_mm, counts, "model.sequence_inputs spacing")
    return with_differences(places[:, None], counts)[:, 1:].abs() / 10  # cm: about an embedding's size


INPUTS: dict[str, Callable[[Tensor, list[int], Tensor | None], Tensor]] = {"position": _position, "spacing": _spacing}
