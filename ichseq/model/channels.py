"""The windows of a network, with their normalisation, as one multiplication and one clamp for each channel."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ichseq.errors import ConfigError
from ichseq.windows import CHANNEL_MEAN, CHANNEL_STD, WINDOWS


def channels_of(windows: Sequence[str], normalise: bool | str, lowest: int) -> list[Tensor]:
    """Scale, offset, least and most of each channel, (1, C, 1, 1), for values counted from the range's lower end.

    clamp(value x scale + offset, least, most) is the window scaled to 0..1, clipped, and normalised.

    Raises:
        ConfigError: a window that can't be normalised.
    """
    rows = []
    for name in windows:
        centre, width = WINDOWS[name]
        low = centre - width / 2
        if normalise is True and name not in CHANNEL_MEAN:
            raise ConfigError(f"model.windows has {name}, of which no mean and deviation are published; set "
                              "model.normalise=false, or symmetric")  # fmt: skip
        mean, std = (0.5, 0.5) if normalise == "symmetric" else (0.0, 1.0)
        if normalise is True:
            mean, std = CHANNEL_MEAN[name], CHANNEL_STD[name]
        rows.append((1 / (width * std), ((lowest - low) / width - mean) / std, -mean / std, (1 - mean) / std))
    return [torch.tensor(column).view(1, -1, 1, 1) for column in zip(*rows, strict=True)]
