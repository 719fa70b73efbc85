"""Label tables of exams: by any of their ids, the readers of CQ500, and what is wrong with one named."""

from pathlib import Path

import numpy as np
import pytest

from ichseq.data.exam_table import ExamTable, is_exam_table, read_exam_table
from ichseq.data.label_columns import columns_of
from ichseq.errors import DataError
from ichseq.labels import LABELS

NAN = np.nan
FINDINGS = ("ICH", "IPH", "IVH", "SDH", "EDH", "SAH")
CQ500 = "name,Category," + ",".join(f"R{r}:{f}" for r in (1, 2, 3) for f in (*FINDINGS, "Fracture"))


def read(folder: Path, text: str) -> ExamTable:
    path = folder / "reports.csv"
    path.write_text(text, encoding="utf-8")
    return read_exam_table(path, columns_of(path))


@pytest.mark.parametrize(
    ("columns", "key"),
    [
        ("study_uid,any,subdural", "study_uid"),
        ("StudyInstanceUID,ANY,Subdural", "study_uid"),
        ("Series_UID,any,subdural", "series_uid"),
        ("PatientID,any,subdural", "patient_id"),
        ("patient id,Any,SUBDURAL", "patient_id"),
    ],
)
def test_exams_are_named_by_any_of_their_ids(tmp_path: Path, columns: str, key: str) -> None:
    table = read(tmp_path, f"{columns}\n1.2 ,1,\nNA,0,0\n")
    assert (table.key, table.ids) == (key, ["1.2", "NA"])
    assert np.array_equal(table.values[0], [NAN] * 5 + [1], equal_nan=True)
    assert np.array_equal(table.values[1], [NAN] * 4 + [0, 0], equal_nan=True)
    assert table.rows(["NA", "1.2", "1.3"]).tolist() == [1, 0, -1]
    assert np.isnan(table.agreement).all()


def test_the_narrowest_id_counts_and_other_columns_are_let_be(tmp_path: Path) -> None:
    text = 'patient_id,study_uid,report,any\np,1,"no bleed,\nnone",0\np,2,bleeds,1\n'
    table = read(tmp_path, text)
    assert (table.key, table.ids, table.values[:, 5].tolist()) == ("study_uid", ["1", "2"], [0, 1])


def test_a_report_in_another_encoding_and_columns_like_a_label_are_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "reports.csv"
    path.write_bytes("study_uid,Befund,subdural_mm,subdural\n1,Hämatom,7,1\n".encode("latin-1"))
    table = read_exam_table(path, columns_of(path))
    assert np.array_equal(table.values, [[NAN] * 4 + [1, NAN]], equal_nan=True)


def test_rows_of_one_exam_are_put_together(tmp_path: Path) -> None:
    table = read(tmp_path, "study_uid,any,epidural\n1,1,\n1,,0\n")
    assert np.array_equal(table.values, [[0, NAN, NAN, NAN, NAN, 1]], equal_nan=True)


def test_the_majority_of_the_readers_counts_with_the_share_that_agrees(tmp_path: Path) -> None:
    rows = [
        "CQ500-CT-7,B1," + "1,1,0,0,0,0,1," + "1,0,0,1,0,0,1," + "0,0,0,0,0,0,0",
        "CQ500-CT-70,B2," + "0,0,0,0,0,0,0," * 2 + "0,0,0,0,0,0,0",
        "CQ500-CT-8,B2," + "1,,0,0,0,0,0," + "0,,0,0,0,0,0," + ",,0,0,0,0,0",
    ]
    table = read(tmp_path, "\n".join([CQ500, *rows]) + "\n")
    value = {label: table.values[:, k] for k, label in enumerate(LABELS)}
    share = {label: table.agreement[:, k] for k, label in enumerate(LABELS)}
    assert np.array_equal(value["any"], [1, 0, NAN], equal_nan=True)  # two of three; none; one of two is undecided
    assert np.array_equal(value["intraparenchymal"], [0, 0, NAN], equal_nan=True)
    assert np.array_equal(value["subdural"], [0, 0, 0])
    assert np.allclose(share["any"], [2 / 3, 1, NAN], equal_nan=True)
    assert np.allclose(share["subdural"], [2 / 3, 1, 1])
    assert np.allclose(share["intraventricular"], 1)
    assert table.rows(["CQ500-CT-70", "CQ500CT7", "CQ500-CT-700", "cq500_ct_8"]).tolist() == [1, 0, -1, 2]


def test_what_is_a_table_of_exams() -> None:
    assert is_exam_table(["StudyInstanceUID", "Any"])
    assert is_exam_table(CQ500.split(","))
    assert not is_exam_table(["study_uid", "report"])
    assert not is_exam_table(["name", "any"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("study_uid,any\n1,yes\n", "any of row 1 is 'yes'; a label is 0, 1 or empty"),
        ("study_uid,any\n1,0\n,1\n", "row 2 has no study_uid"),
        ("study_uid,any\n1,0\n1,1\n", "any of study_uid 1 is 0 in one and 1 in another; remove the wrong one, or name "
         "exams by series_uid"),
        ("series_uid,any\n1,0\n1,1\n", "in another; remove the wrong one$"),
        ("study_uid,any,subdural\n1,0,1\n", "study_uid 1 has any 0 and subdural 1"),
        ("study_uid,any,subdurall\n1,0,1\n", "unknown label 'subdurall' among its columns"),
        ("study_uid,any,Any\n1,0,1\n", "name stands twice"),
        ("study_uid,StudyInstanceUID,any\n1,0,1\n", "name stands twice"),
        ("study_uid,any\n", "no rows"),
        ("study_uid,any\n1,0,0\n", "Expected 2 columns, got 3"),
        (f"{CQ500}\na,B1,{','.join('0' * 21)}\na,B1,{','.join('0' * 21)}\n", "stands in two rows"),
        (f"{CQ500}\na,B1,{','.join('2' * 21)}\n", "R1:.* of row 1 is '2'"),
        (f"{CQ500}\na,B1,{','.join('0001000' * 3)}\n", "name a has any 0 and subdural 1"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(str(tmp_path / "reports.csv"))
