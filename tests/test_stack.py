"""Where slices are missing, and where the steps change without one missing."""

import numpy as np
import pytest

from ichseq.ct.elements import NO_NUMBER
from ichseq.ct.stack import Gap, far_apart, gaps, in_turn, is_useless

WITHOUT = np.full(200, NO_NUMBER)


def tilted(places: np.ndarray) -> np.ndarray:
    """As a tilted gantry writes them: a little off."""
    return places + np.random.default_rng(len(places)).normal(0, 0.01, len(places))


@pytest.mark.parametrize("step", [0.625, 5.0])
@pytest.mark.parametrize("missing", [[9], [9, 10, 11], [4, 15, 16], [20, 24]])
def test_what_is_taken_out_is_found(step: float, missing: list[int]) -> None:
    places = np.delete(step * np.arange(40), missing)
    found = gaps(places, WITHOUT[: len(places)])
    assert sum(gap.missing for gap in found) == len(missing)
    for gap in found:
        assert np.isin(np.round(np.arange(gap.start + step, gap.end - step / 2, step) / step), missing).all()


def test_of_many_that_are_missing_all_are_counted() -> None:
    rng = np.random.default_rng(5)
    left = np.sort(rng.choice(60, 30, replace=False))
    assert 1 in np.diff(left)
    found = gaps(5.0 * left, WITHOUT[:30])
    assert sum(gap.missing for gap in found) == np.ptp(left) + 1 - 30
    assert in_turn(5.0 * left) is None


@pytest.mark.parametrize("numbers", [np.arange(1, 41), np.arange(40, 0, -1), np.arange(3, 83, 2)])
def test_numbers_tell_of_a_gap_beside_the_first_slice(numbers: np.ndarray) -> None:
    places = np.delete(5.0 * np.arange(40), [1, 2])
    assert gaps(places, WITHOUT[:38]) == []
    assert gaps(places, np.delete(numbers, [1, 2])) == [Gap(2, 0.0, 15.0)]


@pytest.mark.parametrize(
    "steps",
    [
        [4.0] * 13 + [1.08] + [7.0] * 13,  # the GE scan
        [2.5] * 12 + [5.0] * 12,
        [3.0] * 8 + [4.4] + [6.0] * 10 + [3.0] * 4,
        [5.0] * 20,
    ],
)
def test_zones_of_other_distances_are_whole(steps: list[float]) -> None:
    places = tilted(np.concatenate([[0.0], np.cumsum(steps)]))
    for numbers in (WITHOUT[: len(places)], np.arange(len(places)), np.arange(len(places))[::-1]):
        assert gaps(places, numbers) == []
    assert in_turn(places) is None


def test_numbers_of_an_export_of_chosen_slices_are_no_gaps() -> None:
    """Every second number, or numbers in any order: they tell nothing."""
    places = 5.0 * np.arange(20)
    for numbers in (2 * np.arange(20), np.random.default_rng(0).permutation(20), np.ones(20, int)):
        assert gaps(places, numbers) == []


@pytest.mark.parametrize("offset", [0.05, 1.0, 1.7, 2.2])
@pytest.mark.parametrize("overlap", [4, 20])
def test_two_passes_between_each_other_change_their_steps_in_turn(offset: float, overlap: int) -> None:
    first = 5.0 * np.arange(20)
    places = np.sort(np.concatenate([first, first + 5.0 * (20 - overlap) + offset]))
    low, high = in_turn(places) or (0, 0)
    assert (low, high) == pytest.approx((offset, 5 - offset))
    assert gaps(places, WITHOUT[: len(places)]) == []


@pytest.mark.parametrize(
    ("values", "useless"),
    [
        ([0] * 20, True),
        ([0] * 19 + [5], True),
        ([3, 3, 3], True),
        ([3, 3], False),
        ([0, 0, 0, 5, 5, 5], False),  # three times of two places
        ([0, 1, 2, 3, 3], False),
    ],
)
def test_positions_that_are_nearly_all_the_same_are_none(values: list[float], useless: bool) -> None:
    assert is_useless(np.array(values, np.float64), 0.01) == useless


def test_places_far_apart_are_of_several_heads_and_long_series_of_one() -> None:
    two = np.concatenate([5.0 * np.arange(30), -600 + 4.0 * np.arange(20)])
    assert sorted(map(len, far_apart(two))) == [20, 30]
    for one in (5.0 * np.arange(200), np.array([0, 5, 10, 130, 135, 140.0]), np.array([0.0, 400])):
        assert len(far_apart(one)) == 1
