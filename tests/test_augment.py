"""Augmentation: a key decides its matrix, and a matrix does to a picture what its name says."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from ichseq import Model
from ichseq.config import AugmentConfig
from ichseq.data.augment import warps
from ichseq.model.stack import series_spans
from ichseq.seeds import derive_seed

NONE = AugmentConfig(flip=0, transpose=0, affine=0)
KEYS = [(seed, epoch, series) for seed in range(3) for epoch in range(4) for series in range(20)]


@pytest.fixture(scope="module")
def model() -> Model:
    return Model("test_resnet", image_size=32, crop="none").eval()


@pytest.fixture(scope="module")
def picture() -> Tensor:
    """Two slices without any symmetry, smooth, within all windows."""
    rows, columns = torch.meshgrid(torch.linspace(0, 1, 32), torch.linspace(0, 1, 32), indexing="ij")
    first = 10 + 20 * rows + 40 * columns**2
    return torch.stack([first, 70 - 30 * rows**2 - 10 * columns])


def seen(model: Model, hu: Tensor, warp: Tensor | None) -> Tensor:
    boxes = model.crop_boxes(hu, torch.tensor([len(hu)]))
    return model.network_input(hu, series_spans(hu, torch.tensor([len(hu)]), None), boxes, warp)


def drawn(config: AugmentConfig) -> Tensor:
    return warps(config, [(0, 0, 0)])


def test_a_key_decides_its_matrix() -> None:
    config = AugmentConfig(affine=1)
    every = warps(config, KEYS)
    assert torch.equal(every, warps(config, KEYS))
    assert torch.equal(every[7], warps(config, [KEYS[7]])[0])  # whatever else is drawn with it
    assert len(every.flatten(1).unique(dim=0)) == len(KEYS)


def test_seeds_of_different_parts_differ() -> None:
    seeds = {derive_seed("warp", *key) for key in KEYS} | {derive_seed("plan", *key) for key in KEYS}
    assert len(seeds) == 2 * len(KEYS)
    assert derive_seed(1, 23) != derive_seed(12, 3)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_no_probability_gives_the_identity() -> None:
    assert torch.equal(warps(NONE, KEYS), torch.eye(3).expand(len(KEYS), 3, 3))
    still = AugmentConfig(flip=0, transpose=0, affine=1, shift=0, scale=0, rotate=0)
    torch.testing.assert_close(warps(still, KEYS), torch.eye(3).expand(len(KEYS), 3, 3))
    assert warps(NONE, []).shape == (0, 3, 3)


def test_probabilities_are_kept_to() -> None:
    keys = [(0, 0, k) for k in range(2000)]
    for name in ("flip", "transpose", "affine"):
        matrices = warps(AugmentConfig(**{**vars(NONE), name: 0.3}), keys)
        changed = (matrices - torch.eye(3)).abs().flatten(1).amax(1) > 1e-6
        assert 0.25 < changed.float().mean() < 0.35, name


def test_affine_stays_in_its_ranges_and_reaches_into_them() -> None:
    config = AugmentConfig(flip=0, transpose=0, affine=1, shift=0.05, scale=0.1, rotate=20)
    matrices = warps(config, KEYS)
    scale = matrices[:, :2, :2].det().sqrt()
    angle = torch.rad2deg(torch.atan2(matrices[:, 1, 0], matrices[:, 0, 0])).abs()
    shift = matrices[:, :2, 2].abs()  # the side is 2
    assert scale.min() >= 0.9 - 1e-5
    assert scale.max() <= 1.1 + 1e-5
    assert scale.max() - scale.min() > 0.15
    assert 15 < angle.max() <= 20 + 1e-3
    assert 0.08 < shift.max() <= 0.1 + 1e-5


def test_stretch_is_one_axis_against_the_other_and_leaves_the_rest() -> None:
    config = AugmentConfig(flip=0, transpose=0, affine=1, rotate=0, stretch=0.2)
    without, matrices = warps(AugmentConfig(flip=0, transpose=0, affine=1, rotate=0), KEYS), warps(config, KEYS)
    torch.testing.assert_close(matrices[:, :2, :2].det(), without[:, :2, :2].det())
    ratio = (matrices[:, 0, 0] / without[:, 0, 0]).maximum(without[:, 0, 0] / matrices[:, 0, 0])
    assert 1.15 < ratio.max() <= 1 / 0.8 + 1e-5
    assert torch.equal(matrices[:, 0, 1], torch.zeros(len(KEYS)))


@pytest.mark.parametrize("series", range(8))
def test_one_part_switched_off_leaves_the_others(series: int) -> None:
    key = [(0, 0, series)]
    whole = warps(AugmentConfig(flip=1, transpose=1, affine=1), key)
    without = warps(AugmentConfig(flip=0, transpose=0, affine=1), key)
    both = warps(AugmentConfig(flip=1, transpose=1, affine=0), key)
    torch.testing.assert_close(whole, without @ both)


def test_flip_and_transpose_are_the_picture_mirrored_and_transposed(model: Model, picture: Tensor) -> None:
    plain = seen(model, picture, None)
    flip, transpose, both = (
        seen(model, picture, drawn(AugmentConfig(flip=f, transpose=t, affine=0))) for f, t in [(1, 0), (0, 1), (1, 1)]
    )
    torch.testing.assert_close(seen(model, picture, drawn(NONE)), plain)
    torch.testing.assert_close(flip, plain.flip(-1), atol=1e-4, rtol=0)
    torch.testing.assert_close(transpose, plain.mT, atol=1e-4, rtol=0)
    torch.testing.assert_close(both, plain.flip(-1).mT, atol=1e-4, rtol=0)
    for one, other in [(flip, plain), (transpose, plain), (transpose, flip), (both, flip), (both, plain.mT)]:
        assert (one - other).abs().max() > 0.1  # the picture tells them apart


def test_all_slices_of_a_series_move_together(model: Model, picture: Tensor) -> None:
    warp = drawn(AugmentConfig(flip=1, transpose=1, affine=1))
    twice = seen(model, picture[[0, 0]], warp)
    assert torch.equal(twice[0], twice[1])
    assert (twice[0] - seen(model, picture, None)[0]).abs().max() > 0.1


def test_a_rotation_turns_about_the_centre(model: Model) -> None:
    rows, columns = torch.meshgrid(torch.arange(32) - 15.5, torch.arange(32) - 15.5, indexing="ij")
    spot = torch.where((rows + 9) ** 2 + columns**2 < 9, 40.0, -200.0)[None]  # above the centre
    turned = drawn(AugmentConfig(flip=0, transpose=0, affine=1, shift=0, scale=0, rotate=90))
    angle = math.degrees(math.atan2(float(turned[0, 1, 0]), float(turned[0, 0, 0])))
    assert abs(angle) > 5
    bright = (seen(model, spot, turned)[0, 0] > 0).float()
    radius = torch.hypot((bright * rows).sum(), (bright * columns).sum()) / bright.sum()
    assert 8 < radius < 10


def test_a_flip_from_top_to_bottom_leaves_the_other_draws(model: Model, picture: Tensor) -> None:
    turned = drawn(AugmentConfig(flip=0, flip_vertical=1, transpose=0, affine=0))
    assert torch.allclose(seen(model, picture, turned), seen(model, picture, None).flip(2), atol=1e-4)
    config = AugmentConfig(affine=1)
    every, down = warps(config, KEYS), warps(dataclasses.replace(config, flip_vertical=1), KEYS)
    # Before the transpose, so that what was up is down: mirrored in the picture's own rows.
    assert torch.allclose(torch.linalg.det(down), -torch.linalg.det(every), atol=1e-5)
