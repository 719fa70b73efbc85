"""Predictions from DICOM series or from a prepared set, by one model or the mean of several."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ichseq.ct.left_out import LeftOut, SliceError, count_reasons
from ichseq.ct.order import Order
from ichseq.ct.plausible import Plausibility
from ichseq.ct.series import Series
from ichseq.data.batches import Item, read_batch
from ichseq.data.feed import feed
from ichseq.data.index import Index
from ichseq.errors import DataError, ScanError, counted
from ichseq.inference.model_ensemble import ModelEnsemble
from ichseq.inference.notes import network_note
from ichseq.inference.sources import Asked, asked_of, load_sources
from ichseq.model import Model
from ichseq.predictions.schema import CHOSEN, ExamId, exam_rows, slice_rows

_SHOWN = 5  # different warnings on the terminal, the most frequent ones


@dataclass(frozen=True)
class SeriesPrediction:
    """What came of one series.

    Attributes:
        table: its slices' rows; None if no slice can be read.
        warnings: what a person should know of it.
        unread: slices that can't be read.
        exam: (6,) what the network answers for the exam; None: the highest of its slices.
    """

    table: pd.DataFrame | None
    warnings: list[str]
    unread: list[LeftOut]
    exam: np.ndarray | None = None


def predict_series(ensemble: ModelEnsemble, series: Series) -> SeriesPrediction:
    """Predict one series, in pieces: of a long one no more is in memory than of a short one, embeddings aside.

    The slices that can't be read are left out, and listed.
    """
    return _answer(ensemble, *_readable(ensemble, series))


_Read = tuple[Series | None, list[Tensor | None], list[str], list[LeftOut]]


def _readable(ensemble: ModelEnsemble, series: Series) -> _Read:
    """The series less what can't be read, its crop boxes, what it does not look like, and what was left out."""
    bodies, looks = ensemble.empty_bodies(series.shape[1:]), Plausibility(series, ensemble.learned_mm)

    def look(hu: np.ndarray) -> None:
        ensemble.add_body(bodies, hu)
        looks.add(hu)

    whole, unread = series.readable(look)
    return whole, ensemble.crop_boxes(bodies), looks.warnings(), unread


def _answer(
    ensemble: ModelEnsemble,
    whole: Series | None,
    boxes: Sequence[Tensor | None],
    doubts: Sequence[str],
    unread: list[LeftOut],
) -> SeriesPrediction:
    """Predict what `_readable` gave; a slice that fails at its second reading is left out, and the series redone."""
    lost = 0  # slices that were read once, and then not again
    while whole is not None:
        try:
            table, exam = _table(ensemble, whole, boxes)
            later = [f"{counted(lost, 'slice')} could be read once only: left out"] if lost else []
            return SeriesPrediction(table, [*whole.warnings, *doubts, *later], unread, exam)
        except SliceError as error:
            unread, lost = [*unread, error.left_out], lost + 1
            if len(whole) == 1:
                break
            whole, boxes, doubts, more = _readable(ensemble, whole.without(error.file))
            unread = [*unread, *more]
    return SeriesPrediction(None, [], unread)


def _table(
    ensemble: ModelEnsemble, whole: Series, boxes: Sequence[Tensor | None]
) -> tuple[pd.DataFrame, np.ndarray | None]:
    """A series' rows, and what the network answers for the exam."""
    embeddings, positions = ensemble.embed_series(whole, boxes), torch.tensor(whole.positions_mm)
    answers = ensemble.answers(embeddings, torch.tensor([len(whole)]), positions, of=whole.files[0])
    exam = ExamId(whole.patient_id, whole.study_uid, whole.series_uid)
    rows = slice_rows(exam, whole.sop_uids, whole.files, whole.positions_mm, answers.slices)
    return rows, None if answers.exams is None else answers.exams[0]


def predict_prepared(
    ensemble: ModelEnsemble,
    index: Index,
    series: np.ndarray,
    *,
    threads: int = 2,
    progress: Callable[[int, int], object] | None = None,
) -> "Predictions":
    """The same tables for series of a prepared set, by their numbers, with the truth where it is known.

    Raises:
        DataError: no series, or pixels that are missing or damaged.
        RunError: an answer is no finite number.
    """
    tables, warnings, scores = [], [], list[np.ndarray | None]()
    tasks = [[Item(int(i))] for i in series]
    for batch in feed(tasks, lambda items, allocate: read_batch(index, items, allocate), threads=threads,
                      device=ensemble.device):  # fmt: skip
        i = batch.items[0].series
        row, rows = index.series_row(i), slice(index.offsets[i], index.offsets[i + 1])
        embedded = ensemble.embed(batch.hu, batch.lengths)
        answers = ensemble.answers(embedded, batch.lengths, batch.positions_mm, of=str(index.store_path(i)))
        exam = ExamId(row["patient_id"], row["study_uid"], row["series_uid"])
        tables.append(slice_rows(exam, index.sop_uids(i), index.files(i), index.positions_mm[rows], answers.slices,
                                 index.labels[rows]))  # fmt: skip
        scores.append(None if answers.exams is None else answers.exams[0])
        warnings.append(row["warnings"].splitlines())
        if progress is not None:
            progress(len(tables), len(tasks))
    if not tables:
        raise DataError(f"{index.folder}: no series to predict")
    exams = exam_rows(tables, warnings, scores, index.exam_labels[series], weights=ensemble.weights)
    return Predictions(pd.concat(tables, ignore_index=True), exams, series_warnings=warnings)


@dataclass(frozen=True)
class Predictions:
    """Outcome of `predict_sources` and of `predict_prepared`.

    Attributes:
        slices: the prediction table.
        exams: the table of exams, with the columns of `EXAM_COLUMNS` and, of sources, `chosen`: why that series.
        left_out: files without a prediction, with reasons.
        failed: those of them that should have had one, and sources that gave nothing.
        not_asked: the first file of each series that was passed over for a better one of its study, with the reason.
        series_warnings: what a person should know of each series, in the order of the exams.
        note: what a person should know of all these predictions, if anything.
        calibration_notes: what the calibrated columns stand on; none without such columns.
        series: of each exam, in their order, slice k that of its row k, without pixels; none of a prepared set.
        report_remarks: what could not be shown in a report.
        dicom_remarks: first files of exams without DICOM results, with reasons; as expected ones, what results lack.
    """

    slices: pd.DataFrame
    exams: pd.DataFrame
    left_out: list[LeftOut] = field(default_factory=list)
    failed: list[LeftOut] = field(default_factory=list)
    not_asked: list[LeftOut] = field(default_factory=list)
    series_warnings: list[list[str]] = field(default_factory=list)
    note: str | None = None
    calibration_notes: list[str] = field(default_factory=list)
    series: list[Series] = field(default_factory=list)
    report_remarks: list[str] = field(default_factory=list)
    dicom_remarks: list[LeftOut] = field(default_factory=list)

    def remarks(self) -> list[str]:
        """What a person should know of these predictions, a line each."""
        lines = [f"Note: {note}" for note in (self.note, *self.calibration_notes) if note]
        warned = sum(bool(warnings) for warnings in self.series_warnings)
        if warned:
            lines.append(
                f"Note: {warned} of {len(self.exams)} series with warnings: column `warnings` of the exams' table"
            )
            often = Counter(text for warnings in self.series_warnings for text in warnings).most_common(_SHOWN)
            lines += [f"    {number} series: {text}" for text, number in often]
        expected = [item for item in self.left_out if item.expected]
        lines += [f"left out: {counted(n, 'file')}: {reason}" for reason, n in count_reasons(expected).items()]
        examples = {item.reason.partition(":")[0]: item.file for item in reversed(self.not_asked)}
        for reason, n in count_reasons(self.not_asked).items():
            example = examples[reason.partition(":")[0].removesuffix(" (details differ)")]
            lines.append(f"not asked: {n} series, such as that of {example}: {reason}; --all-series asks all")
        lines += [f"not predicted: {item.file}: {item.reason}" for item in self.failed]
        lines += [f"report: {line}" for line in self.report_remarks]
        return lines + [f"dicom: {item.file}: {item.reason}" for item in self.dicom_remarks]


Predictor = Callable[[Sequence[Series]], Iterator[SeriesPrediction]]
"""Predicts many series, in their order: `predict_local`, or `ichseq.inference.cluster.predict_distributed`."""


def predict_local(ensemble: ModelEnsemble) -> Predictor:
    """Predicting in this process: the next series is read while one is predicted."""

    def predictor(found: Sequence[Series]) -> Iterator[SeriesPrediction]:
        with ThreadPoolExecutor(1, thread_name_prefix="read") as thread:
            waiting = [thread.submit(_readable, ensemble, series) for series in found[:1]]
            for k in range(len(found)):
                read = waiting.pop().result()
                if k + 1 < len(found):
                    waiting.append(thread.submit(_readable, ensemble, found[k + 1]))
                yield _answer(ensemble, *read)

    return predictor


def predict_sources(
    predictor: Predictor | ModelEnsemble | Sequence[Model],
    sources: Sequence[str | Path | Sequence[str | Path]],
    *,
    note: str | None = None,
    weights: str = "",
    order: Order = "position",
    all_series: bool = False,
    learned_mm: tuple[float, float] | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Predictions:
    """Predict the series of the sources taken together, going on past what can't be read.

    Of each study, those that `ichseq.ct.choice.choose` takes; if none of a series' slices can be read, those that it
    stood for.

    Args:
        predictor: models, or a `ModelEnsemble`, or a `Predictor`.
        sources: folders, zips, files, or lists of them; a series may lie in several of them.
        note: what a person should know of all predictions; with models, `network_note` is asked.
        weights: which weights answer, as `ModelEnsemble.weights` says, which is asked with models.
        order: of the slices, as for `load_series`.
        all_series: every series of every study.
        learned_mm: distances of slices that the models have learned on; with models, they are asked.
        progress: called with (series done, series in all).

    Raises:
        ScanError: not one series could be predicted.
        RunError: an answer is no finite number.
    """
    if not callable(predictor):
        ensemble = predictor if isinstance(predictor, ModelEnsemble) else ModelEnsemble(predictor)
        note, learned_mm = note or network_note(ensemble.models), learned_mm or ensemble.learned_mm
        weights, predictor = weights or ensemble.weights, predict_local(ensemble)
    found, failed = load_sources(sources, order=order)
    failed += [item for item in found.left_out if not item.expected]
    asked = asked_of(found, learned_mm, all_series=all_series)
    return predict_found(
        predictor, asked, note=note, weights=weights, left_out=found.left_out, failed=failed, progress=progress
    )


def predict_found(
    predictor: Predictor,
    found: Sequence[Series] | Asked,
    *,
    note: str | None = None,
    weights: str = "",
    left_out: Sequence[LeftOut] = (),
    failed: Sequence[LeftOut] = (),
    progress: Callable[[int, int], object] | None = None,
) -> Predictions:
    """Predict series that are loaded, going on past slices that can't be read.

    Args:
        predictor: as for `predict_sources`.
        found: the series, or those that were chosen.
        note: what a person should know of all predictions.
        weights: which weights answer, as `ModelEnsemble.weights` says.
        left_out: files that were left out already, with reasons.
        failed: those of them that should be in a series, and sources that gave none.
        progress: called with (series done, series in all).

    Raises:
        ScanError: not one series could be predicted.
        RunError: an answer is no finite number.
    """
    tables, series_warnings, scores = [], [], list[np.ndarray | None]()
    unread, not_asked, why = list[LeftOut](), list[LeftOut](), list[str]()
    answered: list[Series] = []
    asked = found if isinstance(found, Asked) else asked_of(found, all_series=True)
    while asked.series:
        lost = set[int]()
        for k, (series, outcome) in enumerate(zip(asked.series, predictor(asked.series), strict=True)):
            unread += outcome.unread
            if outcome.table is None:
                lost.add(k)
            else:
                tables.append(outcome.table)
                series_warnings.append(outcome.warnings)
                scores.append(outcome.exam)
                answered.append(series.only(outcome.table["file"]))
                why.append(asked.why[k])
            if progress is not None:
                progress(k + 1, len(asked.series))
        not_asked += asked.not_asked(lost)
        asked = asked.instead_of(lost)
    failed = [*failed, *(item for item in unread if not item.expected)]
    if not tables:
        first = "; ".join(f"{item.file}: {item.reason}" for item in failed[:3])
        raise ScanError("", f"no series could be predicted: {first}")
    slices, every = pd.concat(tables, ignore_index=True), [*left_out, *unread]
    exams = exam_rows(tables, [[*own, *([note] if note else [])] for own in series_warnings], scores, weights=weights)
    if isinstance(found, Asked):
        exams[CHOSEN] = why
    return Predictions(slices, exams, every, failed, not_asked, series_warnings, note, series=answered)
