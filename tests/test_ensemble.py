"""Reading, blending, smoothing and clipping, by hand on a table of five slices."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from five_slices import ANY, five_slices

from ichseq.errors import ConfigError, DataError
from ichseq.labels import LABELS, PREDICTION_COLUMNS
from ichseq.predictions.ensemble import MEAN, WEIGHTED, blend, clip, read_table, smooth
from ichseq.predictions.write import write_table

NAN = np.nan
OTHER = [0.3, 0.0, 0.5, 0.6, 0.1]


def close(table: pd.DataFrame, column: str, expected: list[float]) -> bool:
    return np.allclose(table[column], expected, rtol=0, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_a_table_is_read_as_it_was_written(tmp_path: Path, name: str) -> None:
    table = five_slices(truth=[0, 1, NAN, 1, 0])
    table["patient_id"] = ["007", "007", "NA", "nan", "null"]
    table["series_uid"] = ["1.10", "1.10", "1.1", "1.0", "1"]
    table["position_mm"] = [0.0, 5.0, NAN, 1.5, -2.5]
    write_table(table.assign(mine="more"), tmp_path / name)
    read = read_table(tmp_path / name)
    assert list(read.columns) == list(PREDICTION_COLUMNS)
    pd.testing.assert_frame_equal(read, table, check_dtype=False)
    assert (read["patient_id"] == ["007", "007", "NA", "nan", "null"]).all()


def with_value(column: str, value: object) -> pd.DataFrame:
    table = five_slices()
    table[column] = table[column].astype(object)
    table.loc[2, column] = value
    return table


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (five_slices().drop(columns=["any", "true_any"]), "columns missing: any, true_any"),
        (with_value("subdural", NAN), "column subdural is empty in 1 of 5 rows"),
        (with_value("subdural", 1.25), "column subdural holds 1.25, outside 0 to 1"),
        (with_value("subdural", -3.0), "column subdural holds -3, outside 0 to 1"),
        (with_value("subdural", np.inf), "column subdural holds inf, outside 0 to 1"),
        (with_value("true_any", 0.5), "column true_any holds 0.5; the truth is 0, 1 or empty"),
        (with_value("slice_index", NAN), "column slice_index is empty"),
        (with_value("slice_index", 1.5), "column slice_index holds 1.5"),
        (with_value("sop_uid", "ID_1"), "1 slice twice, such as ID_1"),
        (five_slices()[:0], "no rows"),
    ],
)
@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_a_table_that_is_wrong_is_refused(tmp_path: Path, table: pd.DataFrame, words: str, name: str) -> None:
    write_table(table, tmp_path / name)
    with pytest.raises(DataError, match=words) as error:
        read_table(tmp_path / name)
    assert name in str(error.value)


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.csv: no such file"):
        read_table(tmp_path / "absent.csv")
    write_table(with_value("any", "high"), tmp_path / "words.csv")
    with pytest.raises(DataError, match=r"words\.csv: column any holds something that is not a number"):
        read_table(tmp_path / "words.csv")
    for name, content in {"empty.csv": b"", "binary.csv": b"\xff\x00\xfe", "no.parquet": b"ID,Label\n"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=name):
            read_table(tmp_path / name)


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


def test_smoothing_by_hand() -> None:
    plain = smooth(five_slices())
    assert close(plain, "any", [0.25, 0.4, 1.3 / 3, 0.6, 0.55])
    assert close(plain, "epidural", [0.55, 0.6, 1.3 / 3, 0.4, 0.25])
    assert close(plain, "subdural", [0.5] * 5)
    weighted = smooth(five_slices(), WEIGHTED)
    assert close(weighted, "any", [0.25, 0.4, 0.54, 0.44, 0.55])
    assert close(weighted, "epidural", [0.55, 0.44, 0.54, 0.4, 0.25])
    # Before and after are not exchanged: the slice takes all from the one before it.
    assert close(smooth(five_slices(), (3, 0, 0)), "any", [0.25, 0.1, 0.4, 0.7, 0.55])


def test_smoothing_takes_slices_by_their_index_and_keeps_the_rows() -> None:
    rows = [3, 0, 4, 2, 1]
    table = five_slices().iloc[rows]
    smoothed = smooth(table, WEIGHTED)
    pd.testing.assert_frame_equal(smoothed, smooth(five_slices(), WEIGHTED).iloc[rows])
    pd.testing.assert_frame_equal(table, five_slices().iloc[rows])


def test_series_of_two_slices_and_of_one() -> None:
    table = five_slices("abacb", [1, 0, 0, 0, 1])
    for weights in (MEAN, WEIGHTED):
        assert close(smooth(table, weights), "any", [0.4, 0.65, 0.4, 0.2, 0.65])
    assert smooth(table[:0]).empty


def test_two_series_interleaved_do_not_mix() -> None:
    table = five_slices("ababa", [2, 0, 1, 1, 0])
    assert close(smooth(table), "any", [0.4, 0.3, 1.7 / 3, 0.3, 0.8])
    assert close(smooth(table, WEIGHTED), "any", [0.4, 0.3, 0.62, 0.3, 0.8])
    # The same name of a series in two patients means two series.
    assert close(smooth(five_slices(patients="ppqqq")), "any", [0.25, 0.25, 0.45, 0.6, 0.55])


def test_by_patient_the_series_of_a_patient_touch() -> None:
    table = five_slices("aacbb", [0, 1, 0, 0, 1], patients="ppqpp")
    assert close(smooth(table), "any", [0.25, 0.25, 0.7, 0.55, 0.55])
    assert close(smooth(table, by="patient"), "any", [0.25, 0.7 / 3, 0.7, 0.5, 0.55])
    one_each = five_slices("aabbb", [0, 1, 0, 1, 2], patients="ppqqq")
    pd.testing.assert_frame_equal(smooth(one_each, by="patient"), smooth(one_each))


@pytest.mark.parametrize("weights", [(1, 1), (1, 2, 1), (-1, 5, -1), (NAN, 1, 1)])
def test_smoothing_weights_that_do_not_fit_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="smoothing weights"):
        smooth(five_slices(), weights)
    with pytest.raises(ConfigError, match="smoothing by 'study'"):
        smooth(five_slices(), by="study")  # type: ignore[arg-type]


def test_clip_by_hand() -> None:
    table = five_slices(scores=[0.0, 1e-6, 0.5, 0.999999, 1.0])
    assert close(clip(table), "any", [1e-5, 1e-5, 0.5, 0.99999, 0.99999])
    assert close(clip(table), "epidural", [0.99999, 0.99999, 0.5, 1e-5, 1e-5])
    assert close(clip(table, 0.1), "any", [0.1, 0.1, 0.5, 0.9, 0.9])
    pd.testing.assert_frame_equal(clip(table, 0), table)
    for least in (-0.1, 0.5, NAN):
        with pytest.raises(ConfigError, match="clipping at"):
            clip(table, least)
