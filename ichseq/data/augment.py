"""Augmentation: one affine matrix a series, drawn from (seed, epoch, series) alone and composed with kornia.

Drawing is apart from applying: the model warps the slices in Hounsfield units with the matrix, in the same resampling
that crops and resizes them, so all slices of a series move together and nothing is interpolated twice.
"""

from collections.abc import Sequence

import torch
from kornia.geometry import get_affine_matrix2d
from torch import Tensor

from ichseq.config import AugmentConfig
from ichseq.geometry import VIEWS
from ichseq.seeds import derive_seed


def warps(config: AugmentConfig, keys: Sequence[tuple[int, ...]]) -> Tensor:
    """(P, 3, 3) float: a matrix for each key, such as (seed, epoch, series number); equal keys give equal matrices.

    The matrices go from output to input coordinates, both -1..1 over the cropped square.
    """
    draws = [torch.rand(7, generator=torch.Generator().manual_seed(derive_seed("warp", *key))) for key in keys]
    return compose_warps(config, torch.stack(draws) if draws else torch.zeros(0, 7))


def compose_warps(config: AugmentConfig, draws: Tensor) -> Tensor:
    """The matrices (P, 3, 3) of `warps` from uniform draws (P, 7): flip, transpose, affine or not, x, y, scale, angle.

    A draw stands for one thing alone, so that switching one part off leaves the others as they were.
    """
    flip, transpose, affine, x, y, scale, angle = draws.unbind(1)
    still = torch.eye(3).expand(len(draws), 3, 3)
    if not len(draws):
        return still
    # The side of the square is 2 in these coordinates, so a shift of 0.05 of the side is 0.1.
    moved = get_affine_matrix2d(
        translations=torch.stack([4 * config.shift * (x - 0.5), 4 * config.shift * (y - 0.5)], dim=1),
        center=torch.zeros(len(draws), 2),
        scale=(1 + 2 * config.scale * (scale - 0.5))[:, None].expand(-1, 2),
        angle=2 * config.rotate * (angle - 0.5),
    )
    matrix = torch.where((affine < config.affine)[:, None, None], moved, still)
    matrix = torch.where((flip < config.flip)[:, None, None], matrix @ VIEWS["flip"], matrix)
    return torch.where((transpose < config.transpose)[:, None, None], matrix @ VIEWS["transpose"], matrix)
