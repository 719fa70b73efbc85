"""Where the weighted log loss of prediction tables lies: next to the ends of a bleed, missed, or raised for nothing.

    python benchmarks/loss_shares.py runs/experiments/results/*/predictions.parquet

The best temperature is fitted on the same slices, so that what it wins is the most that overconfidence can cost.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from common import report
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit

from ichseq.errors import DataError
from ichseq.evaluation.bootstrap import clipped_probability
from ichseq.labels import LABEL_WEIGHTS
from ichseq.predictions.check import check_scorable
from ichseq.predictions.read import read_table

HEAD = ["table", "weighted log loss", "at the best temperature", "next to a change", "missed inside", "raised beside",
        "series without the label"]  # fmt: skip


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("tables", nargs="+", type=Path, help="prediction tables with labels")
    try:
        rows = [[path.parent.name, *shares(read_table(path))] for path in options.parse_args().tables]
    except DataError as error:
        raise SystemExit(str(error)) from None
    report("loss-shares", "Where the weighted log loss lies", [HEAD, *sorted(rows, key=lambda row: row[1])], [
        "Shares of the loss by slice and label. Next to a change: the two slices between which the label begins or "
        "ends. Of the rest, in series that have the label somewhere, inside: the slice has it; beside: it has not.",
    ])  # fmt: skip


def shares(table: pd.DataFrame) -> list[str]:
    """The cells of a table's row."""
    table = table.sort_values(["series_uid", "slice_index"], ignore_index=True)
    probability, truth = check_scorable(table)
    if np.isnan(truth).any():
        raise DataError("a table holds slices whose labels are not known; give tables of labelled ones")
    probability = clipped_probability(probability)
    loss = losses(probability, truth)
    best = minimize_scalar(lambda k: losses(expit(logit(probability) * k), truth).sum(), bounds=(0.2, 5))
    series = table["series_uid"].to_numpy()
    changed = (truth[1:] != truth[:-1]) & (series[1:] == series[:-1])[:, None]
    near = np.zeros(truth.shape, dtype=bool)
    near[1:] |= changed
    near[:-1] |= changed
    has = pd.DataFrame(truth).groupby(series).transform("max").to_numpy() == 1
    places = [near, ~near & (truth == 1), ~near & has & (truth == 0), ~near & ~has]
    parts = [loss[place].sum() / loss.sum() for place in places]
    means = [total / len(table) for total in (loss.sum(), best.fun)]
    return [*(f"{mean:.4f}" for mean in means), *(f"{part:.0%}" for part in parts)]


def losses(probability: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(slices, 6): the terms of the weighted log loss."""
    weights = np.array(LABEL_WEIGHTS) / sum(LABEL_WEIGHTS)
    return -weights * np.where(truth == 1, np.log(probability), np.log1p(-probability))


if __name__ == "__main__":
    main()
