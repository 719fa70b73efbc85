"""Batches: which series each step reads, and their slices stacked in order, decoded ahead by threads.

The plan of an epoch follows from (seed, epoch) and the set alone, so an interrupted epoch goes on where it stopped, and
the number of threads changes nothing.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ichseq.data.augment import derive_seed
from ichseq.data.index import Index
from ichseq.data.store import read_slices
from ichseq.labels import AIR_HU

T = TypeVar("T")
Item = tuple[int, int]  # series number, slice (-1: the whole series)


@dataclass(frozen=True)
class Batch:
    """Slices of some series, stacked in order.

    Attributes:
        items: the series (and slice) that each length stands for.
        hu: int16 (S, H, W) in HU, smaller series padded with air at the bottom and right.
        lengths: int64 (P,), slices of each item; they add up to S.
        sizes: true (rows, columns) of each item.
        labels: float32 (S, 6), NaN where unknown.
    """

    items: list[Item]
    hu: Tensor
    lengths: Tensor
    sizes: list[tuple[int, int]]
    labels: Tensor


def plan_epoch(
    index: Index, series: np.ndarray, *, batch: int, accumulate: int, processes: int, key: tuple[int, ...]
) -> list[list[list[list[Item]]]]:
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
            piles[pile].append((int(i), -1))
            loads[pile] += index.lengths[i]
        plan.append([piles[p * accumulate : (p + 1) * accumulate] for p in range(processes)])
    return plan


def plan_slices(
    index: Index, series: np.ndarray, *, batch: int, accumulate: int, processes: int, key: tuple[int, ...]
) -> list[list[list[list[Item]]]]:
    """Steps of an epoch over shuffled slices, for the slice stage; the same nesting as `plan_epoch`."""
    owner = np.repeat(series, index.lengths[series])
    within = np.concatenate([np.arange(n) for n in index.lengths[series]])
    order = np.random.default_rng(derive_seed("plan", *key)).permutation(len(owner))
    size = batch * accumulate * processes
    plan = []
    for start in range(0, len(order), size):
        step = [(int(owner[k]), int(within[k])) for k in order[start : start + size]]
        shares = [step[p :: processes * accumulate] for p in range(processes * accumulate)]
        plan.append([shares[p * accumulate : (p + 1) * accumulate] for p in range(processes)])
    return plan


def item_labels(index: Index, items: Sequence[Item]) -> np.ndarray:
    """float32 (S, 6): labels of the items' slices, stacked."""
    rows = [
        np.arange(index.offsets[i], index.offsets[i + 1]) if k < 0 else np.array([index.offsets[i] + k])
        for i, k in items
    ]
    return index.labels[np.concatenate(rows)] if rows else np.zeros((0, index.labels.shape[1]), np.float32)


def read_batch(index: Index, items: Sequence[Item]) -> Batch:
    """Decode the items' slices from the store into one stack.

    Raises:
        DataError: a store file is missing or damaged.
    """
    lengths = [int(index.lengths[i]) if k < 0 else 1 for i, k in items]
    sizes = [(int(index.shapes[i, 0]), int(index.shapes[i, 1])) for i, _ in items]
    shape = (sum(lengths), max((h for h, _ in sizes), default=0), max((w for _, w in sizes), default=0))
    same = all(size == shape[1:] for size in sizes)
    hu = np.empty(shape, np.int16) if same else np.full(shape, AIR_HU, np.int16)
    row = 0
    for (i, k), n, (h, w) in zip(items, lengths, sizes, strict=True):
        start, stop = (0, None) if k < 0 else (k, k + 1)
        path = index.store_path(i)
        if same:
            read_slices(path, start, stop, out=hu[row : row + n])
        else:
            hu[row : row + n, :h, :w] = read_slices(path, start, stop)
        row += n
    labels = torch.from_numpy(item_labels(index, items))
    return Batch(list(items), torch.from_numpy(hu), torch.tensor(lengths, dtype=torch.int64), sizes, labels)


def read_ahead(tasks: Sequence[T], read: Callable[[T], Batch], threads: int) -> Iterator[Batch]:
    """The tasks' batches in order, up to threads + 1 of them read before they are asked for; 0 threads: none."""
    if threads == 0:
        yield from map(read, tasks)
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="read") as pool:
        waiting = deque(pool.submit(read, task) for task in tasks[: threads + 1])
        try:
            for k in range(len(tasks)):
                batch = waiting.popleft().result()
                if k + threads + 1 < len(tasks):
                    waiting.append(pool.submit(read, tasks[k + threads + 1]))
                yield batch
        finally:
            for future in waiting:
                future.cancel()
