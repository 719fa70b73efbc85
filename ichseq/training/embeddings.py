"""Embeddings of a whole prepared set, computed once for a backbone and kept beside the set for every run after.

    <prepared set>/embeddings/<key>.npy      (n_slices, D), float32 or float16
    <prepared set>/embeddings/<key>.part/    while they are computed: the same array, and a byte a series that is done

The key is a hash of the backbone's weights, the model's view of a slice, the set and the type, so that embeddings of
other weights or of another set are never taken for these.
"""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from ichseq.data.batches import read_batch
from ichseq.data.feed import feed
from ichseq.data.index import Index
from ichseq.errors import RunError
from ichseq.model import Model
from ichseq.training.stopping import StopRequest

T = TypeVar("T")

_SEEN_BY_THE_BACKBONE = ("backbone", "image_size", "windows", "normalise", "crop", "pool")


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
    accelerator: Accelerator,
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
        accelerator: the processes, the device and the precision.
        request: after SIGTERM or Ctrl-C, ends after the series in hand.
        progress: called with the number of series done, for each.

    Raises:
        RunError: the file can't be written.
        InterruptedError: stopped, as asked for; what is done is kept.
    """
    key = embedding_key(model, index, dtype, str(accelerator.mixed_precision))
    path = index.folder / "embeddings" / f"{key}.npy"
    if not path.is_file():
        with _explained(path):
            array, done = _begin(path, index, model.features, dtype, accelerator)
            _compute(model, index, array, done, threads, accelerator, request, progress)
            accelerator.wait_for_everyone()
            if accelerator.is_main_process:
                (path.with_suffix(".part") / "embeddings.npy").replace(path)
                (path.with_suffix(".part") / "done.npy").unlink()
                path.with_suffix(".part").rmdir()
            accelerator.wait_for_everyone()
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


def _begin(
    path: Path, index: Index, features: int, dtype: str, accelerator: Accelerator
) -> tuple[np.ndarray, np.ndarray]:
    """The arrays of the try at hand, an earlier one's if there is one; made by the first process."""
    folder = path.with_suffix(".part")
    files = {"embeddings.npy": (dtype, (index.n_slices, features)), "done.npy": ("bool", (index.n_series,))}
    if accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        for name, (kind, shape) in files.items():
            if not (folder / name).is_file():
                beside = folder / f"{name}.new"
                np.lib.format.open_memmap(beside, mode="w+", dtype=kind, shape=shape).flush()
                beside.replace(folder / name)
    accelerator.wait_for_everyone()
    return np.load(folder / "embeddings.npy", mmap_mode="r+"), np.load(folder / "done.npy", mmap_mode="r+")


@torch.inference_mode()
def _compute(
    model: Model,
    index: Index,
    array: np.ndarray,
    done: np.ndarray,
    threads: int,
    accelerator: Accelerator,
    request: StopRequest,
    progress: Callable[[int], object],
) -> None:
    model.eval()
    left = np.flatnonzero(~done)[accelerator.process_index :: accelerator.num_processes]
    progress(int(done.sum()))
    tasks = [[(int(i), -1)] for i in left]
    batches = feed(tasks, lambda items, allocate: read_batch(index, items, allocate), threads=threads,
                   device=accelerator.device)  # fmt: skip

    def embedded() -> Iterator[tuple[int, Tensor]]:
        for batch in batches:
            with accelerator.autocast():
                yield batch.items[0][0], model.embed(batch.hu, batch.lengths).float()

    for number, (i, embeddings) in enumerate(_one_behind(embedded())):
        array[index.offsets[i] : index.offsets[i + 1]] = embeddings.cpu().numpy()
        progress(1)
        if request.code or number % 100 == 99 or number + 1 == len(tasks):
            array.flush()  # type: ignore[attr-defined]  # before the marks that say so
            done[left[: number + 1]] = True
            done.flush()  # type: ignore[attr-defined]
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
