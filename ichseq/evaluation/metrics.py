"""The metric of the six labels, discrimination by slice and by exam, and how far patients' chance moves them."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from ichseq.errors import DataError
from ichseq.evaluation.bootstrap import (
    Floats,
    Integers,
    PatientRanks,
    PatientSums,
    bootstrap_intervals,
    clipped_probability,
)
from ichseq.labels import LABEL_WEIGHTS, LABELS
from ichseq.predictions.check import check_scorable
from ichseq.predictions.schema import exam_numbers, has_truth

FULL_DRAWS_SLICES: Final = 200_000
"""Above this many slices the bootstrap draws less often, so that it stays under a minute."""

FEWEST_DRAWS: Final = 100
"""The bootstrap is never cut below this many draws."""


def evaluate_table(
    table: pd.DataFrame,
    prevalence: Sequence[float | None] | None,
    *,
    exams: pd.DataFrame | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Score a prediction table against the truth that stands in it.

    The weighted log loss is that of the RSNA 2019 competition: probabilities clipped, `any` weighing twice, the mean
    over every known (slice, label) entry. The prior answers every slice with the training prevalence, which is what a
    model that learned nothing would reach; `ratio_to_prior` below 1 means that something was learned. An exam is a
    series. Without a table of exams it is known by its `ExamId`: positive if any slice is, negative if all slices are
    known and negative, and left out otherwise; its score is the highest p(any) of its slices.

    Intervals are 95 % percentile intervals of a bootstrap over patients, since slices of a patient are alike; where
    patient_id is empty, the study stands for the patient, as in the folds. A draw in which a value does not exist
    (such as an AUC without a positive) is left out of that value's interval.

    Args:
        table: a row a slice, with the columns of `PREDICTION_COLUMNS`; true_<label> is NaN where unknown.
        prevalence: fraction of positive training slices in the order of LABELS; None where unknown.
        exams: the table of exams that belongs to it, whose scores and truth are taken then.
        draws: bootstrap draws, at least 1; fewer are made above 200,000 slices.
        seed: seed of the bootstrap.

    Returns:
        A dict that is strict JSON: weighted_log_loss, prior_weighted_log_loss, ratio_to_prior,
        labels.<label>.{log_loss, auc, average_precision, positives}, exam.{auc_any, positives}, with a table of exams
        by_exam.<label>.{log_loss, auc, average_precision, positives, negatives}, n_slices, n_exams, n_patients,
        intervals (dotted name -> [low, high]), undefined (dotted name -> why the value is None) and draws (the number
        made).

    Raises:
        DataError: columns missing, no truth in any table, a probability that is empty or outside 0..1, a truth other
            than 0, 1 or empty, or a prevalence that is not six fractions.
    """
    probability, truth = check_scorable(table, labels_needed=exams is None or not has_truth(exams))
    prior = _read_prevalence(prevalence)
    patient, patients = pd.factorize(patients_of(table), use_na_sentinel=False)
    undefined: dict[str, str] = {}
    ranks = {
        f"labels.{label}.auc": PatientRanks(probability[:, k], truth[:, k], patient) for k, label in enumerate(LABELS)
    }

    result: dict[str, Any] = _weighted_losses(probability, truth, prior, undefined)
    result["labels"] = {
        label: _label_metrics(f"labels.{label}", probability[:, k], truth[:, k], "slice", undefined)
        for k, label in enumerate(LABELS)
    }
    if exams is None:
        exam_patient, exam_score, exam_truth = _exams_of_slices(table, patient, probability, truth)
    else:
        exam_patient = pd.Index(patients).get_indexer(pd.Index(patients_of(exams)))
        scores, truths = check_scorable(exams, "table of exams", unit="exam", labels_needed=False)
        result["by_exam"] = _by_exam(scores, truths, undefined)
        ranks |= {
            f"by_exam.{label}.auc": PatientRanks(scores[:, k], truths[:, k], exam_patient)
            for k, label in enumerate(LABELS)
        }
        exam_score, exam_truth = scores[:, LABELS.index("any")], truths[:, LABELS.index("any")]
    result["exam"] = {
        "auc_any": _auc("exam.auc_any", exam_score, exam_truth, "exam", undefined),
        "positives": int((exam_truth == 1).sum()),
    }
    result |= {"n_slices": len(table), "n_exams": len(exam_score), "n_patients": len(patients)}
    ranks["exam.auc_any"] = PatientRanks(exam_score, exam_truth, exam_patient)

    draws = draws_for(len(table), draws)
    sums = PatientSums(probability, truth, prior, patient, len(patients))
    result["intervals"] = bootstrap_intervals(sums, ranks, len(patients), draws, seed, undefined)
    result["undefined"] = undefined
    result["draws"] = draws
    return result


def draws_for(n_slices: int, draws: int) -> int:
    """How many draws the bootstrap makes of so many slices where `draws` are asked for."""
    if n_slices <= FULL_DRAWS_SLICES:
        return draws
    return min(draws, max(FEWEST_DRAWS, draws * FULL_DRAWS_SLICES // n_slices))


def _read_prevalence(prevalence: Sequence[float | None] | None) -> Floats:
    """Prevalence as float64 (6,), NaN where unknown."""
    if prevalence is None:
        return np.full(len(LABELS), np.nan)
    prior = np.array([np.nan if p is None else p for p in prevalence], dtype=np.float64)
    if len(prior) != len(LABELS) or ((prior < 0) | (prior > 1)).any():
        raise DataError(f"training prevalence {list(prevalence)}: must be {len(LABELS)} fractions from 0 to 1")
    return prior


def _exams_of_slices(
    table: pd.DataFrame, patient: Integers, probability: Floats, truth: Floats
) -> tuple[Integers, Floats, Floats]:
    """Patient code, score and truth (NaN where unknown) of each exam."""
    k = LABELS.index("any")
    slices = pd.DataFrame(
        {
            "patient": patient,
            "score": probability[:, k],
            "truth": truth[:, k],
            "unknown": np.isnan(truth[:, k]),
        }
    )
    exams = slices.groupby(exam_numbers(table)).agg(
        {"patient": "first", "score": "max", "truth": "max", "unknown": "any"}
    )
    # One unlabelled slice may be the one that bleeds, so an exam counts as negative only if all of it is known.
    exam_truth = exams["truth"].mask(exams["unknown"] & (exams["truth"] != 1))
    return exams["patient"].to_numpy(), exams["score"].to_numpy(), exam_truth.to_numpy(dtype=np.float64)


def _by_exam(scores: Floats, truths: Floats, undefined: dict[str, str]) -> dict[str, Any]:
    return {
        label: _label_metrics(f"by_exam.{label}", scores[:, k], truths[:, k], "exam", undefined)
        | {"negatives": int((truths[:, k] == 0).sum())}
        for k, label in enumerate(LABELS)
    }


def patients_of(table: pd.DataFrame) -> pd.Series:
    """Whose each slice is; empty text comes back from a CSV file as NaN."""
    named = table["patient_id"].notna() & (table["patient_id"] != "")
    return table["patient_id"].astype(object).where(named, table["study_uid"])


def _weighted_losses(
    probability: Floats, truth: Floats, prior: Floats, undefined: dict[str, str]
) -> dict[str, float | None]:
    known = ~np.isnan(truth)
    if not known.any():
        names = ("weighted_log_loss", "prior_weighted_log_loss", "ratio_to_prior")
        undefined |= dict.fromkeys(names, "no slice with a known label")
        return dict.fromkeys(names)
    weights = np.broadcast_to(np.array(LABEL_WEIGHTS), truth.shape)[known]
    loss = float(log_loss(truth[known], clipped_probability(probability[known]), sample_weight=weights, labels=[0, 1]))
    # A label without any truth is no part of the mean, so its prevalence need not be known.
    lacking = [label for k, label in enumerate(LABELS) if known[:, k].any() and np.isnan(prior[k])]
    if lacking:
        reason = f"no training prevalence of {', '.join(lacking)}"
        undefined |= {"prior_weighted_log_loss": reason, "ratio_to_prior": reason}
        return {"weighted_log_loss": loss, "prior_weighted_log_loss": None, "ratio_to_prior": None}
    answer = clipped_probability(np.broadcast_to(prior, truth.shape)[known])
    prior_loss = float(log_loss(truth[known], answer, sample_weight=weights, labels=[0, 1]))
    return {"weighted_log_loss": loss, "prior_weighted_log_loss": prior_loss, "ratio_to_prior": loss / prior_loss}


def _label_metrics(
    name: str, probability: Floats, truth: Floats, unit: str, undefined: dict[str, str]
) -> dict[str, Any]:
    known = ~np.isnan(truth)
    positives = int((truth == 1).sum())
    loss = precision = None
    if known.any():
        loss = float(log_loss(truth[known], clipped_probability(probability[known]), labels=[0, 1]))
    else:
        undefined[f"{name}.log_loss"] = f"no {unit} with a known label"
    auc = _auc(f"{name}.auc", probability, truth, unit, undefined)
    if positives:
        precision = float(average_precision_score(truth[known], probability[known]))
    else:
        undefined[f"{name}.average_precision"] = undefined[f"{name}.auc"]
    return {"log_loss": loss, "auc": auc, "average_precision": precision, "positives": positives}


def _auc(name: str, score: Floats, truth: Floats, unit: str, undefined: dict[str, str]) -> float | None:
    known = ~np.isnan(truth)
    if not known.any():
        undefined[name] = f"no {unit} with a known label"
    elif not (truth == 1).any():
        undefined[name] = f"no positive {unit}"
    elif not (truth == 0).any():
        undefined[name] = f"no negative {unit}"
    else:
        return float(roc_auc_score(truth[known], score[known]))
    return None
