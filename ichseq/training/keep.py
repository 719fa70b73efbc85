"""What the start answers for the slices that are trained on, computed once, so that training can hold slices near it.

    last/start.safetensors   (n_slices, 6) probabilities, NaN for slices that are not trained on

Kept in the leaf, so that a resumed run is held near the same answers.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ichseq.data.batches import Allocate, Batch, Item, item_rows
from ichseq.data.feed import feed
from ichseq.data.index import Index
from ichseq.errors import RunError
from ichseq.files import replacing
from ichseq.labels import LABELS
from ichseq.runs.folders import checkpoints_of
from ichseq.training.setup import Setup
from ichseq.training.stages.readers import Read, Reader
from ichseq.training.stopping import StopRequest

START: Final = "start.safetensors"
_SURE: Final = 1e-12  # how near to 0 and to 1 a probability is taken to be exactly that


def start_answers(setup: Setup, reader: Reader[Any], request: StopRequest, *, begun: bool) -> Tensor:
    """Probabilities (n_slices, 6) of the start for the slices of the training series; by every process.

    Args:
        setup: its network has the weights of the start, unless `begun`.
        reader: of the stage's batches.
        request: SIGTERM or Ctrl-C end it.
        begun: whether steps were taken, so that the answers have to be there already.

    Raises:
        InterruptedError: stopped, as asked for.
        RunError: they can't be kept, or are gone.
    """
    path = checkpoints_of(setup.leaf) / START
    if begun:
        return _read(path, setup.index.n_slices)
    answers = _computed(setup, reader, request)
    try:
        if setup.processes.main:
            with replacing(path) as beside:
                save_file({"probabilities": answers}, beside)
    except (OSError, safetensors.SafetensorError) as error:
        raise RunError(f"{path}: can't be written ({error}); make room, and go on with --resume") from None
    return answers


def given_exams(answers: Tensor, index: Index) -> Tensor:
    """What the answers for slices become when their exams' labels are known: probabilities (n_slices, 6).

    A slice of an exam without a label has none. Of an exam with it, at least one slice has: by Bayes' rule, slices
    taken as independent, p becomes p / (1 - product of all 1 - p). Training on that is a step of expectation-
    maximisation, as in Zhang and Goldman, "EM-DD" (2001), with all slices instead of the likeliest alone.

    Args:
        answers: probabilities (n_slices, 6), NaN where not asked.
        index: the set that they are of.
    """
    given = answers.clone()
    of_exams = torch.from_numpy(index.exam_labels)
    for series, first, last in zip(of_exams, index.offsets[:-1], index.offsets[1:], strict=True):
        own = answers[first:last].double()
        any_of_them = -torch.expm1(torch.log1p(-own.clamp(max=1 - _SURE)).sum(dim=0))
        positive = (own / any_of_them.clamp(min=_SURE)).clamp(max=1.0)
        given[first:last] = torch.where(series == 1, positive, torch.where(series == 0, 0.0 * own, own)).float()
    return given


def with_start(read: Read[Any], index: Index, answers: Tensor) -> Read[Any]:
    """Reads the same batches with what the start answers for their slices."""
    return partial(_read_with, read, index, answers)


def _read_with(read: Read[Any], index: Index, answers: Tensor, items: list[Item], allocate: Allocate) -> Batch:
    return replace(read(items, allocate), start=answers[item_rows(index, items)])


def _read(path: Path, slices: int) -> Tensor:
    try:
        answers = load_file(path)["probabilities"]
        if answers.shape != (slices, len(LABELS)):
            raise ValueError("of another set")
        return answers
    except (OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
        raise RunError(f"{path}: the start's answers are gone or damaged ({type(error).__name__}); begin the run anew "
                       "with another -o") from None  # fmt: skip


@torch.no_grad()
def _computed(setup: Setup, reader: Reader[Any], request: StopRequest) -> Tensor:
    index, processes, model = setup.index, setup.processes, setup.model
    own = [Item(int(i)) for i in setup.training_series[processes.rank :: processes.count]]
    size, chunk = setup.config.train.patients_per_batch, model.chunk_size
    tasks = [own[k : k + size] for k in range(0, len(own), size)]
    sums = torch.zeros(index.n_slices, len(LABELS))
    by_itself = model.trained_on.get("start_answers_with") == "slice_head"
    model.eval()
    for batch in feed(tasks, reader.validation(), threads=setup.config.train.workers, device=processes.device):
        with setup.accelerator.autocast():
            output = setup.stage.answer(model, batch)
        logits = output.slice_logits if by_itself else output.logits
        sums[item_rows(index, batch.items)] = logits.float().sigmoid().cpu()
        if request.code:
            raise InterruptedError
    model.train()
    if model.live_batch_norms():
        model.chunk_size = chunk  # which memory may have lowered here; in training it is part of the computation
    shared = sums.to(processes.device)
    processes.average([shared])
    answers = torch.full_like(sums, torch.nan)
    rows = torch.from_numpy(index.slice_rows(setup.training_series))
    answers[rows] = (shared.cpu() * processes.count)[rows]
    return answers
