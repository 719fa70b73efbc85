"""Plans: every series once, shared out evenly, the same for the same key."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from ichseq.data.batches import Item, read_batch
from ichseq.data.index import Index
from ichseq.data.plan import plan_epoch, plan_slices, plan_windows, share_of_negatives, short_scans
from ichseq.errors import DataError

SHARING = [(1, 1, 1), (3, 1, 1), (2, 1, 2), (2, 2, 2), (1, 3, 3), (2, 1, 3)]  # batch, accumulate, processes


@pytest.fixture(scope="module")
def index(prepared: Path) -> Index:
    return Index.load(prepared)


def flat(plan: list[list[list[list[Item]]]]) -> list[Item]:
    return [item for step in plan for process in step for batch in process for item in batch]


@pytest.mark.parametrize(("batch", "accumulate", "processes"), SHARING)
def test_every_series_comes_once(index: Index, batch: int, accumulate: int, processes: int) -> None:
    series = index.training_series(0)
    plan = plan_epoch(index, series, batch=batch, accumulate=accumulate, processes=processes, key=(0, 1))
    assert sorted(flat(plan)) == [Item(i) for i in sorted(series.tolist())]
    patients = index.patient_codes[[item.series for item in flat(plan)]]
    assert sorted(patients) == sorted(index.patient_codes[series])
    assert not set(patients) & set(index.patient_codes[index.validation_series(0)])
    for number, step in enumerate(plan):
        assert [len(process) for process in step] == [accumulate] * processes
        sizes = [len(items) for process in step for items in process]
        assert max(sizes) <= batch
        if number + 1 < len(plan):
            assert sizes == [batch] * len(sizes)  # only the last step may hold fewer


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_get_about_the_same_number_of_slices(index: Index, processes: int) -> None:
    lengths = np.array([20, 90, 25, 80, 30, 70, 35, 60, 40, 50], np.int32)  # more unlike than the phantoms'
    uneven = dataclasses.replace(index, lengths=lengths)
    dealt, as_drawn = [], []
    for epoch in range(20):
        plan = plan_epoch(uneven, np.arange(10), batch=3, accumulate=1, processes=processes, key=(0, epoch))
        drawn = [sum(lengths[item.series] for items in process for item in items) for process in plan[0]]
        dealt.append(max(drawn) - min(drawn))
        order = np.random.default_rng(epoch).permutation(10)[: 3 * processes].reshape(processes, 3)
        as_drawn.append(np.ptp(lengths[order].sum(axis=1)))
    assert max(dealt) <= lengths.max()
    assert np.mean(dealt) < 0.5 * np.mean(as_drawn)


@pytest.mark.parametrize("make", [plan_epoch, plan_slices])
def test_a_key_decides_its_plan(index: Index, make: type[plan_epoch]) -> None:
    def plan(*key: int) -> list[list[list[list[Item]]]]:
        return make(index, index.training_series(0), batch=1, accumulate=1, processes=1, key=key)

    assert plan(0, 1) == plan(0, 1)
    different = {str(plan(seed, epoch)) for seed in range(4) for epoch in range(4)}
    assert len(different) == 16


@pytest.mark.parametrize(("batch", "accumulate", "processes"), [(32, 1, 1), (7, 2, 2), (5, 1, 3)])
def test_every_slice_comes_once(index: Index, batch: int, accumulate: int, processes: int) -> None:
    series = index.training_series(1)
    plan = plan_slices(index, series, batch=batch, accumulate=accumulate, processes=processes, key=(0, 0))
    assert sorted(flat(plan)) == [Item(int(i), k, 1) for i in series for k in range(index.lengths[i])]
    for step in plan:
        sizes = [len(items) for process in step for items in process]
        assert len(sizes) == accumulate * processes
        assert max(sizes) <= batch
        assert max(sizes) - min(sizes) <= 1
    first = [item.series for item in plan[0][0][0]]
    assert len(set(first)) > 1  # slices of many series are mixed


def test_windows_are_neighbouring_slices_of_every_series(index: Index) -> None:
    series = index.training_series(1)

    def windows(slices: int, epoch: int) -> list[Item]:
        return flat(plan_windows(index, series, slices=slices, batch=3, accumulate=1, processes=2, key=(0, epoch)))

    for item in windows(10, 0):
        assert item.slices == 10
        assert 0 <= item.first <= index.lengths[item.series] - 10
    assert sorted(item.series for item in windows(10, 0)) == sorted(series.tolist())
    assert windows(10, 0) == windows(10, 0)
    assert {item.first for item in windows(10, 0)} != {item.first for item in windows(10, 1)}
    assert all(item.whole for item in windows(1000, 0))
    places = {item.first for epoch in range(300) for item in windows(10, epoch) if item.series == series[0]}
    assert places == set(range(index.lengths[series[0]] - 9))  # the first and the last as well


def test_short_scans_hold_one_to_all_slices(index: Index) -> None:
    series = index.training_series(1)
    plan = plan_epoch(index, series, batch=3, accumulate=1, processes=2, key=(0, 0))

    def short(share: float, epoch: int) -> list[Item]:
        return flat(short_scans(plan, index, share=share, key=(0, epoch)))

    assert short(0, 0) == flat(plan)
    assert short(0.5, 0) == short(0.5, 0) != short(0.5, 1)
    every = [item for epoch in range(300) for item in short(1, epoch)]
    assert all(item.alone for item in every)
    assert [item.series for item in short(1, 0)] == [item.series for item in flat(plan)]
    length = int(index.lengths[series[0]])
    own = [item for item in every if item.series == series[0]]
    assert all(0 <= item.first <= length - item.slices for item in own)
    assert {1, 2, length} <= {item.slices for item in own}
    assert {0, length - 1} <= {item.first for item in own}
    share = np.mean([item.alone for epoch in range(300) for item in short(0.3, epoch)])
    assert abs(share - 0.3) < 0.05


def test_a_share_of_the_slices_is_read_as_scans_of_their_own(index: Index) -> None:
    plan = plan_slices(index, index.training_series(1), batch=8, accumulate=1, processes=1, key=(0, 0))
    items = flat(short_scans(plan, index, share=0.5, key=(0, 0)))
    assert [item[:3] for item in items] == [item[:3] for item in flat(plan)]
    assert 0.3 < np.mean([item.alone for item in items]) < 0.7


def test_all_who_bleed_and_a_share_of_the_others(index: Index) -> None:
    series = np.arange(index.n_series)
    bleeds = np.array([(read_batch(index, [Item(int(i))]).labels == 1).any().item() for i in series])
    assert 1 < (~bleeds).sum() < len(series)
    half = [share_of_negatives(index, series, 0.5, key=(0, epoch)) for epoch in range(20)]
    for kept in half:
        assert set(series[bleeds]) <= set(kept)
        assert len(kept) == bleeds.sum() + round(0.5 * (~bleeds).sum())
    assert len({tuple(kept) for kept in half}) > 1
    assert np.array_equal(half[0], share_of_negatives(index, series, 0.5, key=(0, 0)))
    assert np.array_equal(share_of_negatives(index, series, 0, key=(0, 0)), series[bleeds])
    assert np.array_equal(share_of_negatives(index, series, 1, key=(0, 0)), series)
    with pytest.raises(DataError, match="no patient bleeds"):
        share_of_negatives(index, series[~bleeds], 0, key=(0, 0))
