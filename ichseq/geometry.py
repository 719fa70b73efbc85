"""Where slices and pixels lie: other views of a slice, and the neighbours that are seen with it."""

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from ichseq.errors import ConfigError

VIEWS: Final = {
    "flip": torch.tensor([[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]),  # left to right
    "transpose": torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]),
}
"""Other views of the same slice, as warps from output to input coordinates."""


def check_views(names: Sequence[str], where: str) -> None:
    """See that views exist.

    Raises:
        ConfigError: one does not.
    """
    for name in names:
        if name not in VIEWS:
            raise ConfigError(f"{where}: no view {name!r}; there are {', '.join(VIEWS)}")


def rows_around(
    first: int, stop: int, low: int, high: int, reach: int, *, device: torch.device | str = "cpu"
) -> Tensor:
    """(stop - first, 2 reach + 1): the slices first to stop - 1, each between its neighbours.

    What would lie outside of low to high - 1, the slices of the series, is its first or its last slice again.
    """
    steps = torch.arange(-reach, reach + 1, device=device)
    return (torch.arange(first, stop, device=device)[:, None] + steps).clamp_(low, high - 1)
