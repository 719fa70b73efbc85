"""A stage trained on one fold after the other, as `ichseq train` asks for it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ichseq.config import ModelConfig, load_config, read_yaml, settings_of_start
from ichseq.errors import RunError
from ichseq.model.saved import damage_explained, read_description
from ichseq.networks.named import network_folder
from ichseq.runs.folders import checkpoints_of, find_leaves, leaf_of
from ichseq.runs.names import CONFIG
from ichseq.training.checkpoint import has_checkpoint
from ichseq.training.train import train_stage


def train_folds(
    stage: str,
    folds: Sequence[int],
    *,
    source: Path | Mapping[str, Any] | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    data: Path,
    out: Path,
    init: Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> list[Path]:
    """Train a stage on each of some folds.

    Args:
        stage: slice, frozen or joint.
        folds: left out for validation in turn.
        source: settings, as for `ichseq.config.load_config`. Those of the model that are not set are the start's.
        overrides: single settings, as there.
        data: the prepared set.
        out: the run's folder.
        init: a run, of which each fold starts from the leaf of the same fold; or one leaf, for all; or the name of a
            network, that ships (unless there is a folder of that name) or on the Hugging Face hub.
        resume: go on from the last checkpoints. Of all folds, those that were not begun are.
        progress: show progress bars.

    Returns:
        The leaves.

    Raises:
        RunError: as `train_stage`; or nothing to resume.
    """
    several = len(folds) != 1
    leaves = []
    for fold in folds:
        file, base = leaf_of(out, stage, fold) / CONFIG, None
        begun = resume and has_checkpoint(checkpoints_of(file.parent))
        if begun:
            base = read_yaml(file)
        elif resume and not several:
            raise RunError(f"{file.parent}: nothing to resume; train without --resume, or name another run with -o")
        start = None if init is None else _start(init, fold)
        if base is None and start is not None:
            base = {"model": _model_settings(start)}
        config = load_config(stage, source, overrides, base=base)
        leaves.append(
            train_stage(config, stage, data=data, fold=fold, out=out, init=start, resume=begun, progress=progress)
        )
    return leaves


def _start(init: Path, fold: int) -> Path:
    """The leaf of a run to start a fold from: the only one, or that of the fold; or a network."""
    if (network := network_folder(init)) is not None:
        return network
    found = find_leaves(init)
    return found[0] if len(found) == 1 else find_leaves(init, fold)[0]


def _model_settings(start: Path) -> dict[str, Any]:
    """What a run takes over of the network that it starts from."""
    with damage_explained(start):
        return settings_of_start(ModelConfig(**read_description(start).config))
