"""Devices: which one is taken, what memory is free on it, and what running out of it looks like."""

import gc
from typing import Final

import psutil
import torch

from ichseq.errors import ConfigError

USABLE: Final = 0.8
"""Share of the free memory that is planned with; the rest is for what is not counted."""


_WORDS: Final = (
    "can't allocate memory",
    "not enough memory",
    "bad_alloc",
    "could not create a primitive",
    "CUDA error: out of memory",  # outside torch's own allocator, as are the libraries' below
    "_STATUS_ALLOC_FAILED",
)


def choose_device(asked: str | torch.device = "auto") -> torch.device:
    """The device of that name; "auto" is a GPU if there is one, and else the CPU.

    Raises:
        ConfigError: no such device, or a GPU is asked for, and there is none.
    """
    there = torch.cuda.is_available()
    try:
        device = torch.device(("cuda" if there else "cpu") if asked == "auto" else asked)
    except RuntimeError:
        raise ConfigError(f"device {str(asked)!r} does not exist; name auto, cpu, cuda or cuda:1") from None
    if device.type == "cuda" and not there:
        raise ConfigError(f"device is {str(asked)!r}, and there is no GPU; leave it at auto, or set cpu")
    return device


def with_index(device: torch.device) -> torch.device:
    """The same device by its number: "cuda" alone is the current GPU, and not every call of torch takes it."""
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def free_bytes(device: torch.device) -> int:
    """Memory in bytes that this process can still take on a device, within its share of a GPU."""
    if device.type == "cuda":
        device = with_index(device)
        free, total = torch.cuda.mem_get_info(device)
        own = torch.cuda.memory_reserved(device)
        reusable = own - torch.cuda.memory_allocated(device)
        share = getattr(torch.cuda, "get_per_process_memory_fraction", lambda _device: 1.0)(device)
        return int(min(free + reusable, share * total - own + reusable))
    return psutil.virtual_memory().available


def out_of_memory(error: BaseException) -> bool:
    """Whether the error says that memory ran out, on a GPU or on the CPU."""
    # torch.OutOfMemoryError is a GPU's; the CPU's allocators raise a plain RuntimeError.
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or any(words in str(error) for words in _WORDS)


def release_memory(device: torch.device) -> None:
    """Give back what a failed try has left behind."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
