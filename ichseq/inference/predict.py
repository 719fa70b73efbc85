"""Predictions from DICOM series or from a prepared set, by one model or the mean of several."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ichseq.ct.archive import LeftOut, count_reasons
from ichseq.ct.dicom import SliceError
from ichseq.ct.order import Order
from ichseq.ct.series import Series
from ichseq.data.batches import Item, read_batch
from ichseq.data.feed import feed
from ichseq.data.index import Index
from ichseq.errors import DataError, ScanError, counted
from ichseq.inference.panel import Panel
from ichseq.inference.sources import EXPECTED, load_sources
from ichseq.model import Model
from ichseq.predictions.write import exam_row, slice_table

PHANTOM_NOTE = "these weights were trained on made-up scans (phantoms): their answers mean nothing on real ones"

_PIECE = 64  # slices of a series that are read and embedded at a time


def phantom_note(models: Iterable[Model]) -> str | None:
    """What every prediction of these models has to say, if any of them was trained on phantoms."""
    return PHANTOM_NOTE if any(model.trained_on.get("phantom") for model in models) else None


@dataclass(frozen=True)
class SeriesPrediction:
    """What came of one series.

    Attributes:
        table: its slices' rows; None if no slice can be read.
        warnings: what is odd about it.
        unread: slices that can't be read.
    """

    table: pd.DataFrame | None
    warnings: list[str]
    unread: list[LeftOut]


def predict_series(panel: Panel, series: Series) -> SeriesPrediction:
    """Predict one series, in pieces: of a long one no more is in memory than of a short one, embeddings aside.

    The slices that can't be read are left out, and listed.
    """
    return _answer(panel, *_readable(panel, series))


_Read = tuple[Series | None, list[Tensor | None], list[LeftOut]]


def _readable(panel: Panel, series: Series) -> _Read:
    """The series less what can't be read, its crop boxes, and what was left out."""
    bodies = panel.bodies(series.shape[1:])
    whole, unread = series.readable(lambda hu: panel.look(bodies, hu))
    return whole, panel.boxes(bodies), unread


def _answer(panel: Panel, whole: Series | None, boxes: Sequence[Tensor | None], unread: list[LeftOut]
            ) -> SeriesPrediction:  # fmt: skip
    """Predict what `_readable` gave; a slice that fails at its second reading is left out, and the series redone."""
    lost = 0  # slices that were read once, and then not again
    while whole is not None:
        try:
            table = _table(panel, whole, boxes)
            later = [f"{counted(lost, 'slice')} could be read once only: left out"] if lost else []
            return SeriesPrediction(table, [*whole.warnings, *later], unread)
        except SliceError as error:
            unread, lost = [*unread, LeftOut(error.file, error.reason)], lost + 1
            if len(whole) == 1:
                break
            whole, boxes, more = _readable(panel, whole.without(error.file))
            unread = [*unread, *more]
    return SeriesPrediction(None, [], unread)


def _table(panel: Panel, whole: Series, boxes: Sequence[Tensor | None]) -> pd.DataFrame:
    pieces = []
    for start in range(0, len(whole), _PIECE):
        first = max(0, start - panel.reach)
        hu = torch.from_numpy(whole.read(first, start + _PIECE + panel.reach))
        embedded = panel.embed(hu, torch.tensor([len(hu)]), boxes)
        pieces.append([of_one[start - first :][:_PIECE] for of_one in embedded])
    embeddings = [torch.cat(of_one) for of_one in zip(*pieces, strict=True)]
    answers = panel.answer(embeddings, torch.tensor([len(whole)]), torch.tensor(whole.positions_mm))
    identity = (whole.patient_id, whole.study_uid, whole.series_uid)
    return slice_table(identity, whole.sop_uids, whole.files, whole.positions_mm, answers)


def predict_prepared(
    panel: Panel,
    index: Index,
    series: np.ndarray,
    *,
    threads: int = 2,
    progress: Callable[[int, int], object] | None = None,
) -> pd.DataFrame:
    """The same table for series of a prepared set, by their numbers, with the truth where it is known."""
    tables = []
    tasks = [[Item(int(i))] for i in series]
    for batch in feed(tasks, lambda items, allocate: read_batch(index, items, allocate), threads=threads,
                      device=panel.device):  # fmt: skip
        i = batch.items[0].series
        row, rows = index.series_row(i), slice(index.offsets[i], index.offsets[i + 1])
        answers = panel.answer(panel.embed(batch.hu, batch.lengths), batch.lengths, batch.positions_mm)
        identity = (row["patient_id"], row["study_uid"], row["series_uid"])
        tables.append(slice_table(identity, index.sop_uids(i), index.files(i), index.positions_mm[rows], answers,
                                  index.labels[rows]))  # fmt: skip
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


Predicting = Callable[[Sequence[Series]], Iterator[SeriesPrediction]]
"""Predicts many series, in their order."""


def predict_here(panel: Panel) -> Predicting:
    """Predicting in this process: the next series is read while one is predicted."""

    def predicting(found: Sequence[Series]) -> Iterator[SeriesPrediction]:
        with ThreadPoolExecutor(1, thread_name_prefix="read") as thread:
            waiting = [thread.submit(_readable, panel, series) for series in found[:1]]
            for k in range(len(found)):
                read = waiting.pop().result()
                if k + 1 < len(found):
                    waiting.append(thread.submit(_readable, panel, found[k + 1]))
                yield _answer(panel, *read)

    return predicting


def predict_sources(
    predicting: Predicting | Panel | Sequence[Model],
    sources: Sequence[str | Path | Sequence[str | Path]],
    *,
    note: str | None = None,
    order: Order = "position",
    progress: Callable[[int, int], object] | None = None,
) -> Predictions:
    """Predict every series of the sources taken together, going on past what can't be read.

    Args:
        predicting: models, or a `Panel`, or `predict_here`, or `ichseq.inference.cluster.predict_there`.
        sources: folders, zips, files, or lists of them; a series may lie in several of them.
        note: what has to be said of all predictions; with models, `phantom_note` is asked.
        order: of the slices, as for `load_series`.
        progress: called with (series done, series in all).

    Raises:
        ScanError: not one series could be predicted.
    """
    if not callable(predicting):
        panel = predicting if isinstance(predicting, Panel) else Panel(predicting)
        note = note or phantom_note(panel.models)
        predicting = predict_here(panel)
    found, failed = load_sources(sources, order=order)
    failed += [item for item in found.left_out if not item.reason.startswith(EXPECTED)]
    return predict_found(predicting, found, note=note, left_out=found.left_out, failed=failed, progress=progress)


def predict_found(
    predicting: Predicting,
    found: Sequence[Series],
    *,
    note: str | None = None,
    left_out: Sequence[LeftOut] = (),
    failed: Sequence[LeftOut] = (),
    progress: Callable[[int, int], object] | None = None,
) -> Predictions:
    """Predict series that are loaded, going on past slices that can't be read.

    Args:
        predicting: as for `predict_sources`.
        found: the series.
        note: what has to be said of all predictions.
        left_out: files that were left out already, with reasons.
        failed: those of them that should be in a series, and sources that gave none.
        progress: called with (series done, series in all).

    Raises:
        ScanError: not one series could be predicted.
    """
    tables, exams, odd = [], [], []
    unread: list[LeftOut] = []
    for done, outcome in enumerate(predicting(found), 1):
        unread += outcome.unread
        if outcome.table is not None:
            tables.append(outcome.table)
            odd.append(outcome.warnings)
            exams.append(exam_row(outcome.table, [*outcome.warnings, *([note] if note else [])]))
        if progress is not None:
            progress(done, len(found))
    failed = [*failed, *(item for item in unread if not item.reason.startswith(EXPECTED))]
    if not tables:
        first = "; ".join(f"{item.file}: {item.reason}" for item in failed[:3])
        raise ScanError(f"no series could be predicted: {first}")
    slices, every = pd.concat(tables, ignore_index=True), [*left_out, *unread]
    return Predictions(slices, pd.DataFrame(exams), every, failed, odd, note)
