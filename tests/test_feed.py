"""Batches come in their order, the same however many threads read them, and no sooner than they are needed."""

import dataclasses
import itertools
from pathlib import Path

import pytest
import torch

from ichseq.data.batches import Allocate, Item, SliceBatch, read_batch
from ichseq.data.feed import feed
from ichseq.data.index import Index
from ichseq.errors import DataError


@pytest.fixture(scope="module")
def index(prepared: Path) -> Index:
    return Index.load(prepared)


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_nothing(index: Index, threads: int) -> None:
    def read(items: list[Item], allocate: Allocate) -> SliceBatch:
        return read_batch(index, items, allocate)

    tasks = [[Item(i), Item(j, 0, 1)] for i, j in itertools.permutations(range(4), 2)]
    alone = list(feed(tasks, read, threads=0))
    ahead = list(feed(tasks, read, threads=threads))
    assert [batch.items for batch in ahead] == tasks == [batch.items for batch in alone]
    assert all(torch.equal(a.hu, b.hu) for a, b in zip(alone, ahead, strict=True))
    assert list(feed([], read, threads=threads)) == []


@pytest.mark.parametrize("threads", [0, 3])
def test_an_error_of_a_reader_comes_in_its_turn(index: Index, threads: int, tmp_path: Path) -> None:
    lacking = dataclasses.replace(index, folder=tmp_path)  # no store there

    def read(number: int, allocate: Allocate) -> SliceBatch:
        return read_batch(lacking if number == 2 else index, [Item(0, 0, 1)], allocate)

    batches = feed(range(4), read, threads=threads)
    next(batches), next(batches)
    with pytest.raises(DataError, match="store"):
        next(batches)


@pytest.mark.parametrize("threads", [1, 3])
def test_no_more_is_read_than_is_needed_soon(index: Index, threads: int) -> None:
    started = []

    def read(number: int, allocate: Allocate) -> SliceBatch:
        started.append(number)
        return read_batch(index, [Item(0, 0, 1)], allocate)

    batches = feed(range(50), read, threads=threads)
    next(batches)
    batches.close()  # waits for what is under way
    assert len(started) <= threads + 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("threads", [0, 1, 3])
def test_on_a_gpu_the_batches_are_those_of_the_cpu(index: Index, threads: int) -> None:
    def read(items: list[Item], allocate: Allocate) -> SliceBatch:
        return read_batch(index, items, allocate)

    tasks = [[Item(i)] for i in range(index.n_series)] * 3  # so often that every buffer is used again
    there = [batch.hu.clone() for batch in feed(tasks, read, threads=threads, device="cuda")]
    here = [batch.hu for batch in feed(tasks, read, threads=0)]
    assert all(a.is_cuda and torch.equal(a.cpu(), b) for a, b in zip(there, here, strict=True))
