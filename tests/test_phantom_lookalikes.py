"""Look-alikes and lesions: each lies where it belongs, can be seen, and is drawn whatever bleeds."""

import copy

import numpy as np
import pytest

from ichseq.phantom import lesions, lookalikes, surgery
from ichseq.phantom.drawn import DrawnVolume, Grid, draw_volume
from ichseq.phantom.lookalikes import box_around, draw_by_chance, part_of
from ichseq.phantom.person import draw_person
from ichseq.phantom.scanner import Pose, head_axes

FUNCTIONS = [*lookalikes.CHANCES, *lesions.CHANCES, *surgery.CHANCES]


@pytest.fixture(scope="module")
def head() -> DrawnVolume:
    """A turned head on voxels of 2 x 2 x 4 mm."""
    across = np.arange(-124, 124, 2.0)
    grid = Grid(across, across, np.arange(-88.0, 92, 4), np.array([0, 1.0, 0]), np.array([0, 0, 1.0]))
    pose = Pose(np.zeros(3), head_axes(0.3, 0.1, 0.0))
    return draw_volume(draw_person(np.random.default_rng(8)), grid, pose)


def changed(head: DrawnVolume, name: str, seed: int) -> tuple[np.ndarray, DrawnVolume]:
    """By how much the function changes the head's HU, and the head that it changed."""
    own = copy.deepcopy(head)
    function = next(f for f in FUNCTIONS if f.__name__ == name)
    function(np.random.default_rng(seed), own)
    return own.hu - head.hu, own


@pytest.mark.parametrize("name", [f.__name__ for f in FUNCTIONS])
def test_it_shows_and_the_same_seed_shows_the_same(head: DrawnVolume, name: str) -> None:
    seen = 0
    for seed in range(6):
        change, _ = changed(head, name, seed)
        again, _ = changed(head, name, seed)
        np.testing.assert_array_equal(change, again)
        assert np.isfinite(change).all()
        share = float((np.abs(change) > 2).mean())
        assert share < 0.12, "most of the head stays as it is"
        seen += share > 0
    assert seen >= 3


@pytest.mark.parametrize(
    ("name", "centre", "reach"),
    [
        ("calcified_pineal", (0, 25, 1), 12),
        ("calcified_choroid", (21, 36, 6), 22),
        ("calcified_ganglia", (19, -3, 3), 66),
        ("dense_artery", (12, -5, -25), 52),
    ],
)
def test_dense_spots_lie_in_their_place(
    head: DrawnVolume, name: str, centre: tuple[float, float, float], reach: float
) -> None:
    for seed in range(4):
        change, _ = changed(head, name, seed)
        x, y, z = (p[change > 5] for p in head.place)
        gap = np.sqrt((np.abs(x) - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2)
        assert gap.size
        assert gap.max() < reach


def test_plaques_lie_in_the_falx(head: DrawnVolume) -> None:
    for seed in range(4):
        change, _ = changed(head, "calcified_falx", seed)
        assert head.falx_mm[change > 20].max() < 5


def test_lesions_of_the_brain_stay_within_the_skull(head: DrawnVolume) -> None:
    for name in ("infarct", "lacunes", "white_matter_disease", "wide_fluid"):
        for seed in range(3):
            change, _ = changed(head, name, seed)
            assert np.abs(change[head.depth_mm < -2]).max() == 0
            assert change.mean() <= 0, "darker"


def test_swelling_grows_outwards_and_leaves_brain_and_bone(head: DrawnVolume) -> None:
    for seed in range(4):
        change, _ = changed(head, "scalp_swelling", seed)
        assert np.abs(change[head.depth_mm > 1]).max() == 0
        assert np.abs(change[head.skull > 0.99]).max() < 1
        assert (change > 100).any(), "soft tissue where there was air or fat"


def test_a_craniotomy_takes_bone_away(head: DrawnVolume) -> None:
    for seed in range(4):
        change, after = changed(head, "craniotomy", seed)
        gone = head.skull - after.skull
        assert gone.min() >= 0
        assert gone.max() > 0.5
        assert change[gone > 0.6].max() < -100


def test_contrast_fills_vessels_and_not_the_brain(head: DrawnVolume) -> None:
    change, _ = changed(head, "contrast_medium", 1)
    away = (head.brain > 0.99) & (head.depth_mm > 14) & (np.abs(head.midline_mm) > 14) & (head.place[2] > 20)
    assert np.abs(change[away]).max() < 1
    sagittal = (np.abs(head.midline_mm) < 2) & (head.place[2] > 40) & (np.abs(head.depth_mm - 3) < 1.5)
    assert change[sagittal].mean() > 15


def test_each_is_drawn_by_its_own_chance(head: DrawnVolume) -> None:
    def first(rng: np.random.Generator, head: DrawnVolume) -> None:
        head.hu[0, 0, 0] += rng.random()

    def second(rng: np.random.Generator, head: DrawnVolume) -> None:
        head.hu[0, 0, 1] = rng.random()

    counts = {"first": 0, "second": 0}
    values = []
    for seed in range(400):
        own = part_of(head, (slice(0, 1), slice(0, 1), slice(0, 2)))
        own.hu = np.zeros((1, 1, 2), np.float32)
        for name in draw_by_chance(np.random.default_rng(seed), own, {first: 0.25, second: 0.6}):
            counts[name] += 1
        other = part_of(head, (slice(0, 1), slice(0, 1), slice(0, 2)))
        other.hu = np.zeros((1, 1, 2), np.float32)
        draw_by_chance(np.random.default_rng(seed), other, {first: 0.0, second: 0.6})
        values.append(own.hu[0, 0, 1] == other.hu[0, 0, 1])
    assert counts["first"] / 400 == pytest.approx(0.25, abs=0.08)
    assert counts["second"] / 400 == pytest.approx(0.6, abs=0.08)
    assert all(values), "what is drawn second does not depend on the first"


def test_a_box_holds_what_is_near(head: DrawnVolume) -> None:
    for centre, reach in (((20.0, 30.0, 10.0), 15), ((-50.0, -10.0, 40.0), 25), ((0.0, -60.0, -30.0), 8)):
        box = box_around(head, centre, reach)
        assert box is not None
        near = np.zeros(head.hu.shape, bool)
        near[box] = True
        gap = np.sqrt(sum((p - c) ** 2 for p, c in zip(head.place, centre, strict=True)))
        assert near[gap < reach].all()
        assert near.mean() < 0.5
    assert box_around(head, (0.0, 0.0, 400.0), 10) is None


def test_wide_spaces_are_fluid_below_the_skull_on_both_sides(head: DrawnVolume) -> None:
    for seed in range(4):
        change, after = changed(head, "wide_spaces", seed)
        dark = change < -8
        for side in (-1, 1):
            assert (dark & (side * head.place[0] > 4)).any()
        assert head.depth_mm[dark].max() < 25
        assert after.hu[dark].min() > -20


def test_thick_slices_show_bone_of_their_neighbours(head: DrawnVolume) -> None:
    change, _ = changed(head, "thick_slices", 1)
    assert change.min() >= 0
    beside = np.maximum(np.roll(head.hu, 1, 0), np.roll(head.hu, -1, 0))
    assert beside[1:-1][change[1:-1] > 1].min() > 60


def test_a_plate_stands_where_bone_was(head: DrawnVolume) -> None:
    for seed in range(4):
        _, after = changed(head, "cranioplasty", seed)
        gone = head.skull - after.skull > 0.6
        assert after.hu[gone].max() > 85
        assert after.hu[gone].mean() < head.hu[gone].mean()


def test_a_tumour_lies_in_the_brain(head: DrawnVolume) -> None:
    seen = 0
    for seed in range(6):
        change, _ = changed(head, "tumour", seed)
        assert np.abs(change[(head.depth_mm < -2) | (head.csf > 0.99) | (head.ventricles > 0.99)]).max() < 0.5
        seen += bool((change > 8).any())
    assert seen >= 3
