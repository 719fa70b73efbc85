"""The appearance that training draws, applied to slices in Hounsfield units on the device.

Nothing here draws but the noise, and that follows from its seeds: a slice looks the same in whatever chunk it is
computed, and when it is computed again in the backward pass.
"""

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from ichseq.appearance import LARGEST_GRAIN, Appearance, NoiseOf
from ichseq.seeds import derive_seed
from ichseq.windows import HU_RANGE

TISSUE_HU: Final = (-150, 0, 100, 300)
"""Between the inner two all is soft tissue, beyond the outer two nothing is; linear in between."""

TISSUE_MIDDLE_HU: Final = 35
"""About the mean of brain, around which contrast changes."""


@torch.no_grad()
def show(hu: Tensor, appearance: Appearance, lowest: float = HU_RANGE[0]) -> Tensor:
    """Slices as a scanner of the given appearance would show them: tissue, then kernel, then noise.

    Args:
        hu: (n, K, H, W) float in HU, clipped to what is read; K slices seen together, the middle one their own.
        appearance: of each of the n.
        lowest: the lower end of what is read.
    """
    if appearance.tissue:
        hu = hu.addcmul(_tissue_weight(hu), _tissue_change(hu, appearance))
    if appearance.blur_radius:
        blurred = _smoothed(hu, appearance.column("blur"), appearance.blur_radius, "reflect")
        hu = torch.lerp(hu, blurred, appearance.column("blurred"))
    if appearance.white or appearance.correlated:
        noise = torch.zeros_like(hu)
        if appearance.white:
            noise += appearance.column("white") * _noise("white", hu, appearance.noise)
        if appearance.correlated:
            grain, radius = appearance.column("grain"), math.ceil(3 * LARGEST_GRAIN)
            own = _noise("correlated", hu, appearance.noise)
            # A sum of independent pixels: its variance is the sum of the squared weights, of both directions.
            strength = appearance.column("correlated") / _kernels(grain, radius).square().sum(1)[:, None, None, None]
            noise += strength * _smoothed(own, grain, radius, "circular")
        # Air lies far below what is read, and its noise with it.
        hu = torch.where(hu > lowest, hu + noise, hu)
    return hu


def _tissue_weight(hu: Tensor) -> Tensor:
    least, low, high, most = TISSUE_HU
    rising = (hu - least).div_(low - least).clamp_(0, 1)  # in place: such a stack is large
    return rising.mul_((most - hu).div_(most - high).clamp_(0, 1))


def _tissue_change(hu: Tensor, appearance: Appearance) -> Tensor:
    """What is added to soft tissue in HU: shift, contrast, and half a wave across the image."""
    rows, columns = (torch.linspace(-0.5, 0.5, n, device=hu.device) for n in hu.shape[2:])
    direction = appearance.column("direction")
    way = rows[:, None] * torch.sin(direction) + columns * torch.cos(direction)  # (n, 1, H, W)
    wave = appearance.column("shading") * torch.cos(math.pi * way + appearance.column("phase"))
    return (hu - TISSUE_MIDDLE_HU).mul_(appearance.column("contrast")).add_(wave + appearance.column("shift"))


def _kernels(sigma: Tensor, radius: int) -> Tensor:
    """(n, 2 radius + 1): Gaussians of (n, 1, 1, 1) standard deviations; one of 0 leaves all as it is."""
    from kornia.filters import get_gaussian_kernel1d  # here, since prediction needs none of kornia

    return get_gaussian_kernel1d(2 * radius + 1, sigma[:, :, 0, 0])


def _smoothed(images: Tensor, sigma: Tensor, radius: int, border: str) -> Tensor:
    from kornia.filters import filter2d_separable

    # Not gaussian_blur2d, which asks the GPU whether the standard deviations are positive.
    kernels = _kernels(sigma, radius)
    return filter2d_separable(images, kernels, kernels, border)


def _noise(name: str, like: Tensor, of: Sequence[NoiseOf]) -> Tensor:
    """Standard normal noise for images (n, K, H, W), a generator a slice."""
    reach = like.shape[1] // 2
    wanted = [one.moved(step) for one in of for step in range(-reach, reach + 1)]
    distinct = {one: row for row, one in enumerate(dict.fromkeys(wanted))}
    drawn = torch.empty(len(distinct), *like.shape[2:], device=like.device)
    generator = torch.Generator(like.device)
    for one, row in distinct.items():
        drawn[row].normal_(generator=generator.manual_seed(derive_seed(name, one.series, one.place)))
    if len(distinct) == len(wanted):
        return drawn.view(like.shape)
    return drawn[torch.tensor([distinct[one] for one in wanted], device=like.device)].view(like.shape)
