"""The gradients of a step, computed again with less memory where it runs out."""

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from ichseq.data.batches import Batch
from ichseq.devices import out_of_memory, release_memory
from ichseq.errors import RunError
from ichseq.seeds import derive_seed
from ichseq.training.losses import Weights
from ichseq.training.memory_plan import plan_with_less
from ichseq.training.progress import Position
from ichseq.training.setup import Setup


def gradients(setup: Setup, position: Position, batches: Sequence[Batch], weights: Weights) -> list[Tensor]:
    """Forward and backward over this process's share of a step; the gradients are left in the parameters.

    Args:
        setup: its network is in training mode and has no gradients.
        position: the step, on which random draws depend.
        batches: this process's micro-batches, on the device.
        weights: of all labels of the step.

    Returns:
        Each batch's share of the mean loss, on the device.

    Raises:
        RunError: the memory does not suffice.
    """
    statistics = setup.model.running_statistics()
    while True:
        torch.manual_seed(derive_seed(setup.config.train.seed, "step", position.step, setup.processes.rank))
        try:
            return _forward_and_backward(setup, position, batches, weights)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        # Outside of the handler, which keeps alive what the failed try has computed.
        setup.optimizer.zero_grad(set_to_none=True)
        setup.model.restore_statistics(statistics)
        release_memory(setup.processes.device)
        _use_less_memory(setup, position)


def _forward_and_backward(setup: Setup, position: Position, batches: Sequence[Batch], weights: Weights) -> list[Tensor]:
    frozen, losses = setup.stage.freezes_backbone(position.epoch), []
    for number, batch in enumerate(batches, 1):
        with setup.accelerator.no_sync(setup.loss) if number < len(batches) else nullcontext():
            loss = setup.loss(batch, backbone_frozen=frozen)
            total, shown = setup.stage.mean_loss(loss, weights)
            # Processes' gradients are averaged; each then stands for the sum over all of them.
            setup.accelerator.backward(total * setup.processes.count)
        losses.append(shown)
    return losses


def _use_less_memory(setup: Setup, position: Position) -> None:
    """Change how a step is computed, but not its result, or give up."""
    chunk, rank = setup.model.chunk_size, setup.processes.rank
    where = f"out of memory at step {position.step + 1}"
    advice = "lower train.patients_per_batch (with train.accumulate for the same step) or model.image_size"
    if setup.processes.count > 1:  # the others are waiting for this one's gradients
        raise RunError(f"{setup.leaf}: {where} on process {rank}; resume with --set train.checkpointing=on "
                       f"--set train.chunk_size={max(chunk // 2, 1)}, or {advice}")  # fmt: skip
    found = plan_with_less(setup.model)
    if found is None:
        raise RunError(f"{setup.leaf}: {where}, with chunks of {chunk} slices; {advice}")
    plan, words = found
    setup.log.note(f"{where}: {words}")
    plan.apply(setup.models)
