"""The metric against scikit-learn, the bootstrap against resampled tables, and figures that are undefined."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from ichseq.errors import DataError
from ichseq.evaluation import bootstrap, metrics
from ichseq.evaluation.metrics import evaluate_table
from ichseq.labels import LABEL_WEIGHTS, LABELS
from ichseq.predictions.schema import PREDICTION_COLUMNS

TRUE = [f"true_{label}" for label in LABELS]
PRIOR = [0.1, 0.2, 0.15, 0.2, 0.25, 0.4]


def make_table(patients: int = 12, slices: int = 30, seed: int = 0) -> pd.DataFrame:
    """Random truth, and probabilities that know something of it; rounded, so that scores tie."""
    random = np.random.default_rng(seed)
    n = patients * slices
    truth = (random.random((n, 6)) < 0.25).astype(np.float32)
    # A third of the patients bleed nowhere, so that exams have both classes.
    truth[np.arange(n) // slices % 3 == 0] = 0
    truth[:, 5] = truth[:, :5].max(axis=1)
    probability = np.round(1 / (1 + np.exp(-(random.normal(size=(n, 6)) + 1.5 * truth - 1.5))), 2)
    table = pd.DataFrame(np.hstack([probability, truth]), columns=[*LABELS, *TRUE])
    patient = np.arange(n) // slices
    table["patient_id"] = [f"P{p}" for p in patient]
    table["study_uid"] = table["series_uid"] = [f"1.2.{p}" for p in patient]
    table["sop_uid"] = table["file"] = [f"1.3.{i}" for i in range(n)]
    table["slice_index"] = np.arange(n) % slices
    table["position_mm"] = table["slice_index"] * 5.0
    return table[list(PREDICTION_COLUMNS)]


def strict(result: dict) -> dict:
    return json.loads(json.dumps(result, allow_nan=False))


def test_weighted_log_loss_is_that_of_scikit_learn_with_sample_weights():
    table = make_table()
    result = evaluate_table(table, PRIOR, draws=10)
    weights = np.tile(LABEL_WEIGHTS, len(table))
    truth = table[TRUE].to_numpy().ravel()
    expected = log_loss(truth, np.clip(table[list(LABELS)].to_numpy().ravel(), 1e-5, 1 - 1e-5), sample_weight=weights)
    prior = log_loss(truth, np.tile(PRIOR, len(table)), sample_weight=weights)
    assert result["weighted_log_loss"] == pytest.approx(expected)
    assert result["prior_weighted_log_loss"] == pytest.approx(prior)
    assert result["ratio_to_prior"] == pytest.approx(expected / prior)
    assert (result["n_slices"], result["n_exams"], result["n_patients"]) == (360, 12, 12)


def test_the_loss_by_hand_with_clipped_certainties():
    table = make_table(patients=2, slices=1)
    table[TRUE] = np.nan
    table["true_epidural"] = [1.0, 0.0]
    table["true_any"] = [1.0, np.nan]
    table["epidural"] = [0.0, 0.0]  # wrong beyond doubt, right beyond doubt
    table["any"] = [0.5, 0.5]
    expected = (-np.log(1e-5) - np.log(1 - 1e-5) + 2 * np.log(2)) / (1 + 1 + 2)
    assert evaluate_table(table, None, draws=5)["weighted_log_loss"] == pytest.approx(expected)


def test_unknown_labels_count_neither_for_nor_against():
    table = make_table()
    hidden = np.random.default_rng(1).random(len(table)) < 0.4
    table.loc[hidden, "true_subdural"] = np.nan
    result = evaluate_table(table, PRIOR, draws=10)
    seen = table[~hidden]
    label = result["labels"]["subdural"]
    clipped = seen["subdural"].clip(1e-5, 1 - 1e-5)
    assert label["log_loss"] == pytest.approx(log_loss(seen["true_subdural"], clipped))
    assert label["auc"] == pytest.approx(roc_auc_score(seen["true_subdural"], seen["subdural"]))
    expected = average_precision_score(seen["true_subdural"], seen["subdural"])
    assert label["average_precision"] == pytest.approx(expected)
    assert label["positives"] == int(seen["true_subdural"].sum())
    table.loc[hidden, "subdural"] = 0.99
    again = evaluate_table(table, PRIOR, draws=10)
    assert strict(again) == strict(result)


def test_exam_is_the_maximum_over_its_slices():
    table = make_table()
    exams = table.groupby("series_uid")[["any", "true_any"]].max()
    result = evaluate_table(table.sample(frac=1, random_state=0), PRIOR, draws=10)
    assert result["exam"]["positives"] == int(exams["true_any"].sum())
    assert result["exam"]["auc_any"] == pytest.approx(roc_auc_score(exams["true_any"], exams["any"]))


def test_an_exam_with_an_unknown_slice_is_not_taken_for_negative():
    table = make_table()
    negative = table["patient_id"] == "P0"
    assert table.loc[negative, "true_any"].max() == 0
    table.loc[table.index[negative][0], "true_any"] = np.nan
    kept = table[~negative].groupby("series_uid")[["any", "true_any"]].max()
    expected = roc_auc_score(kept["true_any"], kept["any"])
    assert evaluate_table(table, PRIOR, draws=10)["exam"]["auc_any"] == pytest.approx(expected)


def test_an_exam_is_known_by_patient_study_and_series():
    table = make_table()
    result = evaluate_table(table, PRIOR, draws=10)
    for column in ("patient_id", "study_uid"):  # the same series UID in all, and another column that differs
        rest = [name for name in ("patient_id", "study_uid") if name != column]
        shared = table.assign(series_uid="1.2.0", **dict.fromkeys(rest, "same"))
        again = evaluate_table(shared, PRIOR, draws=10)
        assert (again["n_exams"], again["exam"]) == (12, result["exam"])


@pytest.mark.parametrize("empty", ["", np.nan, None])
def test_without_a_patient_id_the_study_stands_for_the_patient(empty):
    table = make_table()
    expected = strict(evaluate_table(table, PRIOR, draws=50))
    assert strict(evaluate_table(table.assign(patient_id=empty), PRIOR, draws=50)) == expected
    table.loc[table["patient_id"] == "P3", "patient_id"] = empty
    assert strict(evaluate_table(table, PRIOR, draws=50)) == expected


def test_what_is_undefined_is_null_with_its_reason():
    table = make_table()
    table["true_epidural"] = 0.0
    table["true_subdural"] = np.nan
    table["true_any"] = 1.0
    result = strict(evaluate_table(table, None, draws=20))
    assert result["labels"]["epidural"]["auc"] is None
    assert result["labels"]["epidural"]["average_precision"] is None
    assert result["labels"]["epidural"]["log_loss"] > 0
    assert result["labels"]["subdural"] == {"log_loss": None, "auc": None, "average_precision": None, "positives": 0}
    assert result["exam"] == {"auc_any": None, "positives": 12}
    assert result["prior_weighted_log_loss"] is None
    assert result["ratio_to_prior"] is None
    reasons = result["undefined"]
    assert reasons["labels.epidural.auc"] == "no positive slice"
    assert reasons["labels.any.auc"] == "no negative slice"
    assert reasons["labels.subdural.log_loss"] == "no slice with a known label"
    assert reasons["exam.auc_any"] == "no negative exam"
    assert "no training prevalence" in reasons["prior_weighted_log_loss"]
    for name in ("labels.epidural.auc", "labels.subdural.log_loss", "exam.auc_any", "ratio_to_prior"):
        assert result["intervals"][name] is None
        assert name in reasons


def test_prevalence_is_needed_only_where_there_is_truth():
    table = make_table()
    prior = [None, *PRIOR[1:]]
    result = evaluate_table(table, prior, draws=10)
    assert result["undefined"]["ratio_to_prior"] == "no training prevalence of epidural"
    table["true_epidural"] = np.nan
    result = strict(evaluate_table(table, prior, draws=10))
    assert result["ratio_to_prior"] > 0
    assert result["intervals"]["ratio_to_prior"][0] > 0


def test_intervals_contain_the_value_and_repeat_with_the_seed():
    table = make_table(patients=20)
    result = strict(evaluate_table(table, PRIOR, draws=300, seed=3))
    values = {name: result[name] for name in ("weighted_log_loss", "prior_weighted_log_loss", "ratio_to_prior")}
    for label in LABELS:
        values |= {f"labels.{label}.{key}": result["labels"][label][key] for key in ("log_loss", "auc")}
    values["exam.auc_any"] = result["exam"]["auc_any"]
    assert set(values) == set(result["intervals"])
    for name, value in values.items():
        low, high = result["intervals"][name]
        assert low <= value <= high, name
        assert low < high or name == "exam.auc_any", name
    assert strict(evaluate_table(table, PRIOR, draws=300, seed=3)) == result
    assert evaluate_table(table, PRIOR, draws=300, seed=4)["intervals"] != result["intervals"]


def test_identical_patients_leave_no_width():
    one = make_table(patients=2).query("patient_id == 'P1'")
    copies = [one.assign(patient_id=f"P{i}", series_uid=f"1.2.{i}", sop_uid=one["sop_uid"] + f".{i}") for i in range(8)]
    result = evaluate_table(pd.concat(copies, ignore_index=True), PRIOR, draws=50)
    for name, interval in result["intervals"].items():
        if interval is not None:
            assert interval[1] - interval[0] == pytest.approx(0, abs=1e-12), name
    assert result["intervals"]["labels.epidural.auc"][0] == pytest.approx(result["labels"]["epidural"]["auc"])


def test_one_patient_has_values_but_no_intervals():
    result = strict(evaluate_table(make_table(patients=2).query("patient_id == 'P1'"), PRIOR))
    assert result["labels"]["any"]["auc"] is not None
    assert set(result["intervals"].values()) == {None}
    assert "one patient" in result["undefined"]["intervals"]


def test_a_draw_is_worth_the_table_with_patients_repeated():
    table = make_table(patients=7)
    table.loc[::5, "true_any"] = np.nan
    patient = pd.factorize(table["patient_id"])[0]
    counts = np.random.default_rng(0).multinomial(7, [1 / 7] * 7, size=6)
    probability, truth = table[list(LABELS)].to_numpy(np.float64), table[TRUE].to_numpy(np.float64)
    sums = bootstrap.PatientSums(probability, truth, np.array(PRIOR), patient, 7).values(counts)
    auc = bootstrap.PatientRanks(probability[:, 5], truth[:, 5], patient).values(counts)
    for i, often in enumerate(counts):
        repeated = table.loc[np.repeat(table.index, often[patient])]
        repeated = repeated.assign(sop_uid=[f"1.4.{k}" for k in range(len(repeated))])
        expected = evaluate_table(repeated, PRIOR, draws=1)
        for name in ("weighted_log_loss", "prior_weighted_log_loss", "ratio_to_prior"):
            assert sums[name][i] == pytest.approx(expected[name])
        assert sums["labels.any.log_loss"][i] == pytest.approx(expected["labels"]["any"]["log_loss"])
        assert auc[i] == pytest.approx(expected["labels"]["any"]["auc"])


def test_large_tables_draw_less_and_say_so(monkeypatch):
    monkeypatch.setattr(metrics, "FULL_DRAWS_SLICES", 100)
    assert evaluate_table(make_table(), PRIOR, draws=1000)["draws"] == 277
    assert evaluate_table(make_table(), PRIOR, draws=50)["draws"] == 50


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("subdural", np.nan, "column subdural is empty in 1 of 360"),
        ("subdural", 1.5, "column subdural holds 1.5"),
        ("any", -0.1, "column any holds -0.1"),
        ("true_any", 2.0, "column true_any holds 2"),
    ],
)
def test_a_wrong_value_names_its_column(column, value, message):
    table = make_table()
    table.loc[3, column] = value
    with pytest.raises(DataError, match=message):
        evaluate_table(table, PRIOR)


def test_missing_columns_truth_and_prevalences_are_named():
    table = make_table()
    with pytest.raises(DataError, match="columns missing: patient_id, true_any"):
        evaluate_table(table.drop(columns=["patient_id", "true_any"]), PRIOR)
    with pytest.raises(DataError, match="no slice has a known label"):
        evaluate_table(table.assign(**dict.fromkeys(TRUE, np.nan)), PRIOR)
    with pytest.raises(DataError, match="no slice has a known label"):
        evaluate_table(table.iloc[:0], PRIOR)
    with pytest.raises(DataError, match="column any holds something that is not a number"):
        evaluate_table(table.astype({"any": object}).assign(any="high"), PRIOR)
    with pytest.raises(DataError, match="must be 6 fractions"):
        evaluate_table(table, [0.1, 0.2])
