"""What the processes of a run tell each other."""

import atexit
import warnings
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor


class Processes:
    """The processes that train together; one alone, most of the time.

    Attributes:
        count: how many there are.
        rank: this one's number.
        main: whether this is the first one, which writes.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        """To be made once a training, by every process."""
        self.count, self.rank, self.main = (
            accelerator.num_processes, accelerator.process_index, accelerator.is_main_process
        )  # fmt: skip
        self._control: Any = None
        if self.count > 1:
            # For words between the processes, through the CPU: asking a GPU would make each step wait for it.
            self._control = torch.distributed.new_group(backend="gloo", timeout=timedelta(days=7))
            atexit.unregister(_end)  # of an earlier training of this process
            atexit.register(_end)
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)

    def sum(self, value: float) -> float:
        """The sum of all processes' values."""
        return self._reduced(torch.tensor(value, dtype=torch.float64), torch.distributed.ReduceOp.SUM)

    def largest(self, value: int) -> int:
        """The largest of all processes' values."""
        return int(self._reduced(torch.tensor(value), torch.distributed.ReduceOp.MAX))

    def _reduced(self, value: Tensor, how: Any) -> float:
        if self.count > 1:
            torch.distributed.all_reduce(value, how, group=self._control)
        return value.item()

    def of_the_first(self, numbers: Sequence[int]) -> list[int]:
        """The first process's numbers, for all."""
        told = torch.tensor(numbers, dtype=torch.int64)
        if self.count > 1:
            torch.distributed.broadcast(told, 0, group=self._control)
        return told.tolist()

    def wait(self) -> None:
        """Until every process is here."""
        if self.count > 1:
            torch.distributed.barrier(group=self._control)

    @torch.no_grad()
    def average(self, tensors: Sequence[Tensor]) -> None:
        """Put the mean over all processes in place of each tensor; they are floating, and on one device."""
        if self.count == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        torch.distributed.all_reduce(flat)
        parts = (flat / self.count).split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))


def _end() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
