"""Batches on their way to the device: decoded ahead by threads, and sent there while it computes.

On a CPU the memory of batches is used again. On a GPU every thread owns one page-locked buffer, which it decodes into
and sends from on a stream of its own; the thread waits for the copy, and the loop that trains waits for nothing. Slices
are sent as int16.
"""

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import count
from typing import TypeVar

import numpy as np
import torch

from ichseq.data.batches import Allocate, Batch
from ichseq.devices import with_index

T = TypeVar("T")
B = TypeVar("B", bound=Batch)


def feed(
    tasks: Sequence[T],
    read: Callable[[T, Allocate], B],
    *,
    threads: int,
    device: torch.device | str = "cpu",
) -> Iterator[B]:
    """The tasks' batches on the device, in order, up to threads + 1 of them read before they are asked for.

    Args:
        tasks: what `read` takes, one a batch.
        read: gives a task's batch on the CPU, its slices in an array that the second argument has given.
        threads: 0 reads each batch when it is asked for.
        device: where the batches go.

    Raises:
        DataError: whatever `read` raises, when the batch is asked for.
    """
    device = with_index(torch.device(device))
    sender = _GpuSender(device, count()) if device.type == "cuda" else _CpuSender()

    def fetch(task: T) -> B:
        return sender.send(read(task, sender.allocate))

    if threads == 0:
        for task in tasks:
            yield sender.receive(fetch(task))
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="feed") as pool:
        waiting = deque(pool.submit(fetch, task) for task in tasks[: threads + 1])
        try:
            for k in range(len(tasks)):
                batch = waiting.popleft().result()
                if k + threads + 1 < len(tasks):
                    waiting.append(pool.submit(fetch, tasks[k + threads + 1]))
                yield sender.receive(batch)
        finally:
            for future in waiting:
                future.cancel()


class _CpuSender:
    """For the CPU: batches are where they are needed as soon as they are read; their memory is used again.

    New pages cost the system more than decoding into them, so the array of a batch that is no longer used is taken for
    the next one.
    """

    def __init__(self) -> None:
        self.free: list[np.ndarray] = []

    def allocate(self, shape: tuple[int, ...]) -> np.ndarray:
        size = int(np.prod(shape))
        try:
            buffer = self.free.pop()
        except IndexError:
            buffer = np.empty(0, np.int16)
        if len(buffer) < size:
            buffer = np.empty(size, np.int16)
        array = buffer[:size].reshape(shape)
        weakref.finalize(array, self.free.append, buffer).atexit = False  # a tensor made of it holds the array
        return array

    def send(self, batch: B) -> B:
        return batch

    def receive(self, batch: B) -> B:
        return batch


@cache
def _stream(device: torch.device, number: int) -> "torch.cuda.Stream":
    """The streams are kept: torch keeps the memory of a batch for each stream that it has ever seen."""
    return torch.cuda.Stream(device)


class _GpuSender(threading.local):
    """For a GPU: what a thread needs to send its batches, made when it first asks for it."""

    def __init__(self, device: torch.device, numbers: Iterator[int]) -> None:
        torch.cuda.set_device(device)  # of this thread, which would otherwise open the first GPU too
        self.device = device
        self.stream = _stream(device, next(numbers))
        self.buffer = torch.empty(0, dtype=torch.int16)

    def allocate(self, shape: tuple[int, ...]) -> np.ndarray:
        size = int(np.prod(shape))
        if len(self.buffer) < size:
            self.buffer = torch.empty(size, dtype=torch.int16, pin_memory=True)
        return self.buffer[:size].numpy().reshape(shape)

    def send(self, batch: B) -> B:
        with torch.cuda.stream(self.stream):
            sent = batch.to(self.device)
        self.stream.synchronize()  # from here on the buffer is free for the next batch
        return sent

    def receive(self, batch: B) -> B:
        current = torch.cuda.current_stream(self.device)
        for tensor in batch.device_tensors():
            tensor.record_stream(current)  # its memory is another stream's, which must not take it back too soon
        return batch
