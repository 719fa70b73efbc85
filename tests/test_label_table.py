"""Label files: both layouts, what is unknown stays unknown, and contradictions are named."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ichseq.data import label_table
from ichseq.data.label_table import LabelTable, read_labels
from ichseq.errors import DataError
from ichseq.labels import LABELS


def read(text: str) -> LabelTable:
    return read_labels(io.BytesIO(text.encode()), "train.csv")


def long_rows(uid: str, *positive: str) -> str:
    return "".join(f"{uid}_{label},{int(label in positive)}\n" for label in LABELS)


def test_the_competition_layout_with_rows_in_any_order_and_standing_twice() -> None:
    text = long_rows("ID_00000000a", "subdural", "any") + long_rows("ID_00000000b")
    rows = text.splitlines(keepends=True)
    np.random.default_rng(0).shuffle(rows)
    table = read("ID,Label\n" + "".join(rows) + long_rows("ID_00000000b"))
    values, without_image = table.match(pa.array(["ID_00000000b", "ID_00000000a", "ID_00000000c"]))
    assert np.array_equal(values[:2], [[0] * 6, [0, 0, 0, 0, 1, 1]])
    assert np.isnan(values[2]).all()
    assert (without_image, table.inconsistent) == (0, 0)


def test_both_layouts_give_the_same_and_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    known = {f"ID_{k:09x}": generator.integers(0, 2, 6) for k in range(500)}
    wide = f"{','.join(LABELS)},sop_uid\n" + "".join(f"{','.join(map(str, v))},{k}\n" for k, v in known.items())
    long = "ID,Label\n" + "".join(f"{k}_{label},{v[i]}\n" for k, v in known.items() for i, label in enumerate(LABELS))
    uids = pa.array(known)
    expected = np.array(list(known.values()))
    assert np.array_equal(read(wide).match(uids)[0], expected)
    monkeypatch.setattr(label_table, "_BLOCK_BYTES", 1000)
    assert np.array_equal(read(long).match(uids)[0], expected)


def test_empty_cells_and_absent_columns_are_unknown() -> None:
    table = read("sop_uid,any,subdural\nx,1,\ny,,0\n")
    nan = np.nan
    expected = [[nan, nan, nan, nan, nan, 1], [nan, nan, nan, nan, 0, nan]]
    assert np.array_equal(table.match(pa.array(["x", "y"]))[0], expected, equal_nan=True)


def test_labels_without_image_and_an_any_against_its_kinds_are_counted() -> None:
    table = read("ID,Label\n" + long_rows("a", "any") + long_rows("b", "subdural") + long_rows("c", "subdural", "any"))
    assert table.inconsistent == 2
    assert table.match(pa.array(["c", "d"]))[1] == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ID,Label\nID_1_any,0\nID_1_any,1\n", "contradict each other: ID_1_any is 0 in one and 1 in another"),
        ("sop_uid,any\nID_1,0\nID_1,1\n", "contradict each other: ID_1_any"),
        ("ID,Label\nID_1_chronic,0\n", "unknown label in ID 'ID_1_chronic'"),
        ("sop_uid,subdurall\nID_1,0\n", "unknown label 'subdurall' among its columns"),
        ("ID,Label\nID_1_any,0.5\n", "Label of 'ID_1_any' is 0.5; a label is 0, 1 or empty"),
        ("ID,Label\nID_1_any,2\n", "Label of 'ID_1_any' is 2"),
        ("ID,Label\nID_1_any,yes\n", "invalid value 'yes'"),
        ("sop_uid\nID_1\n", "no label among its columns"),
        ("sop_uid,any,any\nID_1,0,0\n", "name stands twice"),
        ("a,b\n1,2\n", "its columns are a, b; expected are ID,Label"),
        ("", "not a readable label file"),
    ],
)
def test_bad_label_files_are_named_with_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read(text)
    assert str(caught.value).startswith("train.csv: ")
    assert message in str(caught.value)


def test_a_row_that_does_not_parse_is_not_repeated_in_the_message() -> None:
    with pytest.raises(DataError, match="Expected 3 columns, got 4") as caught:
        read("patient_id,sop_uid,any\nDoe^Jane,1,0,0\n")
    assert "Doe" not in str(caught.value)


def test_a_label_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_labels(tmp_path / "none.csv")
    with pytest.raises(DataError, match="cannot be read"):
        read_labels(tmp_path)
