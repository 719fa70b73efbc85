"""Which series, or slices of them, each step of an epoch reads.

The plan of an epoch follows from (seed, epoch) and the set alone, so an interrupted epoch goes on where it stopped.
"""

import numpy as np

from ichseq.data.batches import Item, item_lengths
from ichseq.data.index import Index
from ichseq.errors import DataError
from ichseq.seeds import derive_seed

Step = list[list[list[Item]]]
"""A step of training: step[process][micro-batch] is a list of items."""

Plan = list[Step]
"""The steps of an epoch, in order."""


def share_of_negatives(index: Index, series: np.ndarray, share: float, *, key: tuple[int, ...]) -> np.ndarray:
    """The series of every patient who bleeds, and of a share of the others, another one for each key.

    Raises:
        DataError: none are left.
    """
    if share == 1:
        return series
    bleeds = (index.exam_labels[series] == 1).any(axis=1)
    patients = index.patient_codes[series]
    bleeding = np.unique(patients[bleeds])
    others = np.setdiff1d(patients, bleeding)
    chosen = np.random.default_rng(derive_seed("negatives", *key)).permutation(others)[: round(share * len(others))]
    kept = series[np.isin(patients, bleeding) | np.isin(patients, chosen)]
    if not len(kept):
        raise DataError(f"{index.folder}: no patient bleeds, and train.negatives {share} leaves out all others")
    return kept


def plan_epoch(
    index: Index, series: np.ndarray, *, batch: int, accumulate: int, processes: int, key: tuple[int, ...]
) -> Plan:
    """Steps of an epoch over whole series: plan[step][process][micro-batch] is a list of items.

    Every series comes once. The series of a step are dealt to the processes by length, the longest first, so that
    each gets about the same number of slices; the last step may hold fewer, and a process then none.
    """
    order = np.random.default_rng(derive_seed("plan", *key)).permutation(series)
    size = batch * accumulate * processes
    plan = []
    for start in range(0, len(order), size):
        step = order[start : start + size]
        piles: list[list[Item]] = [[] for _ in range(processes * accumulate)]
        loads = np.zeros(len(piles))
        for i in step[np.argsort(-index.lengths[step], kind="stable")]:
            room = [k for k in range(len(piles)) if len(piles[k]) < batch]
            pile = min(room, key=lambda k: (loads[k], k))
            piles[pile].append(Item(int(i)))
            loads[pile] += index.lengths[i]
        plan.append([piles[p * accumulate : (p + 1) * accumulate] for p in range(processes)])
    return plan


def plan_windows(
    index: Index, series: np.ndarray, *, slices: int, batch: int, accumulate: int, processes: int, key: tuple[int, ...]
) -> Plan:
    """`plan_epoch`, but of every series only so many neighbouring slices, at a place that the key decides."""
    places = np.random.default_rng(derive_seed("window", *key)).random(index.n_series)

    def window(item: Item) -> Item:
        room = int(index.lengths[item.series]) - slices
        return Item(item.series, int(places[item.series] * (room + 1)), slices) if room > 0 else item

    plan = plan_epoch(index, series, batch=batch, accumulate=accumulate, processes=processes, key=key)
    return [[[[window(item) for item in items] for items in process] for process in step] for step in plan]


def short_scans(plan: Plan, index: Index, *, share: float, key: tuple[int, ...]) -> Plan:
    """The plan, but a share of its items are read as scans of their own that hold no more than some of their slices.

    How many is drawn from 1 to all, evenly in their logarithm, since scans of a few slices differ most.
    """
    if not share:
        return plan
    drawn = np.random.default_rng(derive_seed("short", *key)).random((index.n_slices, 3))  # a row a first slice

    def short(item: Item) -> Item:
        chance, length, place = drawn[index.offsets[item.series] + item.first]
        if chance >= share:
            return item
        most = item_lengths(index, [item])[0]
        slices = min(int((most + 1) ** length), most)
        return Item(item.series, item.first + int(place * (most - slices + 1)), slices, alone=True)

    return [[[[short(item) for item in items] for items in process] for process in step] for step in plan]


def plan_slices(
    index: Index, series: np.ndarray, *, batch: int, accumulate: int, processes: int, key: tuple[int, ...]
) -> Plan:
    """Steps of an epoch over shuffled slices, for the slice stage; the same nesting as `plan_epoch`."""
    owner = np.repeat(series, index.lengths[series])
    within = np.concatenate([np.arange(n) for n in index.lengths[series]])
    order = np.random.default_rng(derive_seed("plan", *key)).permutation(len(owner))
    size = batch * accumulate * processes
    plan = []
    for start in range(0, len(order), size):
        step = [Item(int(owner[k]), int(within[k]), 1) for k in order[start : start + size]]
        shares = [step[p :: processes * accumulate] for p in range(processes * accumulate)]
        plan.append([shares[p * accumulate : (p + 1) * accumulate] for p in range(processes)])
    return plan
