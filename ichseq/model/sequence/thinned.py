"""A part of a long series' slices for the sequence part, and its answers put back to all of them.

Tensors alone, and no branch on the number of slices, so that an exported graph takes any number.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def chosen(n: int, most: int) -> Tensor:
    """The slices of a series of n that are read: all, or of more than `most` that many, evenly spaced, ends too."""
    kept = torch.sym_min(n, most)
    steps = torch.arange(kept, dtype=torch.float64) * (n - 1)
    return (steps / torch.scalar_tensor(kept - 1, dtype=torch.float64).clamp(min=1)).round().long()


def nearest(kept: Tensor, n: int) -> Tensor:
    """(n,) for every slice of a series the number, among the chosen ones, of the nearest; of two the earlier."""
    return (kept[:-1] + kept[1:] < 2 * torch.arange(n)[:, None]).sum(1)


def thinned(counts: Sequence[int], most: int) -> tuple[list[int], Tensor, Tensor]:
    """How stacked series are thinned.

    Returns:
        How many slices of each are read; which rows of the stack these are; and for every row of the stack the number
        of the nearest among them.
    """
    rows, places, lengths = list[Tensor](), list[Tensor](), list[int]()
    for k, n in enumerate(counts):
        kept = chosen(n, most)
        rows.append(sum(counts[:k]) + kept)
        places.append(sum(lengths) + nearest(kept, n))
        lengths.append(kept.shape[0])
    return lengths, torch.cat(rows), torch.cat(places)
