"""Embeddings of a set are computed once, for one backbone and one set, and taken up where they were left."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from ichseq import Model
from ichseq.data.batches import Item, read_batch
from ichseq.data.index import Index
from ichseq.errors import RunError
from ichseq.files import locked
from ichseq.training.embeddings import PartialEmbeddings, embedding_key, set_embeddings
from ichseq.training.processes import Processes
from ichseq.training.stopping import StopRequest


@pytest.fixture
def index(prepared: Path, tmp_path: Path) -> Index:
    without = shutil.ignore_patterns("embeddings")  # of a frozen stage that another test has trained
    return Index.load(Path(shutil.copytree(prepared, tmp_path / "set", ignore=without)))


def make(seed: int = 0, **settings: object) -> Model:
    torch.manual_seed(seed)
    return Model("test_resnet", image_size=32, hidden_size=8, **settings)


def compute(model: Model, index: Index, dtype: str = "float32", request: StopRequest | None = None) -> np.ndarray:
    return set_embeddings(
        model, index, dtype=dtype, threads=1, processes=Processes(), request=request or StopRequest(),
        progress=lambda _: None,
    )  # fmt: skip


def test_they_are_the_models(index: Index) -> None:
    model = make()
    found = compute(model, index)
    assert found.shape == (index.n_slices, model.features)
    for i in range(index.n_series):
        batch = read_batch(index, [Item(i)])
        with torch.inference_mode():
            expected = model.eval().embed(batch.hu, batch.lengths).numpy()
        assert np.allclose(found[index.offsets[i] : index.offsets[i + 1]], expected, atol=1e-6)
    half = compute(model, index, "float16")
    assert half.dtype == np.float16
    assert np.allclose(half, found, atol=1e-2)


def test_they_are_computed_once(index: Index) -> None:
    model = make()
    first = compute(model, index)
    read = model.backbone_slices
    assert read == index.n_slices
    again = make()
    assert np.array_equal(compute(again, index), first)
    assert again.backbone_slices == 0
    assert {path.suffix for path in (index.folder / "embeddings").iterdir()} <= {".npy", ".lock"}


def test_the_key_follows_what_decides_them(index: Index) -> None:
    plain = embedding_key(make(), index, "float32", "no")
    assert plain == embedding_key(make(dropout=0.5), index, "float32", "no")
    others = [
        embedding_key(make(1), index, "float32", "no"),
        embedding_key(make(crop="none"), index, "float32", "no"),
        embedding_key(make(neighbours=1), index, "float32", "no"),
        embedding_key(make(), index, "float16", "no"),
        embedding_key(make(), index, "float32", "bf16"),
    ]
    assert len({plain, *others}) == 6


def test_stopped_and_taken_up_again(index: Index) -> None:
    model, request = make(), StopRequest()
    request.code = 143
    with pytest.raises(InterruptedError):
        compute(model, index, request=request)  # after the first series
    assert model.backbone_slices < index.n_slices
    again = make()
    found = compute(again, index)
    assert 0 < again.backbone_slices < index.n_slices
    shutil.rmtree(index.folder / "embeddings")
    assert np.allclose(compute(make(), index), found, atol=1e-6)


def lock_of(model: Model, index: Index) -> Path:
    return index.folder / "embeddings" / f".{embedding_key(model, index, 'float32', 'no')}.lock"


def test_another_run_waits_and_takes_what_the_first_computed(index: Index) -> None:
    second = make()
    with ThreadPoolExecutor(1) as thread:
        with locked(lock_of(second, index), lambda: True):
            waiting = thread.submit(compute, second, index)
            time.sleep(1)
            assert not waiting.done()
        found = waiting.result(60)
    assert second.backbone_slices == index.n_slices
    assert np.array_equal(compute(make(), index), found)


def test_one_that_waits_can_be_stopped(index: Index) -> None:
    model, request = make(), StopRequest()
    request.code = 143
    with locked(lock_of(model, index), lambda: True), pytest.raises(InterruptedError):
        compute(model, index, request=request)
    assert model.backbone_slices == 0


def test_embeddings_that_lack_a_series_are_never_put_into_place(index: Index, tmp_path: Path) -> None:
    work = PartialEmbeddings(tmp_path / "x.part", index, 4, "float32", Processes())
    for series in range(index.n_series):
        work.write(series, np.full((index.lengths[series], 4), series, np.float32))
        if series == index.n_series - 3:
            work.mark()
    with pytest.raises(RunError, match="2 series have no embeddings"):
        work.finish(tmp_path / "x.npy")
    assert not (tmp_path / "x.npy").exists()
    again = PartialEmbeddings(tmp_path / "x.part", index, 4, "float32", Processes())
    assert np.flatnonzero(~again.done).tolist() == [index.n_series - 2, index.n_series - 1]
    work.mark()
    work.finish(tmp_path / "x.npy")
    found = np.load(tmp_path / "x.npy")
    assert np.array_equal(found[:, 0], np.repeat(np.arange(index.n_series), index.lengths))
