"""Is one model better than another: losses and AUCs on the same slices or exams, and how far chance moves them."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from ichseq.errors import ConfigError
from ichseq.evaluation.bootstrap import BLOCK_NUMBERS, Floats, Integers, PatientSums, drawn_counts, interval_of
from ichseq.evaluation.delong import delong_test
from ichseq.evaluation.metrics import patients_of
from ichseq.labels import LABEL_WEIGHTS, LABELS
from ichseq.predictions.check import (
    KEYS,
    Unit,
    check_columns,
    check_scorable,
    match_rows,
    merge_truth,
    refuse_duplicates,
)

NAMES: Final = ("one table", "the other")
"""What messages call the two sides unless they are given names."""


def paired_difference(
    one: pd.DataFrame,
    other: pd.DataFrame,
    *,
    unit: Unit = "slice",
    draws: int = 1000,
    seed: int = 0,
    names: Sequence[str] = NAMES,
) -> dict[str, Any]:
    """Compare two prediction tables over the same slices, or two tables of exams over the same exams.

    Intervals are 95 % percentile intervals of a bootstrap over patients (over studies where patient_id is empty). Each
    draw holds the same patients for both tables, so that what makes a patient hard for both cancels: the interval of
    the difference is much narrower than the two losses' own. A label that only one table knows counts for both.

    Args:
        one: a row a slice, with the columns of `PREDICTION_COLUMNS`, or a row an exam, with those of `EXAM_COLUMNS`;
            true_<label> is NaN where unknown.
        other: the same slices or exams, in any order.
        unit: what a row is.
        draws: bootstrap draws, at least 1.
        seed: seed of the bootstrap.
        names: of the two tables, for messages.

    Returns:
        A dict that is strict JSON: one and other (their weighted log losses), difference (one - other, below 0 if one
        is better), ratio (one / other), intervals (difference, ratio -> [low, high], None where one patient is all
        there is), n_slices or n_exams, n_patients and draws.

    Raises:
        ConfigError: no draws.
        DataError: a table that `evaluate_table` would refuse, a row that stands twice or in one table alone, or
            truths that contradict each other.
    """
    result = _compare([one], [other], draws, seed, list(names), unit)
    return {name: value for name, value in result.items() if name not in ("ones", "others")}


def paired_difference_of_seeds(
    ones: Sequence[pd.DataFrame],
    others: Sequence[pd.DataFrame],
    *,
    unit: Unit = "slice",
    draws: int = 1000,
    seed: int = 0,
    names: Sequence[str] = NAMES,
) -> dict[str, Any]:
    """Compare two systems of which each was trained with several seeds: the mean loss of one's seeds and the other's.

    As `paired_difference`, but each draw also draws seeds of each side, with replacement, as many as there are: the
    interval then holds the chance of training too. Two or three seeds tell little of that chance, so with so few the
    interval is rather too narrow.

    Args:
        ones: the tables of one system, a table a seed.
        others: those of the other; they need not be as many.
        unit: what a row is.
        draws: bootstrap draws, at least 1.
        seed: seed of the bootstrap.
        names: of the two systems, for messages.

    Returns:
        As `paired_difference`, where one and other are means over seeds, with ones and others: each seed's loss.

    Raises:
        ConfigError: no draws, or a side without a table.
        DataError: as `paired_difference`.
    """
    for name, tables in zip(names, (ones, others), strict=True):
        if not len(tables):
            raise ConfigError(f"{name}: no tables to compare; give at least one seed's")
    labels = [
        f"{name}, seed {k + 1}" if len(tables) > 1 else name
        for name, tables in zip(names, (ones, others), strict=True)
        for k in range(len(tables))
    ]
    return _compare(ones, others, draws, seed, labels, unit)


def auc_differences(
    one: pd.DataFrame, other: pd.DataFrame, *, unit: Unit = "slice", names: Sequence[str] = NAMES
) -> dict[str, Any]:
    """Compare the AUC of each label by DeLong's test, where rows of a patient are no independent cases.

    Args:
        one: as for `paired_difference`.
        other: as there.
        unit: what a row is.
        names: of the two tables, for messages.

    Returns:
        Label -> what `delong_test` gives, strict JSON.

    Raises:
        DataError: as `paired_difference`.
    """
    (first, second), truth, patient = _matched([one, other], names, unit)
    return {label: delong_test(first[:, k], second[:, k], truth[:, k], patient) for k, label in enumerate(LABELS)}


def _compare(
    ones: Sequence[pd.DataFrame],
    others: Sequence[pd.DataFrame],
    draws: int,
    seed: int,
    names: Sequence[str],
    unit: Unit,
) -> dict[str, Any]:
    if draws < 1:
        raise ConfigError(f"draws {draws}: a bootstrap needs at least 1; give a number such as 1000")
    losses, weight = _sums_by_patient([*ones, *others], names, unit)
    total = weight.sum()
    each = [float(loss.sum() / total) for loss in losses]
    result: dict[str, Any] = {"ones": each[: len(ones)], "others": each[len(ones) :]}
    one, other = float(np.mean(result["ones"])), float(np.mean(result["others"]))
    result |= {"one": one, "other": other, "difference": one - other, "ratio": one / other}
    intervals: dict[str, list[float] | None] = {"difference": None, "ratio": None}
    # A single patient drawn again and again is the same patient: zero width would pass for certainty.
    if len(weight) > 1:
        drawn_ones, drawn_others = _drawn_means(losses, weight, len(ones), draws, seed)
        intervals = {
            "difference": interval_of(drawn_ones - drawn_others),
            "ratio": interval_of(drawn_ones / drawn_others),
        }
    return result | {"intervals": intervals, f"n_{unit}s": len(ones[0]), "n_patients": len(weight), "draws": draws}


def _drawn_means(losses: list[Floats], weight: Floats, n_ones: int, draws: int, seed: int) -> tuple[Floats, Floats]:
    """Mean loss of either side in each draw; NaN where the patients drawn have no known label."""
    blocks = []
    for counts in drawn_counts(len(weight), draws, seed, max(1, BLOCK_NUMBERS // len(weight))):
        often = counts.astype(np.float64)
        with np.errstate(invalid="ignore"):
            # One product a table and not a matrix of all: equal tables then give equal numbers to the last bit.
            blocks.append(np.stack([often @ loss for loss in losses], axis=1) / (often @ weight)[:, None])
    drawn = np.concatenate(blocks)
    generator = np.random.default_rng([seed, 1])  # the patients' own generator draws as if there were no seeds
    means = []
    for side in (drawn[:, :n_ones], drawn[:, n_ones:]):
        number = side.shape[1]
        chosen = generator.integers(number, size=(draws, number))
        means.append(np.take_along_axis(side, chosen, axis=1).mean(axis=1))
    return means[0], means[1]


def _sums_by_patient(tables: Sequence[pd.DataFrame], names: Sequence[str], unit: Unit) -> tuple[list[Floats], Floats]:
    """Each table's weighted losses summed by patient, and the sum of the weights, each (patients,)."""
    probabilities, truth, patient = _matched(tables, names, unit)
    patients = int(patient.max()) + 1
    no_prior = np.full(len(LABELS), 0.5)
    sums = [PatientSums(probability, truth, no_prior, patient, patients) for probability in probabilities]
    weights = np.array(LABEL_WEIGHTS)
    return [one.loss @ weights for one in sums], sums[0].known @ weights


def _matched(tables: Sequence[pd.DataFrame], names: Sequence[str], unit: Unit) -> tuple[list[Floats], Floats, Integers]:
    """Each table's probabilities (n, 6) in the order of the first, the truth that any of them knows, the patients."""
    first = tables[0]
    probabilities = []
    truth: Floats | None = None
    for name, table in zip(names, tables, strict=True):
        probability, own_truth = _read(table, name, unit)
        if truth is None:
            truth = own_truth
        else:
            rows = match_rows(first, table, names[0], name, unit)
            probability = probability[rows]
            truth = merge_truth(truth, own_truth[rows], first, name, unit)
        probabilities.append(probability)
    assert truth is not None
    # Sorted, so that the order of the rows does not decide which patient a draw means.
    patient, _ = pd.factorize(patients_of(first).astype(str), sort=True)
    return probabilities, truth, patient


def _read(table: pd.DataFrame, name: str, unit: Unit) -> tuple[Floats, Floats]:
    check_columns(table, KEYS[unit], name)
    refuse_duplicates(table, name, unit)
    return check_scorable(table, name, unit=unit)
