"""Augmentation: a matrix and an appearance for each series, drawn from (seed, epoch, series) alone.

Drawing is apart from applying: the model warps the slices in Hounsfield units with the matrix, in the same resampling
that crops and resizes them, so all slices of a series move together and nothing is interpolated twice; then it changes
what they show, before windowing.
"""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from kornia.geometry import get_affine_matrix2d
from torch import Tensor

from ichseq.appearance import LARGEST_GRAIN, PARAMETERS, Appearance, NoiseOf
from ichseq.config import AugmentConfig
from ichseq.geometry import VIEWS
from ichseq.seeds import derive_seed

_UPSIDE_DOWN: Final = torch.diag(torch.tensor([1.0, -1.0, 1.0]))


class Drawn(NamedTuple):
    """What a draw is for: slices of a series that follow each other, or one of them.

    Attributes:
        series: what tells this reading of the series from others, such as (seed, epoch, series number).
        place: of the first of the slices in the series.
        slices: of the whole series.
        alone: whether the draw is for that slice only.
    """

    series: tuple[int, ...]
    place: int
    slices: int
    alone: bool

    @property
    def key(self) -> tuple[int, ...]:
        """What the draw follows from."""
        return (*self.series, self.place) if self.alone else self.series


def warps(config: AugmentConfig, keys: Sequence[tuple[int, ...]]) -> Tensor:
    """(P, 3, 3) float: a matrix for each key, such as (seed, epoch, series number); equal keys give equal matrices.

    The matrices go from output to input coordinates, both -1..1 over the cropped square.
    """
    draws = [torch.rand(9, generator=torch.Generator().manual_seed(derive_seed("warp", *key))) for key in keys]
    return compose_warps(config, torch.stack(draws) if draws else torch.zeros(0, 9))


def compose_warps(config: AugmentConfig, draws: Tensor) -> Tensor:
    """The matrices (P, 3, 3) of `warps` from uniform draws (P, 9).

    They are for flip, transpose, affine or not, x, y, scale, angle, stretch and the flip from top to bottom. A draw
    stands for one thing alone, so that switching one part off leaves the others as they were.
    """
    flip, transpose, affine, x, y, scale, angle, stretch, down = draws.unbind(1)
    still = torch.eye(3).expand(len(draws), 3, 3)
    if not len(draws):
        return still
    both, one = 1 + 2 * config.scale * (scale - 0.5), 1 + 2 * config.stretch * (stretch - 0.5)
    # The side of the square is 2 in these coordinates, so a shift of 0.05 of the side is 0.1.
    moved = get_affine_matrix2d(
        translations=torch.stack([4 * config.shift * (x - 0.5), 4 * config.shift * (y - 0.5)], dim=1),
        center=torch.zeros(len(draws), 2),
        scale=torch.stack([both * one, both / one], dim=1),
        angle=2 * config.rotate * (angle - 0.5),
    )
    matrix = torch.where((affine < config.affine)[:, None, None], moved, still)
    matrix = torch.where((flip < config.flip)[:, None, None], matrix @ VIEWS["flip"], matrix)
    matrix = torch.where((down < config.flip_vertical)[:, None, None], matrix @ _UPSIDE_DOWN, matrix)
    return torch.where((transpose < config.transpose)[:, None, None], matrix @ VIEWS["transpose"], matrix)


def appearances(config: AugmentConfig, drawn: Sequence[Drawn]) -> Appearance | None:
    """An appearance for each draw, on the CPU; None where no setting asks for any.

    Equal keys give equal parameters, and a draw stands for one thing alone, as in `warps`. Noise follows from the
    series and a slice's place in it, so that a slice has the same noise by itself as beside its neighbours.
    """
    tissue = config.tissue_shift > 0 or config.tissue_contrast > 0 or config.shading > 0
    kernel = config.blur > 0 or config.sharpen > 0
    if not (tissue or kernel or config.noise or config.correlated_noise):
        return None
    keys = [derive_seed("appearance", *one.key) for one in drawn]
    draws = [torch.rand(len(_DRAWS), generator=torch.Generator().manual_seed(key)) for key in keys]
    return Appearance(
        _parameters(config, torch.stack(draws) if draws else torch.zeros(0, len(_DRAWS))),
        [NoiseOf(derive_seed("noise", *one.series), one.place, one.slices) for one in drawn],
        tissue=tissue,
        # Three standard deviations; that of sharpening's Gaussian is a pixel.
        blur_radius=math.ceil(3 * max(config.blur, 1)) if kernel else 0,
        white=config.noise > 0,
        correlated=config.correlated_noise > 0,
    )


_DRAWS = ("shift", "contrast", "shading", "direction", "phase", "kernel", "white", "correlated", "grain")


def _parameters(config: AugmentConfig, draws: Tensor) -> Tensor:
    """(P, PARAMETERS) of uniform draws (P, _DRAWS)."""
    u = dict(zip(_DRAWS, draws.unbind(1), strict=True))
    kernel = 2 * u["kernel"] - 1  # below 0 smooth, above 0 sharp
    smooth = kernel < 0
    values = {
        "shift": config.tissue_shift * (2 * u["shift"] - 1),
        "contrast": config.tissue_contrast * (2 * u["contrast"] - 1),
        "shading": config.shading * u["shading"],
        "direction": 2 * math.pi * u["direction"],
        "phase": 2 * math.pi * u["phase"],
        "blur": torch.where(smooth, -config.blur * kernel, 1.0),
        "blurred": torch.where(smooth, 1.0, -config.sharpen * kernel),
        "white": config.noise * u["white"],
        "correlated": config.correlated_noise * u["correlated"],
        "grain": 1 + (LARGEST_GRAIN - 1) * u["grain"],
    }
    return torch.stack([values[name] for name in PARAMETERS], dim=1)
