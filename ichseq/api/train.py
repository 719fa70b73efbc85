"""train: a stage of the network, on one fold or on all."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from ichseq.api.fold import Fold, fold_number
from ichseq.data import DEFAULT_SET
from ichseq.errors import RunError

Stage = Literal["slice", "frozen", "joint"]
"""`ichseq.config.STAGES` for editors and for help, which need no import of the settings."""


def train(
    stage: Stage = "joint",
    fold: Fold = 0,
    *,
    config: str | Path | Mapping[str, Any] | None = None,
    data: str | Path = DEFAULT_SET,
    out: str | Path | None = None,
    init: str | Path | None = None,
    resume: bool = False,
    settings: Mapping[str, Any] | Sequence[str] = (),
    progress: bool = True,
) -> Path:
    """Train a stage of the network: "joint" (everything), "slice" (no sequence part), "frozen" (that part alone).

    Args:
        stage: which.
        fold: kept for validation; "all": each in turn; "all-patients": none.
        config: a YAML file, or a dict of sections, with settings that differ from the defaults.
        data: the prepared set.
        out: the run's folder; None: runs/<time>, or with `resume` the newest run that has the fold and stage.
        init: a run whose weights are the start, one of its leaves, or the name of a network (see `predict`).
        resume: go on from the last checkpoint of the run.
        settings: single settings, which win over `config`: {"train.epochs": 3}, or ["train.epochs=3"].
        progress: whether bars and notes are shown on standard error.

    Returns:
        The run's folder, which `evaluate`, `predict` and `init` take. Its leaves are <stage>/fold<K>.

    Raises:
        ConfigError: a setting, a stage or a fold that does not exist or does not fit.
        DataError: the prepared set is missing or damaged, or has nothing to train on.
        RunError: the leaf is taken, there is nothing to resume, `init` has seen this fold's patients, the loss is not
            finite, or the memory does not do.
        Stopped: Ctrl-C or SIGTERM; the step was finished and saved.

    Example:
        The joint stage, from the weights of a slice stage:

        >>> import ichseq
        >>> run = ichseq.train("slice", 0, config="small.yaml", out="runs/first")
        >>> run = ichseq.train("joint", 0, config="small.yaml", out=run, init=run, settings={"train.epochs": 1})
        >>> (run / "joint" / "fold0" / "weights.safetensors").is_file()
        True
    """
    leaves = train_leaves(
        stage, fold, config=config, data=data, out=out, init=init, resume=resume, settings=settings, progress=progress
    )
    return leaves[0].parents[1]


def train_leaves(
    stage: Stage,
    fold: Fold,
    *,
    config: str | Path | Mapping[str, Any] | None,
    data: str | Path,
    out: str | Path | None,
    init: str | Path | None,
    resume: bool,
    settings: Mapping[str, Any] | Sequence[str],
    progress: bool = True,
) -> list[Path]:
    """`train`, which gives the leaves: the folder of the stage for each fold."""
    from ichseq.data.index import Index
    from ichseq.runs.folders import RUNS, newest_run
    from ichseq.training.folds import train_folds

    number = fold_number(fold)
    if out is None and not one_process():
        raise RunError("several processes need one name for the run: give it with -o")
    if out is None:
        newest = newest_run(number, stage) if resume else None
        out = newest or RUNS / time.strftime("%Y%m%d-%H%M%S")
    return train_folds(
        stage,
        list(range(Index.load(data).folds)) if number is None else [number],
        source=Path(config) if isinstance(config, str) else config,
        overrides=[settings] if isinstance(settings, str) else settings,
        data=Path(data),
        out=Path(out),
        init=None if init is None else Path(init),
        resume=resume,
        progress=progress,
    )


def one_process() -> bool:
    """Whether this process trains alone, and not as one of several that torchrun has started."""
    return int(os.environ.get("WORLD_SIZE", "1")) == 1
