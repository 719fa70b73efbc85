"""Blending, by hand on a table of five slices."""

import numpy as np
import pandas as pd
import pytest
from five_slices import ANY, close, five_slices

from ichseq.errors import ConfigError, DataError
from ichseq.labels import LABELS
from ichseq.predictions.blend import blend
from ichseq.predictions.smooth import smooth

NAN = np.nan
OTHER = [0.3, 0.0, 0.5, 0.6, 0.1]


def test_blend_by_hand() -> None:
    first = five_slices(truth=[NAN, 1, 0, 1, NAN])
    second = five_slices(scores=OTHER, truth=[0, 1, NAN, 1, NAN]).iloc[[3, 0, 4, 2, 1]]
    mean = blend([first, second])
    assert close(mean, "any", [0.2, 0.2, 0.6, 0.4, 0.5])
    assert close(mean, "epidural", [0.5, 0.4, 0.6, 0.2, 0.2])
    assert close(mean, "subdural", [0.5] * 5)
    assert close(mean, "true_any", [0, 1, 0, 1, NAN])
    assert list(mean["sop_uid"]) == list(first["sop_uid"])
    for weights in ([1, 3], [0.25, 0.75], [2e307, 6e307]):
        weighted = blend([first, second], weights)
        assert close(weighted, "any", [0.25, 0.1, 0.55, 0.5, 0.3])
        assert close(weighted, "epidural", [0.3, 0.5, 0.55, 0.1, 0.25])
    assert close(blend([first, second], [0, 1]), "any", OTHER)
    assert close(blend([first]), "any", ANY)
    assert close(first, "any", ANY)
    # The second table's order is its own.
    assert list(blend([second, first])["sop_uid"]) == ["ID_3", "ID_0", "ID_4", "ID_2", "ID_1"]
    assert close(blend([second, first]), "any", [0.4, 0.2, 0.5, 0.6, 0.2])


def test_blended_and_smoothed_they_stay_probabilities() -> None:
    certain = five_slices(scores=[1.0, 0.0, 1.0, 0.0, 1.0])
    for number in range(1, 12):
        values = blend([certain] * number, [0.1 * (k + 1) for k in range(number)])[list(LABELS)].to_numpy()
        assert values.min() >= 0
        assert values.max() <= 1
    # Weights that sum to 3 only nearly are taken too.
    assert smooth(five_slices(scores=[1.0] * 5), (1, 1, 1.00001))["any"].max() == 1


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([1], "weights 1: 1 for 2 tables"),
        ([1, 2, 3], "weights 1,2,3: 3 for 2 tables"),
        ([2, -1], "weights 2,-1: none may be negative"),
        ([0, 0], "weights 0,0: none may be negative, and not all zero"),
        ([1, NAN], "weights 1,nan"),
        ([1, np.inf], "weights 1,inf"),
    ],
)
def test_weights_that_do_not_fit_are_refused(weights: list[float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        blend([five_slices(), five_slices()], weights)


def test_tables_of_other_slices_are_refused_with_an_example_of_each_side() -> None:
    first, second = five_slices()[:4], five_slices()[2:]
    with pytest.raises(DataError) as error:
        blend([first, second], names=["x.csv", "y.csv"])
    assert "x.csv and y.csv differ in their slices" in str(error.value)
    assert "2 of 4 stand in x.csv alone, such as ID_0" in str(error.value)
    assert "1 of 3 stand in y.csv alone, such as ID_4" in str(error.value)
    with pytest.raises(DataError, match="table 1 and table 2 differ in their slices: 1 of 5 stand in table 2 alone"):
        blend([first, five_slices()])
    with pytest.raises(DataError, match=r"ID_3 \(there with another patient_id\)"):
        blend([five_slices(), five_slices(patients="pppqp")])
    with pytest.raises(DataError, match=r"table 2: 1 slice twice, such as ID_0"):
        blend([five_slices(), pd.concat([five_slices(), five_slices()[:1]])])
    with pytest.raises(ConfigError, match="nothing to blend"):
        blend([])


def test_another_truth_is_refused() -> None:
    tables = [five_slices(truth=truth) for truth in ([NAN] * 5, [0, 0, 1, 0, NAN], [0, 0, 1, 1, 1])]
    with pytest.raises(DataError, match=r"table 3: 1 label other .* such as true_any of ID_3: 1, not 0"):
        blend(tables)
