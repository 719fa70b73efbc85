"""run.json, history.csv, metrics.json and the tables of predictions, written and read back with checks."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from ichseq import documents
from ichseq.data.index import ALL_PATIENTS
from ichseq.documents import read_document
from ichseq.errors import RunError
from ichseq.files import write_text
from ichseq.predictions.read import read_table
from ichseq.predictions.write import write_tables
from ichseq.runs.names import EPOCHS, EXAMS, HISTORY, METRICS, PREDICTIONS, RUN


def read_json(path: Path, remedy: str = "make it again", *, sealed: bool = False) -> dict[str, Any]:
    """The content of a JSON file that ichseq has written; `remedy` says what to do about a damaged one.

    Args:
        path: the file.
        remedy: what to do, for the error.
        sealed: whether it holds the hash of its content, which is compared.

    Raises:
        RunError: it is missing or damaged.
    """
    try:
        content = read_document(path)
        return documents.unsealed(content) if sealed else dict(content)
    except (OSError, ValueError, TypeError) as error:
        raise RunError(f"{path}: can't be read ({type(error).__name__}); {remedy}") from None


def write_json(path: Path, content: dict[str, Any], *, sealed: bool = False) -> None:
    """Write strict JSON beside and rename it into place; sealed with the hash of its content, if asked for.

    Raises:
        RunError: it can't be written.
    """
    text = json.dumps(documents.sealed(content) if sealed else content, indent=2, allow_nan=False)
    try:
        write_text(path, text)
    except OSError as error:
        raise RunError(f"{path}: can't be written ({error.strerror}); make room, or make it writable") from None


def folder_of(leaf: Path) -> Path:
    """The leaf itself, also where one of its epochs was named."""
    return leaf.parents[1] if leaf.parent.name == EPOCHS else leaf


def read_run(leaf: Path) -> dict[str, Any]:
    """run.json of a leaf, also for the weights of one of its epochs.

    Raises:
        RunError: it is missing, or not as it was written: its fold and its patients say what may be scored.
    """
    try:
        content = documents.unsealed(read_document(folder_of(leaf) / RUN))
        lists = [content.get("patients"), content.get("salts", [])]
        if type(content.get("fold")) is not int or not isinstance(content.get("stage"), str):
            raise ValueError("not what a run writes")
        if not all(isinstance(of, list) and all(isinstance(one, str) for one in of) for of in lists):
            raise ValueError("not what a run writes")
        return content
    except OSError as error:
        raise RunError(f"{leaf}: {RUN} can't be read ({type(error).__name__}); it is not a run of ichseq; a network by "
                       "itself has its card, README.md, beside model.json") from None  # fmt: skip
    except ValueError:
        raise RunError(f"{leaf}: {RUN} can't be read (it is not as a run has written it); restore it, or train again"
                       ) from None  # fmt: skip


def read_history(leaf: Path) -> pd.DataFrame:
    """history.csv of a leaf, a row an epoch.

    Raises:
        RunError: it is missing or damaged.
    """
    try:
        return pd.read_csv(leaf / HISTORY)
    except (OSError, ValueError) as error:
        raise RunError(f"{leaf / HISTORY}: can't be read ({type(error).__name__}); train the stage again") from None


def write_scored(folder: Path, table: pd.DataFrame, metrics: dict[str, Any], exams: pd.DataFrame | None = None) -> None:
    """Write a prediction table, that of exams and their figures into a leaf, a stage's folder or an experiment's.

    Raises:
        DataError: the table can't be written.
        RunError: the figures can't.
    """
    write_tables({folder / PREDICTIONS: table} | ({} if exams is None else {folder / EXAMS: exams}))
    write_json(folder / METRICS, metrics)


def read_predictions(leaf: Path) -> pd.DataFrame:
    """The predictions of a leaf that was evaluated.

    Raises:
        RunError: it wasn't.
        DataError: the table is damaged.
    """
    if not (leaf / PREDICTIONS).is_file():
        fold = read_run(leaf)["fold"]
        if fold == ALL_PATIENTS:
            raise RunError(f"{leaf}: was trained on every patient, so that none is left to score it on; name another")
        raise RunError(f"{leaf}: no {PREDICTIONS}; run `ichseq evaluate --fold {fold} --run {leaf}` first")
    return read_table(leaf / PREDICTIONS)


def data_key_of(leaf: Path) -> str | None:
    """The key of the set that a leaf predicted; where nothing says so, of the one that it was trained on.

    Raises:
        RunError: a file is missing or damaged.
    """
    if not (leaf / METRICS).is_file():
        return read_run(leaf).get("data_key")
    remedy = "run `ichseq evaluate` again"
    metrics = read_json(leaf / METRICS, remedy)
    if "data_key" not in metrics:
        raise RunError(f"{leaf / METRICS}: can't be read (it names no data_key); {remedy}")
    return metrics["data_key"]
