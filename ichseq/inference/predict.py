"""Prediction tables: a row a slice, from DICOM series or from a prepared set, by one model or the mean of several."""

import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ichseq.ct.archive import LeftOut, count_reasons
from ichseq.ct.series import Series, load_series
from ichseq.data.batches import read_ahead, read_batch
from ichseq.data.index import Index
from ichseq.errors import DataError, ScanError, counted
from ichseq.labels import LABELS, PREDICTION_COLUMNS
from ichseq.model import Model

PHANTOM_NOTE = "these weights were trained on made-up scans (phantoms): their answers mean nothing on real ones"

# Files that are rightly no part of an axial series; leaving one out is no failure.
_EXPECTED = (
    "not a DICOM file",
    "a DICOMDIR",
    "a localizer",
    "not axial",
    "a dose report",
    "a secondary capture",
    "a screen capture",
    "a colour image",
    "modality ",
    "duplicate: ",
)


def predict(model: Model | Sequence[Model], series: Series | Iterable[Series]) -> pd.DataFrame:
    """Probabilities for every slice of one or more series.

    Args:
        model: an `ichseq.Model`, or several, whose probabilities are averaged.
        series: what `ichseq.load_series` gives, or one element of it.

    Returns:
        The columns of `ichseq.labels.PREDICTION_COLUMNS`, slices in order from feet to head; the true_ columns are
        empty. Weights trained on phantoms say so in a warning and in `.attrs["note"]`.

    Raises:
        ScanError: a slice can't be decoded; the message names its file.
    """
    models = [model] if isinstance(model, Model) else list(model)
    every = [series] if isinstance(series, Series) else series
    tables = [_series_table(models, one, one.read()) for one in every]
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(PREDICTION_COLUMNS))
    note = phantom_note(models)
    if note:
        table.attrs["note"] = note
        warnings.warn(note, stacklevel=2)
    return table


def phantom_note(models: Iterable[Model]) -> str | None:
    """What every prediction of these models has to say, if any of them was trained on phantoms."""
    return PHANTOM_NOTE if any(model.trained_on.get("phantom") for model in models) else None


@torch.inference_mode()
def probabilities(models: Sequence[Model], hu: Tensor, lengths: Tensor) -> np.ndarray:
    """float32 (S, 6): mean of the models' probabilities; a model of the slice stage answers with its slice head."""
    answers = []
    for model in models:
        model.eval()
        logits, aux = model(hu, lengths, return_aux=True)
        answers.append(torch.sigmoid(aux if model.trained_on.get("stage") == "slice" else logits).float().cpu())
    return torch.stack(answers).mean(0).numpy()


def _series_table(models: Sequence[Model], series: Series, hu: np.ndarray) -> pd.DataFrame:
    answers = probabilities(models, torch.from_numpy(np.ascontiguousarray(hu)), torch.tensor([len(hu)]))
    identity = (series.patient_id, series.study_uid, series.series_uid)
    return _table(identity, series.sop_uids, series.files, series.positions_mm, answers, None)


def _table(
    identity: tuple[str, str, str],
    sop_uids: Sequence[str],
    files: Sequence[str],
    positions_mm: np.ndarray,
    answers: np.ndarray,
    truth: np.ndarray | None,
) -> pd.DataFrame:
    columns: dict[str, object] = dict(zip(PREDICTION_COLUMNS[:3], identity, strict=True))
    columns |= {"sop_uid": sop_uids, "file": files, "slice_index": np.arange(len(answers))}
    columns |= {"position_mm": positions_mm}
    columns |= {label: answers[:, k].astype(np.float64) for k, label in enumerate(LABELS)}
    unknown = np.full(len(answers), np.nan)
    columns |= {f"true_{label}": unknown if truth is None else truth[:, k] for k, label in enumerate(LABELS)}
    return pd.DataFrame(columns)[list(PREDICTION_COLUMNS)]


def predict_prepared(
    models: Sequence[Model],
    index: Index,
    series: np.ndarray,
    *,
    threads: int = 2,
    progress: Callable[[int, int], object] | None = None,
) -> pd.DataFrame:
    """The same table for series of a prepared set, by their numbers, with the truth where it is known."""
    tables = []
    tasks = [[(int(i), -1)] for i in series]
    for batch in read_ahead(tasks, lambda items: read_batch(index, items), threads):
        i = batch.items[0][0]
        row, rows = index.series_row(i), slice(index.offsets[i], index.offsets[i + 1])
        identity = (row["patient_id"], row["study_uid"], row["series_uid"])
        answers = probabilities(models, batch.hu, batch.lengths)
        tables.append(
            _table(identity, index.sop_uids(i), index.files(i), index.positions_mm[rows], answers, index.labels[rows])
        )
        if progress is not None:
            progress(len(tables), len(tasks))
    if not tables:
        raise DataError(f"{index.folder}: no series to predict")
    return pd.concat(tables, ignore_index=True)


@dataclass(frozen=True)
class Predictions:
    """Outcome of `predict_sources`.

    Attributes:
        slices: the prediction table.
        exams: a row a series: identity, the exam's score for each label, n_slices, warnings.
        left_out: files without a prediction, with reasons.
        failed: those of them that should have had one, and sources that gave nothing.
        series_warnings: what is odd about each series, in the order of the exams.
        note: what has to be said of all these predictions, if anything.
    """

    slices: pd.DataFrame
    exams: pd.DataFrame
    left_out: list[LeftOut] = field(default_factory=list)
    failed: list[LeftOut] = field(default_factory=list)
    series_warnings: list[list[str]] = field(default_factory=list)
    note: str | None = None

    def remarks(self) -> list[str]:
        """What a person should know of these predictions, a line each."""
        lines = [f"Note: {self.note}"] if self.note else []
        odd = sum(bool(said) for said in self.series_warnings)
        if odd:
            lines.append(
                f"Note: {odd} of {len(self.exams)} series with warnings: column `warnings` of the exams' table"
            )
        expected = [item for item in self.left_out if item not in self.failed]
        lines += [f"left out: {counted(n, 'file')}: {reason}" for reason, n in count_reasons(expected).items()]
        return lines + [f"not predicted: {item.file}: {item.reason}" for item in self.failed]


def predict_sources(
    models: Sequence[Model],
    sources: Sequence[str | Path | Sequence[str | Path]],
    *,
    progress: Callable[[int, int], object] | None = None,
) -> Predictions:
    """Predict every series of every source, going on past what can't be read.

    Raises:
        ScanError: not one series could be predicted.
    """
    note = phantom_note(models)
    found: list[Series] = []
    left_out: list[LeftOut] = []
    failed: list[LeftOut] = []
    for source in sources:
        try:
            collection = load_series(source)
            found += list(collection)
            left_out += collection.left_out
        except ScanError as error:
            if len(sources) == 1:
                raise
            failed.append(LeftOut(str(source), str(error)))
    tables, exams, odd = [], [], []
    for done, series in enumerate(found):
        whole, unread = series.readable()
        left_out += unread
        if len(whole):
            table = _series_table(models, whole, whole.hu)
            tables.append(table)
            odd.append(whole.warnings)
            exams.append(_exam_row(table, [*whole.warnings, *([note] if note else [])]))
        if progress is not None:
            progress(done + 1, len(found))
    failed += [item for item in left_out if not item.reason.startswith(_EXPECTED)]
    if not tables:
        first = "; ".join(f"{item.file}: {item.reason}" for item in failed[:3])
        raise ScanError(f"no series could be predicted: {first}")
    return Predictions(pd.concat(tables, ignore_index=True), pd.DataFrame(exams), left_out, failed, odd, note)


def _exam_row(table: pd.DataFrame, said: Sequence[str]) -> dict[str, object]:
    """One series as one row; its score for a label is the highest of its slices' probabilities."""
    first = table.iloc[0]
    row: dict[str, object] = {name: first[name] for name in ("patient_id", "study_uid", "series_uid")}
    row |= {label: float(table[label].max()) for label in LABELS}
    return row | {"n_slices": len(table), "warnings": "; ".join(said)}


def check_writable(path: Path) -> None:
    """Find out before the work whether a table can be written.

    Raises:
        DataError: it can't.
    """
    beside = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.touch()
        beside.unlink()
    except OSError as error:
        raise DataError(f"{path}: can't be written ({error.strerror}); choose another -o") from None


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as Parquet (.parquet) or CSV (anything else), beside and then renamed into place.

    Raises:
        DataError: the file can't be written.
    """
    beside = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".parquet":
            table.to_parquet(beside, index=False)
        else:
            table.to_csv(beside, index=False, float_format="%.7g")
        os.replace(beside, path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise DataError(f"{path}: can't be written ({error.strerror}); choose another -o") from None
