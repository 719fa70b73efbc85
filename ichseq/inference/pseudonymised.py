"""Predictions as they are given away: with pseudonyms, and in an order that does not tell whose they are."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from ichseq.inference.predict import Predictions
from ichseq.predictions.schema import EXAM_KEY
from ichseq.predictions.without_ids import without_ids
from ichseq.pseudonyms import Pseudonyms

T = TypeVar("T")


def pseudonymised(predictions: Predictions, names: Pseudonyms) -> Predictions:
    """The same with pseudonyms in all tables, whose exams and studies stand in the order of these.

    The series, and the files that failed or were left out, keep their names: they are for who holds the scans.
    """
    slices, exams = without_ids(predictions.slices, names), without_ids(predictions.exams, names)
    studies = None if predictions.studies is None else without_ids(predictions.studies, names)
    order = exams.sort_values(list(EXAM_KEY), kind="stable").index.to_numpy()
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    of_slice = np.repeat(rank, exams["n_slices"].to_numpy())
    return replace(
        predictions,
        slices=slices.iloc[np.argsort(of_slice, kind="stable")].reset_index(drop=True),
        exams=exams.iloc[order].reset_index(drop=True),
        studies=None if studies is None else studies.sort_values(list(EXAM_KEY[:2]), ignore_index=True),
        series_warnings=_in_order(predictions.series_warnings, order),
        series=_in_order(predictions.series, order),
    )


def _in_order(items: Sequence[T], order: np.ndarray) -> list[T]:
    return [items[k] for k in order] if len(items) == len(order) else list(items)
