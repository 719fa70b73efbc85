"""Embeddings of a whole prepared set, computed once for a backbone and kept beside the set for every run after.

    <prepared set>/embeddings/<key>.npy      (n_slices, D), float32 or float16
    <prepared set>/embeddings/<key>.part/    while they are computed: the same array, and lists of the series done

The key is a hash of the backbone's weights, the model's view of a slice, the set and the type, so that embeddings of
other weights or of another set are never taken for these.
"""

import hashlib
import json
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ichseq.data.batches import Item, read_batch
from ichseq.data.feed import feed
from ichseq.data.index import Index
from ichseq.errors import RunError
from ichseq.files import flush, locked
from ichseq.model import Model
from ichseq.training.processes import Processes
from ichseq.training.stopping import StopRequest

T = TypeVar("T")

_SEEN_BY_THE_BACKBONE = ("backbone", "image_size", "windows", "neighbours", "normalise", "crop", "window_first",
                         "views", "pool", "cross_slice")  # fmt: skip


def embedding_key(model: Model, index: Index, dtype: str, precision: str) -> str:
    """Hash of everything that decides the embeddings."""
    view = {name: model.settings[name] for name in _SEEN_BY_THE_BACKBONE}
    digest = hashlib.blake2b(json.dumps([view, index.key, dtype, precision]).encode(), digest_size=16)
    for name, tensor in sorted(model.backbone.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def set_embeddings(
    model: Model,
    index: Index,
    *,
    dtype: str,
    threads: int,
    processes: Processes,
    request: StopRequest,
    progress: Callable[[int], object],
) -> np.ndarray:
    """Embeddings of all slices of a set, (n_slices, D), read from their file as they are asked for.

    Computed if they are not there: each process does its share of the series, and what an earlier try has done is kept.

    Args:
        model: on the device; its backbone reads every slice.
        index: the set.
        dtype: "float32" or "float16", as they are kept.
        threads: that read ahead.
        processes: which share the work; their precision is that of the backbone.
        request: after SIGTERM or Ctrl-C, ends after the series in hand.
        progress: called with the number of series done, for each.

    Raises:
        RunError: the file can't be written.
        InterruptedError: stopped, as asked for; what is done is kept.
    """
    path = index.folder / "embeddings" / f"{embedding_key(model, index, dtype, processes.precision)}.npy"
    with _explained(path), _alone(path, processes, request):
        if not path.is_file():
            work = PartialEmbeddings(path.with_suffix(".part"), index, model.features, dtype, processes)
            _compute(model, work, threads, processes, request, progress)
            processes.wait()
            if processes.main:
                work.finish(path)
            processes.wait()
    return np.load(path, mmap_mode="r")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except InterruptedError:
        raise
    except OSError as error:
        raise RunError(f"{path}: embeddings can't be kept there ({error.strerror}); make room, or make the prepared "
                       "set's folder writable") from None  # fmt: skip


@contextmanager
def _alone(path: Path, processes: Processes, request: StopRequest) -> Iterator[None]:
    """Keep other runs from computing the same embeddings; they wait until these are there and then take them."""
    if path.is_file() or not processes.main:
        processes.wait()
        yield
        return
    with locked(path.with_name(f".{path.stem}.lock"), lambda: bool(request.code)):
        processes.wait()
        yield


class PartialEmbeddings:
    """The embeddings of a set while they are computed; what an earlier try has done is taken over.

    Every process writes its own rows, and a list of its own of the series that are done.

    Attributes:
        done: (n_series,) bool, what earlier tries have done.
    """

    def __init__(self, folder: Path, index: Index, features: int, dtype: str, processes: Processes) -> None:
        """Make or open the folder; to be called by every process.

        Args:
            folder: for the array and the lists.
            index: the set.
            features: length D of an embedding.
            dtype: "float32" or "float16".
            processes: which share the work.
        """
        self.folder, self.index, self.rank = folder, index, processes.rank
        if processes.main:
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / "embeddings.npy").is_file():
                beside = folder / "embeddings.npy.new"
                shape = (index.n_slices, features)
                np.lib.format.open_memmap(beside, mode="w+", dtype=dtype, shape=shape).flush()
                beside.replace(folder / "embeddings.npy")
        processes.wait()
        array = np.load(folder / "embeddings.npy", mmap_mode="r")
        self._dtype, self._row_bytes = array.dtype, array.dtype.itemsize * features
        self._offset = int(array.offset)  # of the first row, behind the header
        self.done = self._done()
        processes.wait()  # until all have seen the same
        self._unmarked: list[int] = []

    def _done(self) -> np.ndarray:
        """(n_series,) bool."""
        done = np.zeros(self.index.n_series, bool)
        for path in self.folder.glob("done-*"):
            content = path.read_bytes()
            done[np.frombuffer(content[: len(content) // 8 * 8], np.int64)] = True
        return done

    def write(self, series: int, embeddings: np.ndarray) -> None:
        """Write a series' rows; it counts as done from the next `mark` on."""
        # Not through a map: two machines that map one file over a network write over each other's pages.
        with open(self.folder / "embeddings.npy", "r+b") as file:
            file.seek(self._offset + int(self.index.offsets[series]) * self._row_bytes)
            file.write(embeddings.astype(self._dtype).tobytes())
        self._unmarked.append(series)

    def mark(self) -> None:
        """Note what was written as done, once it lasts."""
        flush(self.folder / "embeddings.npy")
        with open(self.folder / f"done-{self.rank}", "ab") as file:
            file.write(np.array(self._unmarked, np.int64).tobytes())
        self._unmarked.clear()

    def finish(self, path: Path) -> None:
        """Put the embeddings into their place.

        Raises:
            RunError: some series are not done.
        """
        if not (done := self._done()).all():
            raise RunError(f"{self.folder}: {int((~done).sum())} series have no embeddings; train again with --resume")
        (self.folder / "embeddings.npy").replace(path)
        shutil.rmtree(self.folder, ignore_errors=True)


@torch.inference_mode()
def _compute(
    model: Model,
    work: PartialEmbeddings,
    threads: int,
    processes: Processes,
    request: StopRequest,
    progress: Callable[[int], object],
) -> None:
    model.eval()
    left = np.flatnonzero(~work.done)[processes.rank :: processes.count]
    progress(int(work.done.sum()))
    tasks = [[Item(int(i))] for i in left]
    batches = feed(tasks, partial(read_batch, work.index), threads=threads, device=model.device)

    def embedded() -> Iterator[tuple[int, Tensor]]:
        for batch in batches:
            with processes.accelerator.autocast():
                yield batch.items[0].series, model.embed(batch.hu, batch.lengths).float()

    for number, (i, embeddings) in enumerate(_one_behind(embedded()), 1):
        work.write(i, embeddings.cpu().numpy())
        progress(1)
        if request.code or number % 100 == 0 or number == len(tasks):
            work.mark()
        if request.code:
            raise InterruptedError


def _one_behind(items: Iterable[T]) -> Iterator[T]:
    """The same items, each given when the next one is under way, so that a GPU computes while its answer is fetched."""
    waiting: deque[T] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > 1:
            yield waiting.popleft()
    yield from waiting
