"""Two tables on the same slices: the difference by hand, its interval, and tables that can't be compared."""

import json
import time

import numpy as np
import pandas as pd
import pytest
from five_slices import five_slices
from test_judge import exams_of
from test_metrics import make_table

from ichseq.errors import ConfigError, DataError
from ichseq.evaluation.compare import auc_differences, paired_difference, paired_difference_of_seeds
from ichseq.evaluation.delong import delong_test
from ichseq.evaluation.metrics import evaluate_table
from ichseq.labels import LABELS

TRUE = [f"true_{label}" for label in LABELS]
TRUTH = [0.0, 1.0, 0.0, 1.0, 1.0]


def better(table: pd.DataFrame, share: float = 0.5) -> pd.DataFrame:
    """The same table, each probability moved a share of its way to the truth."""
    values = (1 - share) * table[list(LABELS)].to_numpy() + share * table[TRUE].to_numpy()
    result = table.copy()
    result[list(LABELS)] = values
    return result


def noisy(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The same model trained with another seed: probabilities a little off."""
    random = np.random.default_rng(seed)
    result = table.copy()
    result[list(LABELS)] = np.clip(table[list(LABELS)] + random.normal(scale=0.05, size=(len(table), 6)), 0.01, 0.99)
    return result


def log_loss(right: list[float]) -> float:
    return float(-np.log(right).mean())


def test_two_patients_by_hand() -> None:
    # Patient p holds slices 0 and 1, patient q the rest; p(any) of the right answer is 0.8 in p, 0.5 in q.
    one = five_slices(patients="ppqqq", scores=[0.2, 0.8, 0.5, 0.5, 0.5], truth=TRUTH)
    other = five_slices(patients="ppqqq", scores=[0.5, 0.5, 0.6, 0.4, 0.4], truth=TRUTH)
    result = paired_difference(one, other)
    assert result["one"] == pytest.approx(log_loss([0.8, 0.8, 0.5, 0.5, 0.5]))
    assert result["other"] == pytest.approx(log_loss([0.5, 0.5, 0.4, 0.4, 0.4]))
    assert result["one"] == pytest.approx(0.5051458)
    assert result["other"] == pytest.approx(0.8270333)
    assert result["difference"] == pytest.approx(0.5051458 - 0.8270333)
    assert result["ratio"] == pytest.approx(0.5051458 / 0.8270333)
    # A draw is p alone, q alone or both; a quarter of the draws each for the first two, so these are the ends.
    of_p, of_q = np.log(0.5 / 0.8), np.log(0.4 / 0.5)
    assert result["intervals"]["difference"] == pytest.approx([of_p, of_q])
    ratios = [np.log(0.8) / np.log(0.5), np.log(0.5) / np.log(0.4)]
    assert result["intervals"]["ratio"] == pytest.approx(ratios)
    assert (result["n_slices"], result["n_patients"], result["draws"]) == (5, 2, 1000)
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_labels_weigh_as_in_the_metric() -> None:
    table = five_slices(truth=TRUTH)
    table["true_epidural"] = [1.0, np.nan, np.nan, np.nan, np.nan]  # p(epidural) there is 0.9
    any_right = [0.9, 0.4, 0.3, 0.2, 0.9]
    expected = (-2 * np.log(any_right).sum() - np.log(0.9)) / (2 * 5 + 1)
    assert paired_difference(table, table)["one"] == pytest.approx(expected)


def test_losses_are_those_of_the_evaluation() -> None:
    one, other = make_table(), better(make_table())
    one.loc[::3, "true_subdural"] = other.loc[::3, "true_subdural"] = np.nan
    result = paired_difference(one, other, draws=10)
    for name, table in (("one", one), ("other", other)):
        assert result[name] == pytest.approx(evaluate_table(table, None, draws=1)["weighted_log_loss"], rel=1e-12)


def test_a_table_does_not_differ_from_itself() -> None:
    result = paired_difference(make_table(), make_table(), draws=200)
    assert (result["difference"], result["ratio"]) == (0, 1)
    assert result["intervals"] == {"difference": [0, 0], "ratio": [1, 1]}


def close(one: dict, other: dict) -> bool:
    pairs = [(one[name], other[name]) for name in ("one", "other", "difference", "ratio")]
    pairs += [(one["intervals"][name], other["intervals"][name]) for name in ("difference", "ratio")]
    return all(np.allclose(a, b, rtol=1e-12, atol=1e-13) for a, b in pairs)


@pytest.mark.parametrize("empty", ["", None])
def test_the_order_of_the_rows_changes_nothing(empty: str | None) -> None:
    one, other = make_table(), better(make_table(), 0.1)
    for table in (one, other):
        table.loc[table["patient_id"] == "P3", "patient_id"] = empty
    expected = paired_difference(one, other, draws=200)
    mixed = [table.sample(frac=1, random_state=k) for k, table in enumerate((one, other))]
    assert close(paired_difference(mixed[0], other, draws=200), expected)
    assert close(paired_difference(one, mixed[1], draws=200), expected)
    assert close(paired_difference(*mixed, draws=200), expected)


def test_without_a_patient_id_the_study_stands_for_the_patient() -> None:
    one, other = make_table(), better(make_table(), 0.1)
    expected = paired_difference(one, other, draws=100)
    assert expected["n_patients"] == 12
    nameless = [table.assign(patient_id="") for table in (one, other)]
    assert paired_difference(*nameless, draws=100)["n_patients"] == 12


def test_a_clearly_better_table_has_an_interval_clear_of_zero() -> None:
    table = make_table()
    result = paired_difference(better(table), table)
    assert result["intervals"]["difference"][1] < 0
    assert result["intervals"]["ratio"][1] < 1
    swapped = paired_difference(table, better(table))
    assert swapped["difference"] == -result["difference"]
    assert swapped["intervals"]["difference"] == pytest.approx(
        [-end for end in result["intervals"]["difference"]][::-1]
    )


def test_the_pair_tells_more_than_two_intervals() -> None:
    table = make_table()
    for column in LABELS:  # patients differ much in how hard they are
        table.loc[table["patient_id"] < "P5", column] = 0.5
    one = better(table, 0.1)
    low, high = paired_difference(one, table)["intervals"]["difference"]
    own = [evaluate_table(each, None, draws=300)["intervals"]["weighted_log_loss"] for each in (one, table)]
    assert high < 0
    assert own[0][1] > own[1][0]
    assert high - low < 0.5 * (own[0][1] - own[0][0])


def test_an_interval_repeats_with_the_seed() -> None:
    one, other = make_table(), noisy(make_table(), 1)
    first = paired_difference(one, other, draws=100, seed=3)
    assert paired_difference(one, other, draws=100, seed=3) == first
    assert paired_difference(one, other, draws=100, seed=4)["intervals"] != first["intervals"]


def test_one_patient_has_a_difference_and_no_interval() -> None:
    one = make_table(patients=2).query("patient_id == 'P1'")
    result = paired_difference(better(one), one)
    assert result["difference"] < 0
    assert result["intervals"] == {"difference": None, "ratio": None}


def test_a_label_that_one_table_knows_counts_for_both() -> None:
    one, other = make_table(), better(make_table(), 0.1)
    expected = paired_difference(one, other, draws=50)
    one.loc[::2, "true_any"] = np.nan
    other.loc[1::2, "true_any"] = np.nan
    assert paired_difference(one, other, draws=50) == expected


def test_a_thousand_draws_of_many_patients_are_quick() -> None:
    one = make_table(patients=4000, slices=2)
    other = noisy(one, 1)
    began = time.perf_counter()
    paired_difference(one, other, draws=1)
    without = time.perf_counter() - began
    began = time.perf_counter()
    paired_difference(one, other, draws=1000)
    assert time.perf_counter() - began - without < 5  # a fraction of a second, on a machine that is not busy


def test_seeds_by_hand() -> None:
    tables = [five_slices(patients="ppqqq", scores=scores, truth=TRUTH)
              for scores in ([0.2, 0.8, 0.2, 0.8, 0.8], [0.4, 0.6, 0.4, 0.6, 0.6], [0.5] * 5)]  # fmt: skip
    result = paired_difference_of_seeds(tables[:2], tables[2:])
    losses = [-np.log(0.8), -np.log(0.6), -np.log(0.5)]
    assert result["ones"] == pytest.approx(losses[:2])
    assert result["others"] == pytest.approx(losses[2:])
    assert result["one"] == pytest.approx(np.mean(losses[:2]))
    assert result["difference"] == pytest.approx(np.mean(losses[:2]) - losses[2])
    assert result["ratio"] == pytest.approx(np.mean(losses[:2]) / losses[2])
    # All patients are alike, so the seeds drawn decide: one of them twice, a quarter of the draws each, or both.
    assert result["intervals"]["difference"] == pytest.approx([losses[0] - losses[2], losses[1] - losses[2]])
    assert result["intervals"]["ratio"] == pytest.approx([losses[0] / losses[2], losses[1] / losses[2]])
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_one_seed_each_is_the_plain_difference() -> None:
    one, other = make_table(), noisy(make_table(), 1)
    of_seeds = paired_difference_of_seeds([one], [other], draws=100, seed=2)
    plain = paired_difference(one, other, draws=100, seed=2)
    assert of_seeds == plain | {"ones": [plain["one"]], "others": [plain["other"]]}


def test_the_same_seeds_differ_by_chance_alone() -> None:
    table = make_table()
    seeds = [noisy(table, k) for k in range(4)]
    result = paired_difference_of_seeds(seeds, seeds[::-1], draws=500)
    low, high = result["intervals"]["difference"]
    assert result["difference"] == pytest.approx(0)
    assert low < 0 < high
    good = [better(each) for each in seeds]
    assert paired_difference_of_seeds(good, seeds[:2], draws=500)["intervals"]["difference"][1] < 0


def test_exams_are_compared_as_slices_are() -> None:
    slices = make_table(40, 6)
    exams = exams_of(slices)
    one = better(exams, 0.3)
    result = paired_difference(one, exams.sample(frac=1, random_state=0), unit="exam", draws=200)
    assert result["n_exams"] == result["n_patients"] == 40
    assert "n_slices" not in result
    assert result["intervals"]["difference"][1] < 0
    of_seeds = paired_difference_of_seeds([one], [exams], unit="exam", draws=200)
    assert of_seeds["intervals"] == result["intervals"]
    for name, table in (("one", one), ("other", exams)):
        weighted = evaluate_table(table.assign(sop_uid=table["series_uid"]), None, draws=1)["weighted_log_loss"]
        assert result[name] == pytest.approx(weighted)
    with pytest.raises(DataError, match=r"differ in their exams: 1 of 40 stand in one table alone, such as 1\.2\.0"):
        paired_difference(exams, exams[1:], unit="exam")
    with pytest.raises(DataError, match=r"the other: 1 exam twice, such as 1\.2\.0; keep one row for each"):
        paired_difference(exams, pd.concat([exams, exams[:1]]), unit="exam")


def test_aucs_are_compared_by_patient() -> None:
    one, other = make_table(40, 6), noisy(make_table(40, 6), 1)
    found = auc_differences(one, other.sample(frac=1, random_state=0))
    assert set(found) == set(LABELS)
    patient = pd.factorize(one["patient_id"])[0]
    expected = delong_test(*(table["any"].to_numpy() for table in (one, other)), one["true_any"].to_numpy(), patient)
    for name, value in expected.items():
        assert found["any"][name] == pytest.approx(value), name
    assert found["any"]["clusters"] == 40
    assert found["any"]["one"] == pytest.approx(evaluate_table(one, None, draws=1)["labels"]["any"]["auc"])
    assert auc_differences(better(one, 0.5), one)["any"]["p"] < 0.01
    of_exams = auc_differences(exams_of(one), exams_of(other), unit="exam")
    assert of_exams["any"]["cases"] == 40
    none = auc_differences(one.assign(true_epidural=0.0), other.assign(true_epidural=0.0))["epidural"]
    assert (none["p"], none["undefined"]) == (None, "no positive case")


def edited(table: pd.DataFrame, column: str, value: object, row: int = 0) -> pd.DataFrame:
    result = table.copy()
    result.loc[row, column] = value
    return result


WHOLE = five_slices(truth=TRUTH)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (WHOLE[1:], "1 of 5 stand in one table alone, such as ID_0"),
        (edited(WHOLE, "sop_uid", "ID_9"), "1 of 5 stand in the other alone, such as ID_9; take predictions of the"),
        (edited(WHOLE, "patient_id", "z"), "such as ID_0 .there with another patient_id"),
        (edited(WHOLE, "sop_uid", "ID_1"), "the other: 1 slice twice, such as ID_1"),
        (edited(WHOLE, "true_any", 1.0), "the other: 1 label other than .* true_any of ID_0: 1, not 0"),
        (edited(WHOLE, "any", np.nan), "the other: .*column any is empty in 1 of 5"),
        (edited(WHOLE, "any", 2.0), "the other: .*column any holds 2"),
        (WHOLE.drop(columns="sop_uid"), "the other: columns missing: sop_uid"),
        (WHOLE.drop(columns="true_any"), "the other: .*columns missing: true_any"),
        (five_slices(), "the other: .*no slice has a known label"),
    ],
)
def test_tables_that_can_not_be_compared(other: pd.DataFrame, words: str) -> None:
    with pytest.raises(DataError, match=words):
        paired_difference(WHOLE, other)


def test_messages_name_the_tables() -> None:
    with pytest.raises(DataError, match=r"a\.csv and b\.csv differ in their slices"):
        paired_difference(WHOLE, WHOLE[1:], names=("a.csv", "b.csv"))
    with pytest.raises(DataError, match="lstm, seed 1 and lstm, seed 2 differ in their slices"):
        paired_difference_of_seeds([WHOLE, WHOLE[1:]], [WHOLE], names=("lstm", "gru"))
    with pytest.raises(ConfigError, match="gru: no tables to compare"):
        paired_difference_of_seeds([WHOLE], [], names=("lstm", "gru"))
    with pytest.raises(ConfigError, match="draws 0: a bootstrap needs at least 1"):
        paired_difference(WHOLE, WHOLE, draws=0)
