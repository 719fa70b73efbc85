"""Networks small enough for tests, from random weights that a seed decides."""

from typing import Any

import torch

from ichseq import Model


def small_model(
    *, seed: int = 0, chunk_size: int = 32, checkpointing: str = "off", backbone: str = "test_resnet", **settings: Any
) -> Model:
    """A network of 32 x 32 pixels and 8 units; `settings` are those of `ichseq.Model`."""
    torch.manual_seed(seed)
    model = Model(backbone, **{"image_size": 32, "hidden_size": 8} | settings)
    model.chunk_size, model.checkpointing = chunk_size, checkpointing
    return model
