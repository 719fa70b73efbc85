"""Run folders: where they are, and which one is meant."""

import os
from pathlib import Path

from ichseq.config import STAGES
from ichseq.errors import ConfigError, RunError
from ichseq.exported.description import exported_file
from ichseq.networks.named import home_of_network, network_folder
from ichseq.networks.shipped import is_shipped, shipped_names
from ichseq.runs.experiments import read_models
from ichseq.runs.names import CHECKPOINTS, EPOCHS, MODEL, MODELS, RUN, SETS, fold_name, fold_words
from ichseq.runs.records import read_run

RUNS = Path("runs")


def leaf_of(run: Path, stage: str, fold: int) -> Path:
    """Folder of a stage and fold in a run."""
    return run / stage / fold_name(fold)


def leaves(run: Path) -> list[Path]:
    """The leaves of a run that hold a model; of a leaf, itself."""
    if has_model(run):
        return [run]
    return sorted(path.parent for path in run.glob(f"*/*/{MODEL}"))


def has_model(folder: Path) -> bool:
    """Whether a leaf, or the folder of one of its epochs, holds a model."""
    return (folder / MODEL).is_file()


def has_run(folder: Path) -> bool:
    """Whether a folder is a leaf: some training has begun there."""
    return (folder / RUN).is_file()


def checkpoints_of(leaf: Path) -> Path:
    """The folder of a leaf's checkpoints."""
    return leaf / CHECKPOINTS


def epoch_folder(leaf: Path, epoch: int) -> Path:
    """Where a leaf keeps the weights after an epoch, counted from 1; the names sort as the epochs do."""
    return leaf / EPOCHS / f"epoch-{epoch:03d}"


def kept_epochs(leaf: Path) -> list[Path]:
    """Folders of the epochs whose weights a leaf has kept, in order."""
    return sorted((leaf / EPOCHS).glob("epoch-*"))


def find_leaves(run: Path, fold: int | None = None) -> list[Path]:
    """The leaves meant by a run: its last stage's (joint before frozen before slice), of one fold or of all.

    Raises:
        RunError: no such run, or nothing in it for that fold.
    """
    if (network := network_folder(run)) is not None:
        what = "ships with ichseq" if is_shipped(network) else "is a network by itself"
        raise RunError(f"{run}: {what} and has no folds; name a set that it never saw, without a fold, "
                       "or a run")  # fmt: skip
    if exported_file(run) is not None:
        raise RunError(f"{run}: is an exported network, which has neither folds nor a calibration; name the run that "
                       "it was made of")  # fmt: skip
    if not run.is_dir():
        near = _near(run)
        hint = f"; there are {', '.join(near)}" if near else "; train one with `ichseq train`"
        raise RunError(f"{run}: no such run{hint}")
    found = [(read_run(leaf), leaf) for leaf in leaves(run)]
    for stage in reversed(STAGES):
        chosen = [(of["fold"], leaf) for of, leaf in found if of["stage"] == stage and fold in (None, of["fold"])]
        if chosen:
            return [leaf for _, leaf in sorted(chosen)]
    of_fold = "" if fold is None else f" for {fold_words(fold)}"
    raise RunError(f"{run}: no trained model{of_fold} in it; train one with `ichseq train` (-o {run})")


def _near(run: Path) -> list[str]:
    """What may have been meant by a run that is not there: runs beside it; for a bare name, networks that ship too."""
    bare = str(run) == run.name
    places = {run.parent, RUNS} if bare else {run.parent}
    near = [str(path) for place in sorted(places) for path in sorted(place.glob("*")) if _is_run(path)]
    return [*(shipped_names() if bare else []), *near[:8]]


def _is_run(folder: Path) -> bool:
    """Whether a folder holds a trained model, or is an experiment's result."""
    return (folder / MODELS).is_file() or bool(leaves(folder))


def models_of(run: Path, bag: int = 0) -> list[Path]:
    """Folders of the models that predict for a run: those of its leaves, or the list of an experiment's result.

    The name of a network means that one; of one that ships, unless there is a folder of that name. An .onnx file, or a
    folder that holds one that `ichseq export` has written, stands for itself.

    Raises:
        RunError: there are none, one can't be fetched, or a file of an experiment is damaged.
    """
    if (network := network_folder(run)) is not None:
        return bag_of(network, bag)
    if (exported := exported_file(run)) is not None:
        return bag_of(exported, bag)
    if (run / MODELS).is_file():
        return [Path(os.path.normpath(run / path)) for path in read_models(run)]
    return [folder for leaf in find_leaves(run) for folder in bag_of(leaf, bag)]


def home_of(run: Path) -> Path:
    """Where what is found out about a run goes: its calibration, its figures on sets that it never saw.

    That is the leaf itself, or the folder of an experiment's result; of several folds the folder of their stage; of a
    network that ships or is on the hub, whose own folder is not to be written to, runs/NAME.

    Raises:
        RunError: no such run.
    """
    if (network := network_folder(run)) is not None:
        return home_of_network(network, RUNS)
    return run if has_model(run) or (run / MODELS).is_file() else find_leaves(run)[0].parent


def set_folder(run: Path, data: Path, key: str) -> Path:
    """Where the figures of a run on a set that it never saw go.

    Args:
        run: a run, a leaf, an experiment's result or the name of a network.
        data: folder of the set.
        key: of the set.

    Raises:
        RunError: no such run.
    """
    return home_of(run) / SETS / f"{data.resolve().name}-{key[:8]}"


def bag_of(leaf: Path, bag: int) -> list[Path]:
    """Folders of the models that answer for a leaf: its best one, or those of its last `bag` epochs.

    Raises:
        ConfigError: a negative number.
        RunError: fewer are kept.
    """
    if bag < 0:
        raise ConfigError(f"bag is {bag}; give how many of the last epochs, or 0 for the best weights")
    if bag == 0:
        return [leaf]
    kept = kept_epochs(leaf)
    if len(kept) < bag:
        raise RunError(f"{leaf}: a bag of {bag} epochs was asked for, and the weights of {len(kept)} are kept; train "
                       f"with --set train.keep_epochs={bag}")  # fmt: skip
    return kept[-bag:]


def newest_run(fold: int | None = None, stage: str | None = None) -> Path:
    """The run under runs/ that was last trained and has the fold (and stage).

    Raises:
        RunError: there is none.
    """
    pattern = f"*/{stage or '*'}/{'*' if fold is None else fold_name(fold)}/{RUN}"
    found = sorted(RUNS.glob(pattern), key=lambda path: path.stat().st_mtime)
    if stage is None:
        found = [path for path in found if has_model(path.parent)]
    if not found:
        what = "" if fold is None else f" of {fold_words(fold)}"
        raise RunError(f"no run{what} under {RUNS}/; train one with `ichseq train`, or name one")
    return found[-1].parents[2]
