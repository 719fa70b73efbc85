"""The processes that train together: the devices and the precision they compute in, and what they exchange."""

import atexit
import warnings
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor

from ichseq.devices import with_index
from ichseq.errors import ConfigError


class Processes:
    """The processes of a training; one alone, most of the time.

    Attributes:
        accelerator: Hugging Face accelerate, for devices, precision and gradients over several processes.
        device: of this process.
        precision: by accelerate's name.
        count: how many processes there are.
        rank: this one's number.
        main: whether this is the first one, which writes.
    """

    def __init__(self, precision: str = "no") -> None:
        """To be made once a training, by every process; `precision` is a value of `train.precision`.

        Raises:
            ConfigError: a precision that this machine lacks.
        """
        # accelerate keeps the precision of the process's first training and raises for another.
        AcceleratorState._reset_state()
        self.accelerator = Accelerator(
            cpu=not torch.cuda.is_available(),  # else it takes no notice of torchrun on CPUs
            mixed_precision=choose_precision(precision),
            kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
        )
        self.device, self.precision = with_index(self.accelerator.device), str(self.accelerator.mixed_precision)
        self.count, self.rank = self.accelerator.num_processes, self.accelerator.process_index
        self.main = self.accelerator.is_main_process
        self._control: Any = None
        if self.count > 1:
            # For what the processes exchange by the CPU: asking a GPU would make each step wait for it.
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
        shared = torch.tensor(numbers, dtype=torch.int64)
        if self.count > 1:
            torch.distributed.broadcast(shared, 0, group=self._control)
        return shared.tolist()

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


def choose_precision(asked: str) -> str:
    """The precision by accelerate's name; "auto" is bf16, or fp16 where a GPU lacks it, and no mixing on a CPU.

    Raises:
        ConfigError: fp16 without a GPU.
    """
    if asked == "fp16" and not torch.cuda.is_available():
        raise ConfigError("train.precision is fp16, which needs a GPU; leave it at auto, or set bf16 or no")
    if asked != "auto":
        return asked
    if not torch.cuda.is_available():
        return "no"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def _end() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
