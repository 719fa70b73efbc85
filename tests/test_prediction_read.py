"""Prediction tables are read back as they were written, or refused by name."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from five_slices import five_slices

from ichseq.errors import DataError
from ichseq.labels import LABELS
from ichseq.predictions.calibration import CALIBRATED, FLAGGED
from ichseq.predictions.read import read_exams, read_table
from ichseq.predictions.schema import EXAM_COLUMNS, PREDICTION_COLUMNS, exam_rows
from ichseq.predictions.write import write_table

NAN = np.nan


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


def test_a_changed_bit_of_a_parquet_table_is_an_error_or_changes_nothing(tmp_path: Path) -> None:
    table = pd.concat([five_slices()] * 20, ignore_index=True)
    table["sop_uid"], table["slice_index"] = [f"1.2.{k}" for k in range(100)], range(100)
    table[list(LABELS)] = np.random.default_rng(0).random((100, len(LABELS)))
    write_table(table, tmp_path / "t.parquet")
    sound, refused = (tmp_path / "t.parquet").read_bytes(), 0
    for place in range(4, len(sound), 67):
        (tmp_path / "t.parquet").write_bytes(sound[:place] + bytes([sound[place] ^ 4]) + sound[place + 1 :])
        try:
            read = read_table(tmp_path / "t.parquet")
        except DataError:
            refused += 1
        else:
            pd.testing.assert_frame_equal(read, table, check_dtype=False)
    assert refused > 50


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


def exams() -> pd.DataFrame:
    table = five_slices("aabbb")
    return exam_rows([table[:2], table[2:]], [["tilted"], []], truth=np.array([[0, NAN, NAN, NAN, 0, 1], [NAN] * 6]))


@pytest.mark.parametrize("name", ["e.csv", "e.parquet"])
def test_a_table_of_exams_is_read_as_it_was_written_or_refused(tmp_path: Path, name: str) -> None:
    write_table(exams().assign(mine="more"), tmp_path / name)
    read = read_exams(tmp_path / name)
    assert list(read.columns) == list(EXAM_COLUMNS)
    pd.testing.assert_frame_equal(read, exams(), check_dtype=False)
    parts = pd.concat([exams(), exams()[:1]], ignore_index=True)  # of one series, split: they share its identifiers
    write_table(parts, tmp_path / name)
    pd.testing.assert_frame_equal(read_exams(tmp_path / name), parts, check_dtype=False)
    for table, words in (
        (exams().assign(any=1.5), "column any holds 1.5, outside 0 to 1"),
        (exams().assign(true_any=2), "column true_any holds 2"),
        (exams().assign(n_slices=[1, NAN]), "column n_slices is empty in 1 of 2 rows"),
        (five_slices(), "columns missing: n_slices, warnings"),
    ):
        write_table(table, tmp_path / name)
        with pytest.raises(DataError, match=words):
            read_exams(tmp_path / name)


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_calibrated_columns_are_read_where_they_are_asked_for(tmp_path: Path, name: str) -> None:
    table, exams = five_slices(), exam_rows([five_slices()], [[]])
    for one in (table, exams):
        for label, calibrated, flagged in zip(LABELS, CALIBRATED, FLAGGED, strict=True):
            one[calibrated] = one[label] / 2
            one[flagged] = pd.array([1] * len(one), dtype="Int8")
        one[FLAGGED[0]] = pd.array([pd.NA] * len(one), dtype="Int8")
    write_table(table, tmp_path / name)
    write_table(exams, tmp_path / f"exams_{name}")
    assert list(read_table(tmp_path / name).columns) == list(PREDICTION_COLUMNS)
    read = read_table(tmp_path / name, calibrated=True)
    assert list(read.columns) == [*PREDICTION_COLUMNS, *CALIBRATED, *FLAGGED]
    assert np.allclose(read["calibrated_any"], table["calibrated_any"])
    assert read[FLAGGED[0]].isna().all()
    assert (read["flagged_any"] == 1).all()
    assert {"calibrated_any", "flagged_any"} <= set(read_exams(tmp_path / f"exams_{name}", calibrated=True).columns)
    write_table(five_slices(), tmp_path / name)
    assert list(read_table(tmp_path / name, calibrated=True).columns) == list(PREDICTION_COLUMNS)
    write_table(table.assign(calibrated_any=1.5), tmp_path / name)
    with pytest.raises(DataError, match=r"column calibrated_any holds 1\.5, outside 0 to 1"):
        read_table(tmp_path / name, calibrated=True)
    write_table(table.assign(flagged_any=2), tmp_path / name)
    with pytest.raises(DataError, match="column flagged_any holds 2; a flag is 0, 1 or empty"):
        read_table(tmp_path / name, calibrated=True)
