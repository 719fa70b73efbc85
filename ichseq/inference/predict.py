"""Predictions from DICOM series or from a prepared set, by one model or the mean of several."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from ichseq.ct.choice import NO_PICTURE
from ichseq.ct.left_out import LeftOut, count_reasons
from ichseq.ct.order import Order
from ichseq.ct.series import Series
from ichseq.data.batches import Item, read_batch
from ichseq.data.feed import feed
from ichseq.data.index import Index
from ichseq.errors import DataError, ScanError, counted
from ichseq.exported.loaded import AnyModel
from ichseq.inference.model_ensemble import ModelEnsemble
from ichseq.inference.notes import network_note
from ichseq.inference.one_series import SeriesPrediction, predict_read, read_series
from ichseq.inference.sources import NO_HEAD, Asked, asked_of, load_sources, no_heads_among
from ichseq.predictions.schema import CHOSEN, ExamId, exam_rows, slice_rows
from ichseq.predictions.warned import warning_lines


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
        ConfigError: a model's window shows what the set does not keep.
        DataError: no series, or pixels that are missing or damaged.
        RunError: an answer is no finite number.
    """
    for model in ensemble.models:
        index.refuse_windows(model.config.windows)
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
        others: the series without an answer, each with the reason, likewise.
        studies: the table of studies (`ichseq.inference.studies`); None: it was not made.
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
    others: list[tuple[Series, str]] = field(default_factory=list)
    studies: pd.DataFrame | None = None
    report_remarks: list[str] = field(default_factory=list)
    dicom_remarks: list[LeftOut] = field(default_factory=list)

    def remarks(self) -> list[str]:
        """What a person should know of these predictions, a line each."""
        lines = [f"Note: {note}" for note in (self.note, *self.calibration_notes) if note]
        lines += warning_lines(self.slices, self.exams, self.series_warnings)
        expected = [item for item in self.left_out if item.expected]
        lines += [f"left out: {counted(n, 'file')}: {reason}" for reason, n in count_reasons(expected).items()]
        examples = {item.reason.partition(":")[0]: item.file for item in reversed(self.not_asked)}
        for reason, n in count_reasons(self.not_asked).items():
            example = examples[reason.partition(":")[0].removesuffix(" (details differ)")]
            options = "--all-series with --any-series" if reason.startswith(NO_PICTURE) else "--all-series"
            asks = "" if reason.startswith(NO_HEAD) else f"; {options} asks all"
            lines.append(f"not asked: {n} series, such as that of {example}: {reason}{asks}")
        lines += [f"not predicted: {item.file}: {item.reason}" for item in self.failed]
        lines += [f"report: {line}" for line in self.report_remarks]
        return lines + [f"dicom: {item.file}: {item.reason}" for item in self.dicom_remarks]


Predictor = Callable[[Sequence[Series]], Iterator[SeriesPrediction]]
"""Predicts many series, in their order: `predict_local`, or `ichseq.inference.cluster.predict_distributed`."""


def predict_local(ensemble: ModelEnsemble, *, any_series: bool = False) -> Predictor:
    """Predicting in this process: the next series is read while one is predicted.

    With `any_series`, what is surely no plain picture of a head is predicted too.
    """

    def predictor(found: Sequence[Series]) -> Iterator[SeriesPrediction]:
        with ThreadPoolExecutor(1, thread_name_prefix="read") as thread:
            waiting = [thread.submit(read_series, ensemble, series, any_series) for series in found[:1]]
            for k in range(len(found)):
                read = waiting.pop().result()
                if k + 1 < len(found):
                    waiting.append(thread.submit(read_series, ensemble, found[k + 1], any_series))
                yield predict_read(ensemble, read, any_series)

    return predictor


def predict_sources(
    predictor: Predictor | ModelEnsemble | Sequence[AnyModel],
    sources: Sequence[str | Path | Sequence[str | Path]],
    *,
    note: str | None = None,
    weights: str = "",
    order: Order = "position",
    all_series: bool = False,
    any_series: bool = False,
    learned_mm: tuple[float, float] | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Predictions:
    """Predict the series of the sources taken together, going on past what can't be read.

    Of each study, those that `ichseq.ct.choice.choose` takes; if none of a series' slices can be read, or it is no
    plain picture of a head, those that it stood for.

    Args:
        predictor: models, or a `ModelEnsemble`, or a `Predictor`.
        sources: folders, archives, files, or lists of them; a series may lie in several of them.
        note: what a person should know of all predictions; with models, `network_note` is asked.
        weights: which weights answer, as `ModelEnsemble.weights` says, which is asked with models.
        order: of the slices, as for `load_series`.
        all_series: every series of every study.
        any_series: with models, what is surely no plain picture of a head too; a `Predictor` has its own rule.
        learned_mm: distances of slices that the models have learned on; with models, they are asked.
        progress: called with (series done, series in all).

    Raises:
        ScanError: not one series could be predicted.
        RunError: an answer is no finite number.
    """
    if not callable(predictor):
        ensemble = predictor if isinstance(predictor, ModelEnsemble) else ModelEnsemble(predictor)
        note, learned_mm = note or network_note(ensemble.models), learned_mm or ensemble.learned_mm
        weights, predictor = weights or ensemble.weights, predict_local(ensemble, any_series=any_series)
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

    A series that is surely no plain picture of a head is passed over: a failure, if its study has no answer then.

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
    no_heads = list[tuple[Series, str]]()
    answered, others = list[Series](), list[tuple[Series, str]]()
    asked = found if isinstance(found, Asked) else asked_of(found, all_series=True)
    while asked.series:
        lost = set[int]()
        for k, (series, outcome) in enumerate(zip(asked.series, predictor(asked.series), strict=True)):
            unread += outcome.unread
            if outcome.table is None:
                lost.add(k)
                no_heads += [(series, outcome.no_head)] * bool(outcome.no_head)
                why_not = f"{NO_HEAD} ({outcome.no_head})" if outcome.no_head else "no slice of it can be read"
                others.append((series, why_not))
            else:
                tables.append(outcome.table)
                series_warnings.append(outcome.warnings)
                scores.append(outcome.exam)
                answered.append(series.only(outcome.table["file"]))
                why.append(asked.why[k])
            if progress is not None:
                progress(k + 1, len(asked.series))
        passed = asked.not_asked(lost)
        others += passed
        not_asked += [LeftOut(series.files[0], reason, expected=True) for series, reason in passed]
        asked = asked.instead_of(lost)
    beside = no_heads_among(no_heads, answered)
    not_asked += [item for item in beside if item.expected]
    unread += [item for item in beside if not item.expected]
    failed = [*failed, *(item for item in unread if not item.expected)]
    if not tables:
        first = "; ".join(f"{item.file}: {item.reason}" for item in failed[:3])
        raise ScanError("", f"no series could be predicted: {first}")
    slices, every = pd.concat(tables, ignore_index=True), [*left_out, *unread]
    exams = exam_rows(tables, [[*own, *([note] if note else [])] for own in series_warnings], scores, weights=weights)
    if isinstance(found, Asked):
        exams[CHOSEN] = why
    return Predictions(slices, exams, every, failed, not_asked, series_warnings, note, series=answered, others=others)
