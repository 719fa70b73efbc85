"""The bootstrap over patients: what a draw of patients makes of losses and AUCs, with the work on slices done once."""

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ichseq.labels import CLIP_PROBABILITY, LABEL_WEIGHTS, LABELS

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Intervals = dict[str, list[float] | None]

BLOCK_NUMBERS: Final = 1_000_000
"""About how many multiplicities a block of draws holds at once; bounds the memory."""


def clipped_probability(probability: Floats) -> Floats:
    return np.clip(probability, CLIP_PROBABILITY, 1 - CLIP_PROBABILITY)


class PatientSums:
    """Log losses summed by patient and label: a draw then costs a matrix product instead of a pass over the slices.

    Attributes:
        known: (patients, 6), how many slices have a known label.
        loss: (patients, 6), sum of their log losses.
        prior: (patients, 6), the same if the prevalence were the answer.
    """

    def __init__(self, probability: Floats, truth: Floats, prior: Floats, patient: Integers, n_patients: int) -> None:
        def by_patient(values: Floats) -> Floats:
            columns = [np.bincount(patient, values[:, k], minlength=n_patients) for k in range(len(LABELS))]
            return np.stack(columns, axis=1)

        known = ~np.isnan(truth)
        clipped = clipped_probability(probability)
        self.known = by_patient(known.astype(np.float64))
        self.loss = by_patient(np.where(known, -np.log(np.where(truth == 1, clipped, 1 - clipped)), 0.0))
        positive = by_patient((truth == 1).astype(np.float64))
        # A label without truth has a NaN prevalence at times and counts nothing: any finite answer will do there.
        answer = clipped_probability(np.where(known.any(axis=0), prior, 0.5))
        self.prior = -positive * np.log(answer) - (self.known - positive) * np.log(1 - answer)

    def values(self, counts: Integers) -> dict[str, Floats]:
        """Value of every log loss for each draw; counts (draws, patients) says how often a patient was drawn."""
        often = counts.astype(np.float64)
        known, loss, prior = often @ self.known, often @ self.loss, often @ self.prior
        weights = np.array(LABEL_WEIGHTS)
        total = known @ weights
        with np.errstate(invalid="ignore", divide="ignore"):
            by_label = loss / known
            values = {
                "weighted_log_loss": loss @ weights / total,
                "prior_weighted_log_loss": prior @ weights / total,
                "ratio_to_prior": (loss @ weights) / (prior @ weights),
            }
        return values | {f"labels.{label}.log_loss": by_label[:, k] for k, label in enumerate(LABELS)}


class PatientRanks:
    """The AUC under patient multiplicities, with the sorting done once.

    A positive beats the negatives below it and half beats those at its own score, so the AUC is a sum over positives
    of two look-ups in the running count of the sorted negatives.
    """

    def __init__(self, score: Floats, truth: Floats, patient: Integers) -> None:
        negative = np.flatnonzero(truth == 0)
        negative = negative[np.argsort(score[negative], kind="stable")]
        positive = np.flatnonzero(truth == 1)
        self.negative_patient = patient[negative]
        self.positive_patient = patient[positive]
        self.below = np.searchsorted(score[negative], score[positive], side="left")
        self.up_to = np.searchsorted(score[negative], score[positive], side="right")

    def values(self, counts: Integers) -> Floats:
        """AUC of each draw; NaN where a draw holds one class alone. Counts as in PatientSums.values."""
        running = np.zeros((len(counts), len(self.negative_patient) + 1), dtype=np.int64)
        np.cumsum(counts[:, self.negative_patient], axis=1, out=running[:, 1:])
        often = counts[:, self.positive_patient]
        # Whole numbers up to here: twice the number of pairs won, exact in int64.
        won = (often * (running[:, self.below] + running[:, self.up_to])).sum(axis=1)
        pairs = often.sum(axis=1) * running[:, -1]
        with np.errstate(invalid="ignore", divide="ignore"):
            return won / (2.0 * pairs)


def bootstrap_intervals(
    sums: PatientSums,
    ranks: dict[str, PatientRanks],
    n_patients: int,
    draws: int,
    seed: int,
    undefined: dict[str, str],
) -> Intervals:
    """95 % intervals by dotted name; None where the value itself is undefined, or where one patient is all there is."""
    names = ["weighted_log_loss", "prior_weighted_log_loss", "ratio_to_prior"]
    names += [f"labels.{label}.log_loss" for label in LABELS] + list(ranks)
    if n_patients < 2:
        # A single patient drawn again and again is the same patient: zero width would pass for certainty.
        undefined["intervals"] = "one patient: nothing to draw from"
        return dict.fromkeys(names)
    defined = {name: auc for name, auc in ranks.items() if name not in undefined}
    largest = max([n_patients, *(len(auc.negative_patient) + len(auc.positive_patient) for auc in defined.values())])
    block = max(1, BLOCK_NUMBERS // largest)
    values: dict[str, list[Floats]] = {name: [] for name in names}
    for counts in drawn_counts(n_patients, draws, seed, block):
        for name, value in sums.values(counts).items():
            values[name].append(value)
        for name, auc in defined.items():
            values[name].append(auc.values(counts))
    return {name: None if name in undefined else interval_of(np.concatenate(values[name])) for name in names}


def drawn_counts(n_patients: int, draws: int, seed: int, block: int) -> Iterator[Integers]:
    """The bootstrap: how often each draw holds each patient, (up to `block` draws, patients) at a time."""
    generator = np.random.default_rng(seed)
    for start in range(0, draws, block):
        drawn = [generator.integers(n_patients, size=n_patients) for _ in range(start, min(start + block, draws))]
        yield np.stack([np.bincount(patients, minlength=n_patients) for patients in drawn])


def interval_of(values: Floats) -> list[float] | None:
    """The 95 % percentile interval; values that do not exist are left out, and None if none does."""
    values = values[np.isfinite(values)]
    if not values.size:
        return None
    low, high = np.quantile(values, [0.025, 0.975])
    return [float(low), float(high)]
