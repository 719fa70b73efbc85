"""Run folders: where they are, which one is meant, and whom a run has seen.

runs/<name>/<stage>/fold<K>/         a leaf: one stage trained on all folds but one
runs/<name>/<stage>/all-patients/    a leaf of a stage that was trained on every patient, with no validation
"""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ichseq.config import STAGES
from ichseq.data.index import ALL_PATIENTS, Index
from ichseq.errors import RunError
from ichseq.files import write_text

RUNS = Path("runs")
MODELS = "models.json"  # in an experiment's result: the models that answer for it


def leaf_of(run: Path, stage: str, fold: int) -> Path:
    """Folder of a stage and fold in a run."""
    return run / stage / fold_name(fold)


def fold_name(fold: int) -> str:
    """Name of a fold's folder."""
    return fold_words(fold).replace(" ", "")


def fold_words(fold: int) -> str:
    """A fold as a person calls it."""
    return "all-patients" if fold == ALL_PATIENTS else f"fold {fold}"


def leaves(run: Path) -> list[Path]:
    """The leaves of a run that hold a model; of a leaf, itself."""
    if (run / "model.json").is_file():
        return [run]
    return sorted(path.parent for path in run.glob("*/*/model.json"))


def read_run(leaf: Path) -> dict[str, Any]:
    """run.json of a leaf, also for the weights of one of its epochs.

    Raises:
        RunError: it is missing or damaged.
    """
    folder = leaf.parents[1] if leaf.parent.name == "epochs" else leaf
    try:
        content = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        if not isinstance(content, dict) or not {"fold", "stage", "patients"} <= content.keys():
            raise ValueError("not what a run writes")
        return content
    except (OSError, ValueError) as error:
        raise RunError(f"{leaf}: run.json can't be read ({type(error).__name__}); it is not a run of ichseq") from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that ichseq has written.

    Raises:
        RunError: it is missing or damaged.
    """
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise RunError(f"{path}: can't be read ({type(error).__name__}); make it again") from None


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write strict JSON beside and rename it into place.

    Raises:
        RunError: it can't be written.
    """
    text = json.dumps(content, indent=2, allow_nan=False)
    try:
        write_text(path, text)
    except OSError as error:
        raise RunError(f"{path}: can't be written ({error.strerror}); make room, or make it writable") from None


def find_leaves(run: Path, fold: int | None = None) -> list[Path]:
    """The leaves meant by a run: its last stage's (joint before frozen before slice), of one fold or of all.

    Raises:
        RunError: no such run, or nothing in it for that fold.
    """
    if not run.is_dir():
        near = [str(path) for path in sorted(run.parent.glob("*")) if _is_run(path)] if run.parent.is_dir() else []
        hint = f"; there are {', '.join(near[:8])}" if near else "; train one with `ichseq train`"
        raise RunError(f"{run}: no such run{hint}")
    found = leaves(run)
    if fold is not None:
        found = [leaf for leaf in found if read_run(leaf)["fold"] == fold]
    for stage in reversed(STAGES):
        chosen = [leaf for leaf in found if read_run(leaf)["stage"] == stage]
        if chosen:
            return sorted(chosen, key=lambda leaf: read_run(leaf)["fold"])
    of_fold = "" if fold is None else f" for {fold_words(fold)}"
    raise RunError(f"{run}: no trained model{of_fold} in it; train one with `ichseq train` (-o {run})")


def _is_run(folder: Path) -> bool:
    """Whether a folder holds a trained model, or is an experiment's result."""
    return (folder / MODELS).is_file() or bool(leaves(folder))


def models_of(run: Path, bag: int = 0) -> list[Path]:
    """Folders of the models that a run is predicted with: those of its leaves, or the list of an experiment's result.

    Raises:
        RunError: there are none, or a file of an experiment is damaged.
    """
    if (run / MODELS).is_file():
        return [Path(os.path.normpath(run / path)) for path in read_json(run / MODELS)["models"]]
    return [folder for leaf in find_leaves(run) for folder in bag_of(leaf, bag)]


def bag_of(leaf: Path, bag: int) -> list[Path]:
    """Folders of the models that answer for a leaf: its best one, or those of its last `bag` epochs.

    Raises:
        RunError: fewer are kept.
    """
    if bag == 0:
        return [leaf]
    kept = sorted((leaf / "epochs").glob("epoch-*"))
    if len(kept) < bag:
        raise RunError(f"{leaf}: a bag of {bag} epochs was asked for, and the weights of {len(kept)} are kept; train "
                       f"with --set train.keep_epochs={bag}")  # fmt: skip
    return kept[-bag:]


def newest_run(fold: int | None = None, stage: str | None = None) -> Path:
    """The run under runs/ that was last trained and has the fold (and stage).

    Raises:
        RunError: there is none.
    """
    pattern = f"*/{stage or '*'}/{'*' if fold is None else fold_name(fold)}/run.json"
    found = sorted(RUNS.glob(pattern), key=lambda path: path.stat().st_mtime)
    if stage is None:
        found = [path for path in found if (path.parent / "model.json").is_file()]
    if not found:
        what = "" if fold is None else f" of {fold_words(fold)}"
        raise RunError(f"no run{what} under {RUNS}/; train one with `ichseq train`, or name one")
    return found[-1].parents[2]


def patient_hashes(patient_ids: Iterable[str]) -> list[str]:
    """A short hash of each different patient, sorted: enough to tell whether two runs share a patient."""
    return sorted({hashlib.sha256(str(patient).encode()).hexdigest()[:16] for patient in patient_ids})


def refuse_seen_patients(leaf: Path, index: Index, fold: int) -> list[str]:
    """Hashes of the patients that the run of `leaf` has trained on, if none is in this fold's validation part.

    Raises:
        RunError: some are, so that the fold's figures would be those of patients seen in training.
    """
    patients = index.patients()
    here = set(patient_hashes(patients[i] for i in index.validation_series(fold)))
    seen = read_run(leaf)["patients"]
    shared = len(here & set(seen))
    if shared:
        raise RunError(
            f"{leaf}: was trained on {shared} of the {len(here)} patients of this set's fold {fold}, which is held out "
            "for validation; start from a run of the same fold"
        )
    return seen
