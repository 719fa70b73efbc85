"""Batches: what the store and the tables hold, whole series or parts of them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ichseq.data.batches import Item, item_labels, read_batch, read_embeddings
from ichseq.data.index import Index
from ichseq.data.prepare import prepare
from ichseq.data.store import read_slices
from ichseq.geometry import NO_SLICE_HU
from ichseq.phantom import write_phantoms
from ichseq.windows import AIR_HU


@pytest.fixture(scope="module")
def index(prepared: Path) -> Index:
    return Index.load(prepared)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Series of two sizes."""
    folder = tmp_path_factory.mktemp("mixed")
    for size in (32, 48):
        write_phantoms(folder / f"raw{size}", patients=1, test_patients=0, size=size, seed=size, workers=1)
    prepare(
        [folder / f"raw{size}" / "stage_2_train" for size in (32, 48)],
        folder / "set",
        labels=folder / "raw32" / "stage_2_train.csv",
        folds=2,
        workers=1,
    )
    return Index.load(folder / "set")


def test_a_batch_is_what_the_store_and_the_tables_hold(index: Index) -> None:
    items = [Item(4), Item(1), Item(7, 3, 1), Item(0), Item(7, 2, 4)]
    batch = read_batch(index, items)
    pieces = [read_slices(index.store_path(i))[k : None if n < 0 else k + n] for i, k, n, _ in items]
    assert np.array_equal(batch.hu.numpy(), np.concatenate(pieces))
    assert batch.hu.dtype == torch.int16
    assert batch.lengths.tolist() == [len(piece) for piece in pieces]
    assert batch.items == items
    assert batch.sizes == [(64, 64)] * 5
    known = [index.labels[index.offsets[i] : index.offsets[i + 1]] for i, *_ in items]
    labels = [own[k : None if n < 0 else k + n] for own, (_, k, n, _) in zip(known, items, strict=True)]
    assert np.array_equal(batch.labels.numpy(), np.concatenate(labels), equal_nan=True)
    assert batch.labels.nansum() > 0
    assert np.array_equal(item_labels(index, items), batch.labels.numpy(), equal_nan=True)


def test_whole_series_come_with_their_positions(index: Index) -> None:
    positions = read_batch(index, [Item(4), Item(1)]).positions_mm
    assert positions is not None
    rows = [index.positions_mm[index.offsets[i] : index.offsets[i + 1]] for i in (4, 1)]
    assert positions.dtype == torch.float32
    assert np.abs(positions.numpy() - np.concatenate(rows)).max() < 1e-3
    embedded = read_embeddings(index, [Item(4), Item(1)], np.zeros((index.n_slices, 2), np.float16))
    assert embedded.positions_mm is not None
    assert torch.equal(embedded.positions_mm, positions)
    moved = embedded.to(torch.device("meta")).positions_mm
    assert moved is not None
    assert moved.device.type == "meta"
    assert read_batch(index, [Item(4), Item(7, 3, 1)]).positions_mm is None  # slice 3 has no neighbours here


def test_a_share_may_be_empty(index: Index) -> None:
    batch = read_batch(index, [])
    assert (len(batch.hu), len(batch.lengths), len(batch.labels)) == (0, 0, 0)


@pytest.mark.parametrize("n", [1, 3])
def test_parts_of_series_come_with_their_neighbours(index: Index, mixed: Index, n: int) -> None:
    for one in (index, mixed):
        last = int(one.lengths[1]) - 1
        items = [Item(0, 0, 1), Item(1, last, 1), Item(1, 7, 1), Item(0, 2, 4), Item(1, last - 3, 4), Item(1)]
        batch = read_batch(one, items, neighbours=n)
        plain = read_batch(one, items)
        assert batch.hu.shape == (len(plain.hu), 2 * n + 1, *plain.hu.shape[1:])
        assert torch.equal(batch.hu[:, n], plain.hu)
        assert (batch.lengths.tolist(), batch.sizes) == (plain.lengths.tolist(), plain.sizes)
        row = 0
        for item, count, (h, w) in zip(items, batch.lengths.tolist(), batch.sizes, strict=True):
            whole = read_slices(one.store_path(item.series))
            for k in range(item.first, item.first + count):
                for place, seen in zip(range(k - n, k + n + 1), batch.hu[row, :, :h, :w].numpy(), strict=True):
                    there = 0 <= place < len(whole)
                    assert np.array_equal(seen, whole[place] if there else np.full((h, w), NO_SLICE_HU))
                row += 1
    small = int(np.argmin(mixed.shapes[:, 0]))
    padded = read_batch(mixed, [Item(small, 3, 1), Item(1 - small, 3, 1)], neighbours=n).hu[0]
    assert (padded[:, 32:] == AIR_HU).all()
    assert (padded[:, :, 32:] == AIR_HU).all()
    assert read_batch(index, [Item(0), Item(2)], neighbours=n).hu.ndim == 3  # they are there already
    assert read_batch(index, [], neighbours=n).hu.ndim == 3


def test_mixed_sizes_are_padded_with_air(mixed: Index) -> None:
    assert sorted(mixed.shapes.tolist()) == [[32, 32], [48, 48]]
    small, large = (int(i) for i in np.argsort(mixed.shapes[:, 0]))
    batch = read_batch(mixed, [Item(large), Item(small)])
    n = int(mixed.lengths[large])
    assert batch.sizes == [(48, 48), (32, 32)]
    assert batch.hu.shape == (n + mixed.lengths[small], 48, 48)
    assert np.array_equal(batch.hu[:n].numpy(), read_slices(mixed.store_path(large)))
    assert np.array_equal(batch.hu[n:, :32, :32].numpy(), read_slices(mixed.store_path(small)))
    assert (batch.hu[n:, 32:] == AIR_HU).all()
    assert (batch.hu[n:, :, 32:] == AIR_HU).all()
    assert read_batch(mixed, [Item(small)]).hu.shape[1:] == (32, 32)  # alone it needs no padding
    known = ~batch.labels.isnan()
    assert not known[:n].any()  # the label file is the small one's
    assert known[n:].all()
