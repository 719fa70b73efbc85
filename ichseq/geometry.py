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

NO_SLICE_HU: Final = -32768
"""In every pixel of a slice beyond the ends of a series, where slices come between their neighbours; int16's least.
What is seen there is the model's to decide."""


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
) -> tuple[Tensor, Tensor]:
    """The slices first to stop - 1, each between its neighbours, as rows (stop - first, 2 reach + 1).

    Returns:
        int64, the rows; of what would lie outside of low to high - 1, the slices of the series, its first or last one.
        bool, whether a row is there and not outside.
    """
    steps = torch.arange(-reach, reach + 1, device=device)
    rows = torch.arange(first, stop, device=device)[:, None] + steps
    return rows.clamp(low, high - 1), (rows >= low) & (rows < high)
