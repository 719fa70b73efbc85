"""The mean of several prediction tables over the same slices."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ichseq.errors import ConfigError, counted
from ichseq.labels import LABELS
from ichseq.predictions.check import match_rows, merge_truth, refuse_duplicates
from ichseq.predictions.schema import TRUTH, Floats

_PROBABILITIES, _TRUTH = list(LABELS), list(TRUTH)


def blend(
    tables: Sequence[pd.DataFrame], weights: Sequence[float] | None = None, names: Sequence[str] | None = None
) -> pd.DataFrame:
    """Average the probabilities of several tables over the same slices.

    Args:
        tables: prediction tables; their rows may be in different orders.
        weights: one for each table, divided by their sum; None: all alike.
        names: of the tables, for messages.

    Returns:
        The first table, in its order, with the averages; a truth that it doesn't know is taken from the others.

    Raises:
        ConfigError: no table, weights that are not one for each, or one that is negative, or all of them zero.
        DataError: a slice stands in one table and not in another, twice in one, or the truth differs.
    """
    share = _shares(weights, len(tables))
    names = [f"table {k + 1}" for k in range(len(tables))] if names is None else names
    first = tables[0]
    refuse_duplicates(first, names[0])
    total = share[0] * first[_PROBABILITIES].to_numpy(dtype=np.float64)
    truth = first[_TRUTH].to_numpy(dtype=np.float64)
    for name, table, part in zip(names[1:], tables[1:], share[1:], strict=True):
        refuse_duplicates(table, name)
        rows = match_rows(first, table, names[0], name)
        total += part * table[_PROBABILITIES].to_numpy(dtype=np.float64)[rows]
        truth = merge_truth(truth, table[_TRUTH].to_numpy(dtype=np.float64)[rows], first, name)
    result = first.copy()
    result[_PROBABILITIES] = np.clip(total, 0, 1)  # weights that sum to 1 do so only to the last bit
    result[_TRUTH] = truth
    return result


def _shares(weights: Sequence[float] | None, number: int) -> Floats:
    if not number:
        raise ConfigError("nothing to blend; give at least one table")
    values = np.ones(number) if weights is None else np.array(weights, dtype=np.float64)
    shown = ",".join(f"{value:g}" for value in values)
    if len(values) != number:
        raise ConfigError(f"weights {shown}: {len(values)} for {counted(number, 'table')}; give one for each")
    if not np.isfinite(values).all() or (values < 0).any() or values.max() == 0:
        raise ConfigError(f"weights {shown}: none may be negative, and not all zero")
    values = values / values.max()  # so that their sum can't overflow
    return values / values.sum()
