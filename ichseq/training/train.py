"""One stage trained on one fold, from a folder for the run to its best weights."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from ichseq.config import Config
from ichseq.data.index import Index
from ichseq.errors import IchseqError, RunError
from ichseq.runs.folders import checkpoints_of, has_model, leaf_of
from ichseq.runs.log import RunLog
from ichseq.training import checkpoint as ck
from ichseq.training.loop import Training
from ichseq.training.processes import Processes
from ichseq.training.setup import set_up
from ichseq.training.stopping import StopRequest, stop_requests


def train_stage(
    config: Config,
    stage: str,
    *,
    data: Path,
    fold: int,
    out: Path,
    init: Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Path:
    """Train one stage on all folds but one and validate on that one after each epoch.

    Args:
        config: from `load_config`.
        stage: slice, frozen or joint.
        data: a prepared set.
        fold: left out of training, for validation; `ichseq.data.index.ALL_PATIENTS` leaves none out.
        out: the run's folder, runs/NAME; this stage and fold get a leaf of their own in it.
        init: leaf of another run whose weights are the start.
        resume: go on from the last checkpoint of the leaf.
        progress: show a progress bar on standard error.

    Returns:
        The leaf's folder.

    Raises:
        ConfigError: a setting that does not work with this set or machine.
        DataError: the prepared set is missing or damaged, or has nothing to train on.
        RunError: the leaf is taken, nothing to resume, a run that has seen this fold's patients, a loss not finite,
            memory that does not suffice.
        Stopped: SIGTERM or Ctrl-C; the step was finished and saved.
    """
    leaf, index = leaf_of(out, stage, fold), Index.load(data)
    with stop_requests() as request:
        training = start_training(
            config, stage, index, fold, leaf, init=init, resume=resume, progress=progress, request=request
        )
        with _errors_logged(training.setup.log):
            training.run()
    return leaf


def start_training(
    config: Config,
    stage: str,
    index: Index,
    fold: int,
    leaf: Path,
    *,
    init: Path | None = None,
    resume: bool = False,
    progress: bool = False,
    request: StopRequest | None = None,
) -> Training:
    """A training before its first step, or where its last checkpoint was written; arguments as of `train_stage`.

    Args:
        config: settings of the run.
        stage: slice, frozen or joint.
        index: the prepared set.
        fold: left out of training.
        leaf: the run's folder for this stage and fold, made for a new run; without one, nothing is left behind.
        init: leaf of another run whose weights are the start.
        resume: go on from the last checkpoint of the leaf.
        progress: show a progress bar on standard error.
        request: SIGTERM or Ctrl-C.
    """
    processes = Processes(config.train.precision)
    log = RunLog(leaf, writes=processes.main, shown=progress)
    with _errors_logged(log):
        saved = _checkpoint_of(leaf, config, index, processes) if resume else None
        with nullcontext() if saved is not None else _claimed(leaf, processes, log):
            setup = set_up(config, stage, index, fold, leaf, processes=processes, log=log, init=init, saved=saved)
            training = Training(setup, saved, request)
        if saved is not None:
            for line in saved.drop_damaged() if processes.main else []:
                log.note(line)
            log.note(f"resumed at step {training.position.step}, epoch {training.position.epoch + 1}")
    return training


def _checkpoint_of(leaf: Path, config: Config, index: Index, processes: Processes) -> ck.Checkpoint:
    """The last checkpoint of a run that is resumed with the same settings, set and kind of machine."""
    saved = ck.read_checkpoint(checkpoints_of(leaf))
    ck.check_same(saved, config, index, leaf)
    ck.check_same_machine(saved, {"processes": processes.count, "precision": processes.precision}, leaf)
    return saved


@contextmanager
def _claimed(leaf: Path, processes: Processes, log: RunLog) -> Iterator[None]:
    """A folder for a new run; what a run has written that can't begin is taken back.

    Raises:
        RunError: there is a run, or something else; or it can't be made.
    """
    if processes.main and (ck.has_checkpoint(checkpoints_of(leaf)) or has_model(leaf)):
        raise RunError(f"{leaf}: there is a run here already; go on with --resume, or choose another -o")
    log.clear()  # what a run leaves that ended before its first checkpoint
    if processes.main and leaf.exists() and any(leaf.iterdir()):
        raise RunError(f"{leaf}: holds files that are no run's; choose another -o")
    if processes.main:
        try:
            leaf.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{leaf}: can't be made ({error.strerror}); choose another -o") from None
    processes.wait()
    try:
        yield
    except (IchseqError, OSError):
        log.clear()
        raise


@contextmanager
def _errors_logged(log: RunLog) -> Iterator[None]:
    """Write the traceback of what should not happen into log.txt; the screen shows one line of it.

    Raises:
        RunError: instead of an OSError that no message of ours explains.
    """
    try:
        yield
    except IchseqError:
        raise
    except OSError as error:
        log.log(traceback.format_exc())
        raise RunError(f"{error.filename or log.leaf}: {error.strerror}; once that is mended, go on with --resume -o "
                       f"{log.leaf.parents[1]}") from error  # fmt: skip
    except Exception:
        log.log(traceback.format_exc())
        raise
