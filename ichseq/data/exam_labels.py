"""Labels of whole exams: what a table gave, completed by what the slices tell.

A slice tells about its exam: one that bleeds makes the exam one that bleeds, and slices that are all known not to bleed
make it one that does not. An exam tells nothing about a single slice.
"""

from typing import Final

import numpy as np

from ichseq.labels import LABELS

ANY: Final = LABELS.index("any")


def completed(labels: np.ndarray) -> np.ndarray:
    """Labels (n, 6) in which `any` follows from the five kinds, and they from it, where they are unknown.

    One kind that is there makes `any` 1, five that are not make it 0, and an `any` of 0 makes all five 0.
    """
    known = labels.astype(np.float32)
    kinds, anything = known[:, :ANY], known[:, ANY]
    unknown = np.isnan(anything)
    anything[unknown & (kinds == 1).any(axis=1)] = 1
    anything[unknown & (kinds == 0).all(axis=1)] = 0
    kinds[np.isnan(kinds) & (anything == 0)[:, None]] = 0
    return known


def by_slices(labels: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """What the labels of slices say of their exams, float32 (n_series, 6), NaN where they don't.

    Args:
        labels: (n_slices, 6), NaN where unknown, by series.
        lengths: (n_series,), slices of each.
    """
    owner = np.repeat(np.arange(len(lengths)), lengths)
    positive, negative = np.zeros((2, len(lengths), len(LABELS)), np.int64)
    np.add.at(positive, owner, labels == 1)
    np.add.at(negative, owner, labels == 0)
    none = (negative == lengths[:, None]) & (lengths[:, None] > 0)
    return completed(np.where(positive > 0, 1.0, np.where(none, 0.0, np.nan)))


def exam_labels(given: np.ndarray, slices: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Labels of exams, float32 (n_series, 6): those given where known, else what the slices tell, NaN where unknown.

    Args:
        given: (n_series, 6), the exams' own.
        slices: (n_slices, 6), those of the slices, by series.
        lengths: (n_series,), slices of each.
    """
    own = completed(given)
    return completed(np.where(np.isnan(own), by_slices(slices, lengths), own))
