"""What several tables have to agree in: their slices, and what is known of them."""

import numpy as np
import pandas as pd
import pytest
from five_slices import five_slices

from ichseq.errors import DataError
from ichseq.labels import LABELS
from ichseq.predictions.check import check_scorable, count_shared_exams, match_rows, merge_truth
from ichseq.predictions.schema import TRUTH

NAN = np.nan


def test_slices_are_matched_whatever_their_order() -> None:
    order = [3, 0, 4, 2, 1]
    rows = match_rows(five_slices(), five_slices().iloc[order], "one", "other")
    assert list(five_slices().iloc[order]["sop_uid"].iloc[rows]) == list(five_slices()["sop_uid"])


def test_truth_is_what_either_knows() -> None:
    table = five_slices()
    one, other = np.full((5, 6), NAN), np.full((5, 6), NAN)
    one[0, 5], other[1, 5], one[2, 0], other[2, 0] = 1, 0, 1, 1
    merged = merge_truth(one, other, table, "other")
    assert (merged[0, 5], merged[1, 5], merged[2, 0]) == (1, 0, 1)
    assert np.isnan(merged).sum() == 27
    other[2, 0] = 0
    with pytest.raises(DataError, match=r"other: 1 label other .* such as true_epidural of ID_2: 0, not 1"):
        merge_truth(one, other, table, "other")


def test_exams_in_more_than_one_table_are_counted_once_each() -> None:
    table = five_slices("aabbc")
    assert count_shared_exams([table]) == 0
    assert count_shared_exams([table[:2], table[2:]]) == 0
    assert count_shared_exams([table[:1], table[1:4], table[3:]]) == 2
    assert count_shared_exams([table, table, table]) == 3
    assert count_shared_exams([table, table.assign(patient_id="q")]) == 0


def test_values_come_in_the_order_of_the_labels_and_the_table_is_named() -> None:
    table = five_slices(truth=[0, 1, NAN, 1, 0])
    probability, truth = check_scorable(table[[*reversed(table.columns)]], "t.csv")
    assert np.array_equal(probability, table[list(LABELS)])
    assert np.array_equal(truth, table[list(TRUTH)], equal_nan=True)
    for wrong, words in (
        (five_slices(), r"t\.csv: no slice has a known label"),
        (table.drop(columns="any"), r"t\.csv: columns missing: any"),
        (table.assign(any=[0, 0, 0, 0, 1.5]), r"t\.csv: column any holds 1\.5, outside 0 to 1"),
        (pd.DataFrame(table).assign(true_any=2), r"t\.csv: column true_any holds 2; the truth is"),
    ):
        with pytest.raises(DataError, match=words):
            check_scorable(wrong, "t.csv")


def test_a_labelled_slice_whose_uid_stands_at_several_images_is_refused() -> None:
    """In two series, say; without labels nothing is found by it."""
    table = five_slices("aabbc", truth=[0, 1, NAN, 1, 0])
    uids = table["sop_uid"].tolist()
    for shared, words in (([0, 1], "1 SOPInstanceUID .* at 2 images"), ([0, 1, 3, 4], "1 SOPInstanceUID .* at 4")):
        wrong = table.assign(sop_uid=[uids[0] if k in shared else uid for k, uid in enumerate(uids)])
        with pytest.raises(DataError, match=rf"t\.csv: {words}"):
            check_scorable(wrong, "t.csv")
        check_scorable(wrong.assign(**dict.fromkeys(TRUTH, NAN)), "t.csv", labels_needed=False)
    check_scorable(table.assign(sop_uid=[uids[2], *uids[1:]]), "t.csv")  # the other one has no label
