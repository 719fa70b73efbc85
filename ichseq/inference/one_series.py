"""One series: read, looked at, and predicted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ichseq.ct.left_out import LeftOut, SliceError
from ichseq.ct.plausible import Plausibility
from ichseq.ct.series import Series
from ichseq.errors import counted
from ichseq.inference.model_ensemble import ModelEnsemble
from ichseq.predictions.schema import ExamId, slice_rows


@dataclass(frozen=True)
class SeriesPrediction:
    """What came of one series.

    Attributes:
        table: its slices' rows; None if no slice can be read, or it is no picture of a head.
        warnings: what a person should know of it.
        unread: slices that can't be read.
        no_head: why it is not predicted though its slices can be read: it is surely no plain picture of a head.
        exam: (6,) what the network answers for the exam; None: the highest of its slices.
    """

    table: pd.DataFrame | None
    warnings: list[str]
    unread: list[LeftOut]
    exam: np.ndarray | None = None
    no_head: str = ""


def predict_series(ensemble: ModelEnsemble, series: Series, *, any_series: bool = False) -> SeriesPrediction:
    """Predict one series, in pieces: of a long one no more is in memory than of a short one, embeddings aside.

    The slices that can't be read are left out, and listed. What is surely no plain picture of a head has no answer,
    unless `any_series` is set.
    """
    return predict_read(ensemble, read_series(ensemble, series, any_series), any_series)


class SeriesRead(NamedTuple):
    """A series that was read once.

    Attributes:
        whole: the series less what can't be read; None: there is nothing to predict.
        unread: what can't be read.
        boxes: its crop boxes.
        doubts: what it does not look like.
        no_head: as in `SeriesPrediction`.
    """

    whole: Series | None
    unread: list[LeftOut]
    boxes: Sequence[Tensor | None] = ()
    doubts: Sequence[str] = ()
    no_head: str = ""


def read_series(ensemble: ModelEnsemble, series: Series, any_series: bool) -> SeriesRead:
    """Read a series and look at it; with `any_series`, as a series of a head whatever it looks like."""
    bodies, looks = ensemble.empty_bodies(series.shape[1:]), Plausibility(series, ensemble.learned_mm)
    if (no_head := looks.no_head()) and not any_series:  # by its header: its pixels need no reading
        return SeriesRead(None, [], no_head=no_head)

    def look(hu: np.ndarray) -> None:
        ensemble.add_body(bodies, hu)
        looks.add(hu)

    whole, unread = series.readable(look)
    if whole is None:
        return SeriesRead(None, unread)
    if (no_head := looks.no_head()) and not any_series:
        return SeriesRead(None, unread, no_head=no_head)
    return SeriesRead(whole, unread, ensemble.crop_boxes(bodies), looks.warnings())


def predict_read(ensemble: ModelEnsemble, read: SeriesRead, any_series: bool) -> SeriesPrediction:
    """Predict what `read_series` gave; a slice that fails at its second reading is left out, and the series redone."""
    lost, unread = 0, read.unread  # slices that were read once, and then not again
    while (whole := read.whole) is not None:
        try:
            table, exam = _table(ensemble, whole, read.boxes)
            later = [f"{counted(lost, 'slice')} could be read once only: left out"] if lost else []
            return SeriesPrediction(table, [*whole.warnings, *read.doubts, *later], unread, exam)
        except SliceError as error:
            unread, lost = [*unread, error.left_out], lost + 1
            if len(whole) == 1:
                return SeriesPrediction(None, [], unread)
            read = read_series(ensemble, whole.without(error.file), any_series)
            unread = [*unread, *read.unread]
    return SeriesPrediction(None, [], unread, no_head=read.no_head)


def _table(
    ensemble: ModelEnsemble, whole: Series, boxes: Sequence[Tensor | None]
) -> tuple[pd.DataFrame, np.ndarray | None]:
    """A series' rows, and what the network answers for the exam."""
    embeddings, positions = ensemble.embed_series(whole, boxes), torch.tensor(whole.positions_mm)
    answers = ensemble.answers(embeddings, torch.tensor([len(whole)]), positions, of=whole.files[0])
    exam = ExamId(whole.patient_id, whole.study_uid, whole.series_uid)
    rows = slice_rows(exam, whole.sop_uids, whole.files, whole.positions_mm, answers.slices)
    return rows, None if answers.exams is None else answers.exams[0]
