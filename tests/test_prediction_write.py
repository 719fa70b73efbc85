"""Prediction tables are written whole or not at all."""

import resource
from pathlib import Path

import pandas as pd
import pytest

from ichseq.errors import DataError
from ichseq.predictions.schema import EXAM_COLUMNS, STUDY_COLUMNS
from ichseq.predictions.write import (
    check_outputs,
    check_writable,
    exams_beside,
    studies_beside,
    write_table,
    write_tables,
)


def test_table_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    table = pd.DataFrame({"a": [0.123456789]})
    for name in ("t.csv", "t.parquet"):
        write_table(table, tmp_path / name)
    assert pd.read_csv(tmp_path / "t.csv")["a"][0] == 0.1234568
    assert pd.read_parquet(tmp_path / "t.parquet")["a"][0] == 0.123456789
    (tmp_path / "file").write_text("in the way")
    for write in (check_writable, lambda path: write_table(table, path)):
        with pytest.raises(DataError, match=r"t\.csv: can't be written"):
            write(tmp_path / "file" / "t.csv")
    check_writable(tmp_path / "t.csv")
    assert {path.name for path in tmp_path.iterdir()} == {"t.csv", "t.parquet", "file"}


def test_a_table_that_is_interrupted_leaves_the_earlier_one_alone(tmp_path: Path) -> None:
    class Interrupting:
        def __str__(self) -> str:
            raise KeyboardInterrupt

    write_table(pd.DataFrame({"a": [1]}), tmp_path / "t.csv")
    with pytest.raises(KeyboardInterrupt):
        write_table(pd.DataFrame({"a": [Interrupting()]}), tmp_path / "t.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]
    assert (tmp_path / "t.csv").read_text() == "a\n1\n"


def test_of_two_tables_both_are_written_or_none(tmp_path: Path) -> None:
    small, large = pd.DataFrame({"a": [1]}), pd.DataFrame({"a": range(5000)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))  # as a disk with 4 kB left
    try:
        with pytest.raises(DataError, match=r"exams\.csv: can't be written"):
            write_tables({tmp_path / "t.csv": small, tmp_path / "exams.csv": large})
        assert not list(tmp_path.iterdir())
        write_tables({tmp_path / "t.csv": small, tmp_path / "exams.csv": small})
        with pytest.raises(DataError, match=r"t\.csv: can't be written"):
            write_tables({tmp_path / "t.csv": large, tmp_path / "exams.csv": small.assign(a=2)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"t.csv": "a\n1\n", "exams.csv": "a\n1\n"}


NAMES = ["folder/exams.csv", "new/exams.csv", "Exams.CSV", "studies.parquet", "a-exams.csv", "a-Studies.parquet"]


@pytest.mark.parametrize("out", [".", "..", "folder", "", *NAMES])
def test_what_cannot_hold_the_slices_beside_the_exams_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"name (a|another) file"):
        check_outputs(Path(out))
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]


def test_the_exams_and_studies_stand_beside_the_slices(tmp_path: Path) -> None:
    assert exams_beside(tmp_path / "predictions.csv") == tmp_path / "exams.csv"
    assert studies_beside(tmp_path / "predictions.parquet") == tmp_path / "studies.parquet"
    path = tmp_path / "new" / "t.parquet"
    assert exams_beside(path) == tmp_path / "new" / "t-exams.parquet"
    check_outputs(path)
    (tmp_path / "new" / "t-exams.parquet").mkdir()
    with pytest.raises(DataError, match=r"t-exams\.parquet: is a folder"):
        check_outputs(path)


def test_no_two_predictions_share_a_file(tmp_path: Path) -> None:
    outs = [tmp_path / name for name in ("predictions.csv", "predictions.parquet", "a.csv", "a.parquet", "a.b.csv", "a",
                                         "Predictions.csv", "predictions", "b-a.csv")]  # fmt: skip
    for out in outs:
        check_outputs(out)
    every = [path for out in outs for path in (out, exams_beside(out), studies_beside(out))]
    assert len(set(every)) == 3 * len(outs)


@pytest.mark.parametrize("name", ["exams.csv", "studies.csv", "exams.parquet", "studies.parquet"])
def test_a_file_of_the_user_s_beside_the_slices_is_not_written_over(tmp_path: Path, name: str) -> None:
    out = tmp_path / f"predictions{Path(name).suffix}"
    labels = pd.DataFrame({"study_uid": ["1"], "any": [1]})
    write_table(labels, tmp_path / name)
    with pytest.raises(DataError, match=f"{name}: is no table of ichseq's, and would be written over"):
        check_outputs(out)
    columns = EXAM_COLUMNS if name.startswith("exams") else STUDY_COLUMNS
    write_table(pd.DataFrame({column: ["1"] for column in columns}), tmp_path / name)
    check_outputs(out)  # that of an earlier prediction is replaced
    (tmp_path / name).write_bytes(b"\xff\0")
    with pytest.raises(DataError, match="is no table of ichseq's"):
        check_outputs(out)
