"""From Hounsfield units to the network's input; the published way, among the settings, agrees with plain OpenCV."""

import cv2
import numpy as np
import pytest
import torch
from small_models import small_model
from torch import Tensor

from ichseq import Model
from ichseq.config import AugmentConfig
from ichseq.data.augment import warps
from ichseq.errors import ConfigError
from ichseq.geometry import NO_SLICE_HU
from ichseq.windows import (
    AIR_HU,
    BONE_RANGE,
    CHANNEL_MEAN,
    CHANNEL_STD,
    DEFAULT_WINDOWS,
    HU_RANGE,
    WINDOWS,
    range_read,
)

LENGTHS = torch.tensor([3, 1, 2])


def make(**settings: object) -> Model:
    return small_model(**{"image_size": 48, "freeze_bn": True} | settings).eval()


@pytest.fixture(scope="module")
def hu() -> Tensor:
    """Six slices of 64 x 64, each with its own rectangle of blurred noise in air."""
    generator = torch.Generator().manual_seed(1)
    slices = torch.full((6, 64, 64), float(AIR_HU))
    for k in range(6):
        rows, columns = 30 + 4 * k, 56 - 5 * k
        noise = torch.randn(1, 1, rows + 4, columns + 4, generator=generator) * 400 + 40
        slices[k, 3 + k : 3 + k + rows, 4 : 4 + columns] = torch.nn.functional.avg_pool2d(noise, 5, 1)[0, 0]
    return slices.round().to(torch.int16)


def images(model: Model, hu: Tensor, lengths: Tensor = LENGTHS, **given: Tensor) -> Tensor:
    """What the backbone is given."""
    seen: list[Tensor] = []
    handle = model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    with torch.no_grad():
        model.embed(hu, lengths, **given)
    handle.remove()
    return torch.cat(seen)


def published(hu: np.ndarray, size: int) -> np.ndarray:
    """Windows, then the black border cut away, black added at the bottom or right, then resized: (3, size, size)."""
    bounds = [(WINDOWS[name][0] - WINDOWS[name][1] / 2, WINDOWS[name][1]) for name in DEFAULT_WINDOWS]
    image = np.stack([np.clip((hu - low) / width, 0, 1) for low, width in bounds], axis=2).astype(np.float32)
    rows, columns = np.flatnonzero(image.any((1, 2))), np.flatnonzero(image.any((0, 2)))
    cut = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    side = max(cut.shape[:2])
    square = np.zeros((side, side, 3), np.float32)
    square[: cut.shape[0], : cut.shape[1]] = cut
    return cv2.resize(square, (size, size), interpolation=cv2.INTER_LINEAR).transpose(2, 0, 1)


def test_the_published_crop_and_order_are_those_of_opencv(hu: Tensor) -> None:
    model = make(crop="slice", window_first=True, normalise=False)
    found = images(model, hu).numpy()
    for slice_, expected in zip(found, (published(one, 48) for one in hu.numpy()), strict=True):
        # OpenCV repeats the outermost pixel where a sample lies half outside.
        np.testing.assert_allclose(slice_[:, 1:-1, 1:-1], expected[:, 1:-1, 1:-1], atol=2e-3)


@pytest.mark.parametrize("settings", [{}, {"window_first": True}, {"crop": "slice"}, {"neighbours": 1}])
def test_a_network_reads_no_more_than_its_windows_need_and_no_less(hu: Tensor, settings: dict[str, object]) -> None:
    hu = (hu.float() * 2.5).to(torch.int16)  # beyond every window
    for windows in (DEFAULT_WINDOWS, ("brain", "bone")):
        model = make(normalise=False, windows=windows, **settings)
        whole, read = images(model, hu), model.network_input.hu_range
        assert torch.equal(images(model, hu.clamp(*read)), whole)
        assert torch.equal(images(model, hu.clamp(*BONE_RANGE)), whole)
        narrower = images(model, hu.clamp(*HU_RANGE))
        assert torch.equal(narrower, whole) == ("bone" not in windows)


@pytest.mark.parametrize("settings", [{"edge": "zero"}, {"window_first": True}, {"window_first": True, "edge": "zero"}])
def test_bone_stands_for_its_hounsfield_units_and_what_is_outside_is_black(settings: dict[str, object]) -> None:
    model = make(normalise=False, windows=["bone", "brain"], crop="none", neighbours=1, **settings)
    for value, bone in ((-1000, 0.0), (-800, 0.0), (600, 0.5), (1300, 0.75), (2000, 1.0), (3000, 1.0)):
        flat = torch.full((3, 64, 48), value, dtype=torch.int16)
        found = images(model, flat, torch.tensor([3])).unflatten(1, (3, 2))  # (slices, seen with each, windows, ...)
        torch.testing.assert_close(found[:, 1, 0, 8:-8, 12:-12], torch.full((3, 32, 24), bone), atol=1e-6, rtol=0)
        assert not found[..., :4].any()  # beside the image
        assert bool(found[0, 0].any()) == (bone > 0 and settings.get("edge") != "zero")


def test_the_order_of_windows_and_resampling_matters_only_where_pixels_are_mixed(hu: Tensor) -> None:
    first, after = make(window_first=True), make()
    assert (images(first, hu) - images(after, hu)).abs().max() > 0.1
    first, after = (make(window_first=w, crop="none", image_size=64) for w in (True, False))
    torch.testing.assert_close(images(first, hu), images(after, hu), atol=1e-4, rtol=0)


def test_slices_cropped_by_themselves_do_not_know_their_series(hu: Tensor) -> None:
    model = make(crop="slice")
    whole = images(model, hu)
    torch.testing.assert_close(images(model, hu, torch.ones(6, dtype=torch.int64)), whole)
    padded = torch.full((6, 80, 72), AIR_HU, dtype=torch.int16)
    padded[:, :64, :64] = hu
    torch.testing.assert_close(images(model, padded, sizes=[(64, 64)] * 3), whole, atol=1e-4, rtol=0)
    black = torch.full((1, 64, 64), AIR_HU, dtype=torch.int16)
    assert model.crop_boxes(black, torch.tensor([1])).tolist() == [[32, 32, 32, 32]]
    assert model.crop_boxes(padded[:1] * 0 + AIR_HU, torch.tensor([1]), sizes=[(64, 50)]).tolist() == [[32, 32, 32, 32]]


@pytest.mark.parametrize("crop", ["series", "slice", "none"])
def test_a_warp_a_slice(hu: Tensor, crop: str) -> None:
    model, config = make(crop=crop), AugmentConfig(affine=1.0)
    matrices = warps(config, [(0, i) for i in range(3)])
    each = matrices.repeat_interleave(LENGTHS, dim=0)
    torch.testing.assert_close(images(model, hu, warp=each), images(model, hu, warp=matrices), atol=1e-4, rtol=1e-4)
    different = warps(config, [(0, i) for i in range(6)])
    found = images(model, hu, warp=different)
    boxes = model.crop_boxes(hu, LENGTHS)
    for k in range(6):
        series = 0 if k < 3 else 1 if k < 4 else 2
        box = boxes[k : k + 1] if crop == "slice" else boxes[series : series + 1]
        alone = images(model, hu[k : k + 1], torch.tensor([1]), warp=different[k : k + 1], boxes=box)
        torch.testing.assert_close(found[k : k + 1], alone, atol=1e-4, rtol=1e-4)


# ---- neighbours ----------------------------------------------------------------------------------------------------


def by_hand(hu: Tensor, lengths: Tensor, n: int) -> Tensor:
    """(S, 2n + 1, H, W): each slice between its neighbours, the last ones of a series again beyond its ends."""
    stacks = []
    for series in hu.split(lengths.tolist()):
        places = [[min(max(k + step, 0), len(series) - 1) for step in range(-n, n + 1)] for k in range(len(series))]
        stacks.append(torch.stack([torch.stack([series[place] for place in row]) for row in places]))
    return torch.cat(stacks)


def between_neighbours(hu: Tensor, lengths: Tensor, n: int) -> Tensor:
    """The same as batches have it, where there is no slice beyond the ends of a series."""
    stack, row = by_hand(hu, lengths, n), 0
    for count in lengths.tolist():
        for k in range(count):
            there = [0 <= k + step < count for step in range(-n, n + 1)]
            stack[row, ~torch.tensor(there)] = NO_SLICE_HU
            row += 1
    return stack


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("window_first", [False, True])
@pytest.mark.parametrize("n", [1, 2, 4])
def test_beyond_the_ends_is_a_slice_of_zeros_if_asked_for(
    hu: Tensor, n: int, window_first: bool, normalise: bool
) -> None:
    settings = {"window_first": window_first, "normalise": normalise}
    alone = images(make(**settings), hu)
    black = [-CHANNEL_MEAN[name] / CHANNEL_STD[name] if normalise else 0.0 for name in DEFAULT_WINDOWS]
    there = between_neighbours(torch.zeros_like(hu), LENGTHS, n)[:, :, 0, 0] != NO_SLICE_HU
    expected = by_hand(alone, LENGTHS, n)  # (S, 2n + 1, C, size, size)
    expected[~there] = torch.tensor(black)[:, None, None]
    assert (~there).any()
    found = images(make(neighbours=n, edge="zero", **settings), hu)
    torch.testing.assert_close(found, expected.flatten(1, 2), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("window_first", [False, True])
@pytest.mark.parametrize("n", [1, 2, 4])
def test_channels_are_those_of_the_neighbouring_slices(hu: Tensor, n: int, window_first: bool) -> None:
    plain = make(window_first=window_first)
    model = make(window_first=window_first, neighbours=n)
    assert model.backbone.conv1[0].weight.shape[1] == model.input_channels == 3 * (2 * n + 1)
    alone = images(plain, hu)  # a box for the series, so that a slice looks the same wherever it is seen
    expected = by_hand(alone, LENGTHS, n).flatten(1, 2)
    torch.testing.assert_close(images(model, hu), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.images(hu, LENGTHS), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("window_first", [False, True])
@pytest.mark.parametrize("crop", ["series", "slice", "none"])
@pytest.mark.parametrize("per", ["series", "slice", None])
@pytest.mark.parametrize("edge", ["repeat", "zero"])
def test_neighbours_are_the_same_in_any_chunk_batch_or_shape(
    hu: Tensor, crop: str, window_first: bool, per: str | None, edge: str
) -> None:
    model = make(crop=crop, window_first=window_first, neighbours=1, edge=edge)
    boxes = model.crop_boxes(hu, LENGTHS)
    matrices = (
        None if per is None else warps(AugmentConfig(affine=1.0), [(0, i) for i in range(6 if per == "slice" else 3)])
    )
    whole = images(model, hu, boxes=boxes, warp=matrices)
    for chunk in (1, 2, 4):
        model.chunk_size = chunk
        torch.testing.assert_close(images(model, hu, boxes=boxes, warp=matrices), whole, atol=1e-4, rtol=1e-4)
    # The shape in which batches of slices come: each of them with its neighbours.
    stack, series = between_neighbours(hu, LENGTHS, 1), torch.tensor([0, 0, 0, 1, 2, 2])
    boxes = boxes if crop == "slice" else boxes[series]
    matrices = matrices if matrices is None or per == "slice" else matrices[series]
    for rows in ([0, 1, 2, 3, 4, 5], [4, 0], [2], [5, 3, 1]):
        warp = None if matrices is None else matrices[rows]
        found = images(model, stack[rows], torch.ones(len(rows), dtype=torch.int64), boxes=boxes[rows], warp=warp)
        torch.testing.assert_close(found, whole[rows], atol=1e-4, rtol=1e-4)
    assert torch.equal(model.crop_boxes(stack, LENGTHS), model.crop_boxes(hu, LENGTHS))


@pytest.mark.parametrize("crop", ["series", "slice"])
def test_neighbours_beyond_a_series_are_not_read(hu: Tensor, crop: str) -> None:
    model = make(crop=crop, neighbours=2)
    together = images(model, hu)
    for first, n in ((0, 3), (3, 1), (4, 2)):
        alone = images(model, hu[first : first + n], torch.tensor([n]))
        torch.testing.assert_close(alone, together[first : first + n], atol=1e-4, rtol=1e-4)
    padded = torch.full((6, 80, 72), AIR_HU, dtype=torch.int16)
    padded[:, :64, :64] = hu
    sizes = [(64, 64)] * 3
    torch.testing.assert_close(images(model, padded, sizes=sizes), together, atol=1e-4, rtol=1e-4)
    mixed = images(model, padded, sizes=[(64, 64), (80, 72), (64, 64)])  # larger in the middle
    torch.testing.assert_close(mixed[[0, 1, 2, 4, 5]], together[[0, 1, 2, 4, 5]], atol=1e-4, rtol=1e-4)


def test_a_wrong_number_of_neighbours_is_refused(hu: Tensor) -> None:
    with pytest.raises(ConfigError, match=r"model\.neighbours is -1"):
        make(neighbours=-1)
    with pytest.raises(ValueError, match=r"3 slices seen together; model\.neighbours is 2"):
        make(neighbours=2).embed(by_hand(hu, LENGTHS, 1), LENGTHS)
    with pytest.raises(ValueError, match="has to be"):
        make().embed(hu[0], LENGTHS)


# ---- the centre, as it is ------------------------------------------------------------------------------------------


def of_centre(hu: np.ndarray, side: int) -> np.ndarray:
    """By OpenCV and slicing: resized by area or cut around the centre, windowed, padded with black, -1..1."""
    rows, columns = hu.shape
    image = hu.astype(np.float32)
    if max(rows, columns) > 1.25 * side:
        image = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    top, left = (max((count - side) // 2, 0) for count in image.shape)
    image = image[top : top + side, left : left + side]
    windows = [WINDOWS[name] for name in ("brain", "bone")]
    seen = np.stack([np.clip((image - centre + width / 2) / width, 0, 1) for centre, width in windows])
    below, right = (side - count for count in image.shape)
    margins = ((0, 0), (below // 2, below - below // 2), (right // 2, right - right // 2))
    return 2 * np.pad(seen, margins) - 1


@pytest.mark.parametrize("window_first", [False, True])
@pytest.mark.parametrize("size", [(48, 48), (31, 40), (60, 49), (50, 35), (90, 120), (96, 96), (61, 200)])
def test_the_centre_is_cut_padded_or_resized_by_area(size: tuple[int, int], window_first: bool) -> None:
    model = make(crop="centre", windows=["brain", "bone"], normalise="symmetric", window_first=window_first)
    hu = torch.randint(-1100, 2400, (2, *size), generator=torch.Generator().manual_seed(0)).to(torch.int16)
    found = images(model, hu, torch.tensor([2]))
    for slice_, seen in zip(hu.numpy(), found.numpy(), strict=True):
        wanted = of_centre(slice_, 48)
        if min(size) < 48 and max(size) > 60:
            continue  # OpenCV does not take areas where it enlarges
        assert np.abs(seen - wanted).max() < 2e-4
    whole = torch.eye(3)[None]
    assert torch.allclose(images(model, hu, torch.tensor([2]), warp=whole), found, atol=0.02)


def test_the_box_of_the_centre_is_the_square_that_is_seen() -> None:
    model = make(crop="centre", normalise=False)
    for rows, columns in ((48, 48), (31, 40), (60, 49), (50, 35)):
        hu = torch.full((1, rows, columns), AIR_HU, dtype=torch.int16)
        hu[0, rows // 3, columns // 2] = 40
        x, y, half_width, half_height = model.crop_boxes(hu, torch.tensor([1]))[0].tolist()
        assert half_width == half_height == 24
        seen = images(model, hu, torch.tensor([1]))[0, 0]
        row, column = (int(k) for k in (seen == seen.max()).nonzero()[0])
        assert (row + y - 24, column + x - 24) == (rows // 3, columns // 2)


def test_a_neighbour_beyond_the_end_is_black_at_the_centre_too() -> None:
    model = make(crop="centre", windows=["brain", "bone"], normalise="symmetric", neighbours=1, edge="zero")
    hu = torch.randint(0, 80, (3, 40, 40), generator=torch.Generator().manual_seed(0)).to(torch.int16)
    seen = images(model, hu, torch.tensor([3]))  # (3, 3 x 2, 48, 48)
    assert (seen[0, :2] == -1).all()
    assert (seen[2, 4:] == -1).all()
    assert torch.equal(seen[0, 2:4], seen[1, :2])
    assert torch.equal(seen[2, 2:4], seen[1, 4:])


def test_the_range_that_is_read_reaches_as_far_as_the_windows() -> None:
    assert range_read(DEFAULT_WINDOWS) == HU_RANGE
    assert range_read(["brain", "bone"]) == (-800, 2000)
    with pytest.raises(ConfigError, match=r"bone.*model.normalise=false, or symmetric"):
        make(windows=["bone"])
