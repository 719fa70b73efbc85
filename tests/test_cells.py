"""Text in CSV cells: nothing that a spreadsheet would run, and read back as it was."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from five_slices import five_slices

from ichseq.predictions.cells import as_cells, from_cell, to_cell
from ichseq.predictions.read import read_table
from ichseq.predictions.write import write_table

HOSTILE = ["=cmd|'/c calc'!A0", "+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "a\x1b[2Jb", "x\n=1", "'=1", "''-1", "＝1"]
PLAIN = [
    "ID_1",
    "",
    "1.2.840",
    "7-8",
    "a=b",
    "O'Neil",
    "'",
    "''",
    "'a",
    "C:\\x",
    "\\x1b",
    "\\x5cx1b",
    "\\x5c",
    "\\\\x00",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_cell_begins_as_a_formula_or_holds_a_control_character(text: str) -> None:
    cell = to_cell(text)
    assert cell[:1] not in tuple("=+-@\t\r＝")
    assert cell.isprintable()


@pytest.mark.parametrize("text", HOSTILE + PLAIN)
def test_a_text_comes_back_from_its_cell(text: str) -> None:
    assert from_cell(to_cell(text)) == text
    assert from_cell(to_cell(to_cell(text))) == to_cell(text)


def test_random_texts_come_back_and_no_two_share_a_cell() -> None:
    generator = np.random.default_rng(0)
    letters = list("=+-@'\\x0157cbf \t\r\n\x1b\x7fa")
    texts = {"".join(generator.choice(letters, generator.integers(0, 9))) for _ in range(5000)}
    cells = {to_cell(text): text for text in texts}
    assert len(cells) == len(texts)
    assert all(from_cell(cell) == text for cell, text in cells.items())


def test_a_table_s_ids_are_guarded_in_csv_and_read_back(tmp_path: Path) -> None:
    table = five_slices()
    table["patient_id"] = HOSTILE[:5]
    table["file"] = HOSTILE[5:10]
    write_table(table, tmp_path / "t.csv")
    with open(tmp_path / "t.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["patient_id"] for row in rows] == [to_cell(text) for text in HOSTILE[:5]]
    assert all(value[:1] not in tuple("=+@\t\r") for row in rows for value in row.values())
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.csv"), table, check_dtype=False)
    write_table(table, tmp_path / "t.parquet")
    assert list(pd.read_parquet(tmp_path / "t.parquet")["patient_id"]) == HOSTILE[:5]


def test_a_table_without_such_text_is_not_copied() -> None:
    table = five_slices()
    assert as_cells(table) is table
