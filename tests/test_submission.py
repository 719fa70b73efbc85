"""A submission read back against the sample it answers."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from five_slices import five_slices

from ichseq.errors import ConfigError, DataError
from ichseq.labels import LABELS
from ichseq.predictions.submission import submission, write_submission


def sample_of(table: pd.DataFrame) -> list[str]:
    """IDs, six a slice, neither slices nor labels in the order of the table."""
    return [f"{sop_uid}_{label}" for sop_uid in table["sop_uid"].iloc[[3, 0, 4, 2, 1]] for label in reversed(LABELS)]


def write_sample(path: Path, ids: list[str], head: str = "ID,Label") -> Path:
    path.write_text("\n".join([head, *(f"{text},0.5" for text in ids)]) + "\n", encoding="utf-8")
    return path


def test_a_submission_reads_back_in_the_order_of_the_sample(tmp_path: Path) -> None:
    scores = [0.0, 1 / 3, 0.12345678901, 2.5e-5 / 7, 1.0]
    table = five_slices(scores=scores).assign(subdural=np.random.default_rng(0).random(5))
    sample = write_sample(tmp_path / "sample.csv", sample_of(table))
    write_submission(submission(table, sample), tmp_path / "out" / "submission.csv")
    read = pd.read_csv(tmp_path / "out" / "submission.csv")
    assert list(read.columns) == ["ID", "Label"]
    assert list(read["ID"]) == sample_of(table)
    clipped = table.set_index("sop_uid")[list(LABELS)].clip(1e-5, 1 - 1e-5)
    for name, value in zip(read["ID"], read["Label"], strict=True):
        sop_uid, label = name.rsplit("_", 1)
        assert abs(value - clipped.loc[sop_uid, label]) <= 1e-9
    assert read["Label"].min() == 1e-5
    assert read["Label"].max() == 0.99999
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["submission.csv"]


def test_the_clip_is_the_callers(tmp_path: Path) -> None:
    table = five_slices(scores=[0.0, 1.0, 0.5, 0.5, 0.5])
    sample = write_sample(tmp_path / "sample.csv", sample_of(table))
    for least in (0.1, 1e-8, 0.0):
        write_submission(submission(table, sample, least=least), tmp_path / "s.csv")
        label = pd.read_csv(tmp_path / "s.csv", dtype="str")["Label"].map(float)
        assert (label.min(), label.max()) == (least, 1 - least)


def test_other_slices_than_the_sample_asks_for_are_refused(tmp_path: Path) -> None:
    table = five_slices()
    sample = write_sample(tmp_path / "sample.csv", sample_of(table))
    with pytest.raises(DataError, match=r"sample\.csv: 2 of its 5 slices have no prediction, such as ID_3"):
        submission(table[:3], sample)
    asked = [name for name in sample_of(table) if not name.startswith(("ID_1", "ID_2"))]
    write_sample(sample, asked)
    with pytest.raises(DataError, match=r"does not ask for 2 of the table's 5 slices, such as ID_1"):
        submission(table, sample)
    twice = pd.concat([table, table[:1].assign(series_uid="b")])
    with pytest.raises(DataError, match="the table holds 1 slice twice, such as ID_0"):
        submission(twice, sample)


def test_a_sample_that_is_none_is_refused(tmp_path: Path) -> None:
    table, sample = five_slices(), tmp_path / "sample.csv"
    with pytest.raises(DataError, match=r"sample\.csv: no such file"):
        submission(table, sample)
    sample.write_bytes(b"")
    with pytest.raises(DataError, match=r"sample\.csv: can't be read as CSV"):
        submission(table, sample)
    ids = sample_of(table)
    for head in ("id,Label", "ID,label", "Label,ID"):
        with pytest.raises(DataError, match=f"columns {head.replace(',', ', ')}; a sample submission has ID, Label"):
            submission(table, write_sample(sample, ids, head))
    for wrong, words in (
        ([], "no rows"),
        ([*ids, ids[7], ids[8]], f"2 rows twice, such as {ids[7]}"),
        ([*ids, "ID_0_fracture"], "ID ID_0_fracture is no <sop_uid>_<label>"),
        ([*ids, "any"], "ID any is no <sop_uid>_<label>"),
        ([*ids, "_any"], "ID _any is no <sop_uid>_<label>"),
        (ids[1:], "1 slice without 6 rows, such as ID_3 with 5"),
    ):
        with pytest.raises(DataError, match=words):
            submission(table, write_sample(sample, wrong))


def test_a_submission_is_csv(tmp_path: Path) -> None:
    content = pd.DataFrame({"ID": ["ID_0_any"], "Label": [0.5]})
    with pytest.raises(ConfigError, match=r"s\.parquet: a submission is CSV"):
        write_submission(content, tmp_path / "s.parquet")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="can't be written"):
        write_submission(content, tmp_path / "file" / "s.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
