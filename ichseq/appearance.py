"""How a scanner shows a head: the parameters that training draws, and that the model applies to Hounsfield units."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, Self

import torch
from torch import Tensor

PARAMETERS: Final = (
    "shift",  # of soft tissue, HU
    "contrast",  # of soft tissue, what is added to 1
    "shading",  # height of the wave, HU
    "direction",  # of the wave, radians
    "phase",  # of the wave at the image's middle, radians
    "blur",  # standard deviation of a Gaussian, pixels
    "blurred",  # share of the blurred image; below 0 it is sharpened
    "white",  # standard deviation, HU
    "correlated",  # standard deviation, HU
    "grain",  # standard deviation in pixels of the Gaussian that correlates it
)
"""The columns of `Appearance.values`."""

LARGEST_GRAIN: Final = 2.0
"""Largest "grain", in pixels."""


class NoiseOf(NamedTuple):
    """What the noise of a slice follows from, beside its strength.

    Attributes:
        series: a seed, the same for all slices of a series.
        place: of the slice in its series.
        slices: of the whole series.
    """

    series: int
    place: int
    slices: int

    def moved(self, step: int) -> "NoiseOf":
        """Of a neighbour so many places on; beyond the ends of the series, of its last slice."""
        return self._replace(place=min(max(self.place + step, 0), self.slices - 1))


@dataclass(frozen=True)
class Appearance:
    """How each series of a batch is shown, or each of its slices.

    Attributes:
        values: float32 (P, `PARAMETERS`), where it is applied.
        noise: P, of each one's first slice.
        tissue: whether soft tissue changes.
        blur_radius: of the kernel in pixels; 0: nothing is blurred or sharpened.
        white: whether there is white noise.
        correlated: whether there is correlated noise.
    """

    values: Tensor
    noise: Sequence[NoiseOf]
    tissue: bool
    blur_radius: int
    white: bool
    correlated: bool

    def __len__(self) -> int:
        return len(self.noise)

    def __getitem__(self, rows: slice | Tensor) -> Self:
        noise = self.noise[rows] if isinstance(rows, slice) else [self.noise[k] for k in rows.tolist()]
        return replace(self, values=self.values[rows], noise=noise)

    def column(self, name: str) -> Tensor:
        """(P, 1, 1, 1): a parameter, as images (P, K, H, W) take it."""
        return self.values[:, PARAMETERS.index(name), None, None, None]

    def to(self, device: torch.device, *, non_blocking: bool = False) -> Self:
        """The same with its values on a device."""
        return replace(self, values=self.values.to(device, non_blocking=non_blocking))

    def for_each_slice(self, lengths: Sequence[int]) -> Self:
        """One for each slice, of one for each item with so many slices; as it is where there is one already."""
        if len(self) == sum(lengths):
            return self
        counts = torch.tensor(lengths, device=self.values.device)
        values = self.values.repeat_interleave(counts, dim=0, output_size=sum(lengths))
        noise = [first.moved(k) for first, n in zip(self.noise, lengths, strict=True) for k in range(n)]
        return replace(self, values=values, noise=noise)
