"""Augmentation: one affine matrix a series, drawn from (seed, epoch, series) alone and composed with kornia.

Drawing is apart from applying: the model warps the slices in Hounsfield units with the matrix, in the same resampling
that crops and resizes them, so all slices of a series move together and nothing is interpolated twice.
"""

import hashlib

import torch
from kornia.geometry import get_affine_matrix2d
from torch import Tensor

from ichseq.config import AugmentConfig


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from numbers and words; different parts give unrelated seeds."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def draw_warp(config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """One 3 x 3 float matrix, from output to input coordinates, both -1..1 over the cropped square.

    Always draws the same number of values, so that switching one part off leaves the others as they were.
    """
    flip, transpose, affine, x, y, scale, angle = torch.rand(7, generator=generator).tolist()
    matrix = torch.eye(3)
    if affine < config.affine:
        # The side of the square is 2 in these coordinates, so a shift of 0.05 of the side is 0.1.
        matrix = get_affine_matrix2d(
            translations=torch.tensor([[4 * config.shift * (x - 0.5), 4 * config.shift * (y - 0.5)]]),
            center=torch.zeros(1, 2),
            scale=torch.full((1, 2), 1 + 2 * config.scale * (scale - 0.5)),
            angle=torch.tensor([2 * config.rotate * (angle - 0.5)]),
        )[0]
    if flip < config.flip:
        matrix = matrix @ torch.diag(torch.tensor([-1.0, 1.0, 1.0]))
    if transpose < config.transpose:
        matrix = matrix @ torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    return matrix


def warps(config: AugmentConfig, keys: list[tuple[int, ...]]) -> Tensor:
    """(P, 3, 3) float: a matrix for each key, such as (seed, epoch, series number); equal keys give equal matrices."""
    matrices = [draw_warp(config, torch.Generator().manual_seed(derive_seed("warp", *key))) for key in keys]
    return torch.stack(matrices) if matrices else torch.zeros(0, 3, 3)
