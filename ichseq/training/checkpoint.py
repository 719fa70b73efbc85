"""Checkpoints: everything that decides the next step, in safetensors and JSON, written beside and renamed into place.

    last/step-00000500/state.safetensors   model, optimizer, moving average and what a stage remembers, by prefixed name
    last/step-00000500/state.json          position, history, scaler, checksum of all this and the tensors

The last two are kept; if the newest is damaged, the one before is used.
"""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ichseq.config import Config, settings_without_effect
from ichseq.data.index import Index
from ichseq.errors import RunError
from ichseq.files import replacing
from ichseq.model import Model
from ichseq.runs.folders import epoch_folder, kept_epochs
from ichseq.training.memory_plan import MemoryPlan

FORMAT = 1
KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds: named tensors, a JSON state; and newer ones that were damaged, each with its fault."""

    tensors: dict[str, Tensor]
    state: dict[str, Any]
    damaged: dict[Path, str]

    def drop_damaged(self) -> list[str]:
        """Remove the damaged ones, which would count among those that are kept; a line for each."""
        for path in self.damaged:
            shutil.rmtree(path, ignore_errors=True)
        return [f"{path}: damaged ({fault}); going back to the checkpoint before it" for path, fault in
                self.damaged.items()]  # fmt: skip


def write_checkpoint(folder: Path, step: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write the checkpoint of a step into `folder` and drop all but the last two.

    Raises:
        RunError: the file system refuses; earlier checkpoints are as they were.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / f"step-{step:08d}") as beside:
            beside.mkdir()
            save_file({k: t.detach().cpu().contiguous() for k, t in tensors.items()}, beside / "state.safetensors")
            state = json.loads(json.dumps({**state, "format": FORMAT, "step": step}))  # as it will be read
            state["checksum"] = _checksum(beside / "state.safetensors", state)
            (beside / "state.json").write_text(json.dumps(state), encoding="utf-8")
    except (OSError, safetensors.SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RunError(f"{folder}: the checkpoint can't be written ({reason}); the one before is intact") from None
    for old in _found(folder)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def read_checkpoint(folder: Path) -> Checkpoint:
    """The newest whole checkpoint of `folder`.

    Raises:
        RunError: there is none.
    """
    damaged: dict[Path, str] = {}
    for path in reversed(_found(folder)):
        try:
            state = json.loads((path / "state.json").read_text(encoding="utf-8"))
            if state["format"] > FORMAT:
                raise RunError(f"{path}: written by a newer ichseq; update this one (pip install -U ichseq)")
            if state["checksum"] != _checksum(path / "state.safetensors", state):
                raise ValueError("its checksum differs")
            return Checkpoint(load_file(path / "state.safetensors"), state, damaged)
        except (OSError, ValueError, KeyError, TypeError, RecursionError, safetensors.SafetensorError) as error:
            damaged[path] = str(error)
    count = f" ({len(damaged)} damaged)" if damaged else ""
    raise RunError(f"{folder.parent}: nothing to resume{count}; train without --resume, or name another run with -o")


def has_checkpoint(folder: Path) -> bool:
    """Whether there is a checkpoint in the folder, whole or damaged."""
    return bool(_found(folder))


def check_same(saved: Checkpoint, config: Config, index: Index, leaf: Path) -> None:
    """See that a checkpoint is of this set and these settings, apart from those that change no result.

    Raises:
        RunError: it is not.
    """
    if saved.state["data_key"] != index.key:
        raise RunError(f"{leaf}: was trained on another prepared set than {index.folder}; resume it with --data set to "
                       "that one")  # fmt: skip
    was = saved.state["config"]
    free = settings_without_effect(live_batch_norm=not saved.state["freeze_bn"])
    for section, values in config.to_dict().items():
        for key, value in values.items():
            if value != was[section].get(key) and (section, key) not in free:
                raise RunError(f"{leaf}: {section}.{key} was {was[section].get(key)!r} and is now {value!r}; a resumed "
                               "run keeps its settings, start a new one with -o")  # fmt: skip


def check_same_machine(saved: Checkpoint, machine: dict[str, Any], leaf: Path) -> None:
    """See that a run goes on with as many processes as before, which share out an epoch, and in the same precision.

    Raises:
        RunError: it does not.
    """
    was = saved.state["machine"]
    if was["processes"] != machine["processes"]:
        raise RunError(f"{leaf}: was trained by {was['processes']} processes and would go on with "
                       f"{machine['processes']}; resume it with as many (torchrun --nproc-per-node)")  # fmt: skip
    if was["precision"] != machine["precision"]:
        raise RunError(f"{leaf}: was trained in precision {was['precision']!r} and would go on in "
                       f"{machine['precision']!r}; resume it on a device like the first one")  # fmt: skip


def saved_plan(saved: Checkpoint, config: Config) -> MemoryPlan | None:
    """The plan that a resumed run followed; None if it is now asked for another recomputation or chunk."""
    was = saved.state["config"]["train"]
    if (was["checkpointing"], was["chunk_size"]) != (config.train.checkpointing, config.train.chunk_size):
        return None
    return MemoryPlan(**saved.state["memory_plan"])


def keep_epoch(model: Model, leaf: Path, epoch: int, count: int) -> None:
    """Save a leaf's weights after an epoch, and drop all but those of the last `count` epochs."""
    model.save(epoch_folder(leaf, epoch))
    for old in kept_epochs(leaf)[:-count]:
        shutil.rmtree(old)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as named tensors, "optimizer.<parameter number>.<name>"."""
    state = optimizer.state_dict()["state"]
    return {f"optimizer.{i}.{name}": torch.as_tensor(v) for i, values in state.items() for name, v in values.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        prefix, _, rest = key.partition(".")
        if prefix == "optimizer":
            number, _, name = rest.partition(".")
            state.setdefault(int(number), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under "<prefix>.<name>"."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def without_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under "<prefix>.", by their names again."""
    return {name.removeprefix(f"{prefix}."): t for name, t in tensors.items() if name.startswith(f"{prefix}.")}


def _found(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"))


def _checksum(path: Path, state: dict[str, Any]) -> str:
    """Of the file of tensors, and of the state but for this checksum."""
    text = json.dumps({name: value for name, value in state.items() if name != "checksum"}, sort_keys=True)
    digest = hashlib.blake2b(text.encode())
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: digest).hexdigest()
