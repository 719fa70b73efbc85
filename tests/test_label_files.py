"""Label tables taken together: each by what it is of, exams put to their series, contradictions named."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ichseq.data.label_files import Extent, exam_labels_of, read_label_files, refuse_contradictions
from ichseq.errors import DataError
from ichseq.labels import LABELS
from ichseq.predictions.schema import ExamId

NAN = np.nan
SERIES = [ExamId("p", "1", "1.1"), ExamId("p", "1", "1.2"), ExamId("p", "2", "2.1"), ExamId("q", "3", "3.1")]
EXTENTS = [Extent(30, 150), Extent(240, 150), Extent(1, 0), Extent(30, NAN)]
ANY = LABELS.index("any")


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_slices_and_exams_are_told_apart_by_their_columns(tmp_path: Path) -> None:
    slices = write(tmp_path, "slices.csv", "SopInstanceUid,Any\na,0\n")
    more = write(tmp_path, "more.csv", "ID,Label\na_subdural,0\nb_any,1\n")
    exams = write(tmp_path, "exams.csv", "study_uid,any\n1,1\n")
    found = read_label_files([slices, exams, more])
    assert found.name == "slices.csv, more.csv, exams.csv"
    assert found.slices is not None
    values, _ = found.slices.match(pa.array(["a", "b"]))
    assert np.array_equal(values, [[NAN] * 4 + [0, 0], [NAN] * 5 + [1]], equal_nan=True)
    assert [table.ids for table in found.exams] == [["1"]]
    other = write(tmp_path, "other.csv", "ID,Label\na_any,1\n")
    with pytest.raises(DataError, match=r"slices\.csv, .*other\.csv: two rows contradict each other: a_any"):
        read_label_files([slices, other])


@pytest.mark.parametrize("columns", ["study,bleeding", "study_uid,report", "name,R1:Fracture", "patient,any"])
def test_what_is_neither_is_named_with_its_columns_and_those_that_are_wanted(tmp_path: Path, columns: str) -> None:
    path = write(tmp_path, "table.csv", f"{columns}\n1,1\n")
    with pytest.raises(
        DataError, match=f"its columns are {columns.replace(',', ', ')}; expected are ID,Label"
    ) as error:
        read_label_files([path])
    assert all(word in str(error.value) for word in ("sop_uid", "study_uid", "patient_id", "R1:ICH", *LABELS))


@pytest.mark.parametrize(
    ("text", "expected", "without", "several"),
    [
        ("patient_id,any\np,1\nr,0\n", [1, 1, 1, NAN], 1, 1),
        ("study_uid,any\n1,1\n2,0\n", [1, 1, 0, NAN], 0, 1),
        ("series_uid,any\n1.2,1\n3.1,0\n", [NAN, 1, NAN, 0], 0, 0),
    ],
)
def test_all_series_of_an_exam_have_its_labels(
    tmp_path: Path, text: str, expected: list[float], without: int, several: int
) -> None:
    tables = read_label_files([write(tmp_path, "exams.csv", text)]).exams
    found = exam_labels_of(tables, SERIES)
    assert np.array_equal(found.values[:, ANY], expected, equal_nan=True)
    assert np.isnan(found.values[:, :ANY]).all()
    assert (found.without_series, found.in_several) == (without, several)
    assert [bool(where) for where in found.row] == [not np.isnan(one) for one in expected]


def test_one_series_of_an_exam_can_be_asked_for(tmp_path: Path) -> None:
    tables = read_label_files([write(tmp_path, "exams.csv", "patient_id,any\np,1\nq,0\n")]).exams
    thin = exam_labels_of(tables, SERIES, EXTENTS, "thin").values[:, ANY]
    assert np.array_equal(thin, [NAN, 1, NAN, 0], equal_nan=True)
    thick = exam_labels_of(tables, SERIES, EXTENTS, "thick").values[:, ANY]
    assert np.array_equal(thick, [1, NAN, NAN, 0], equal_nan=True)  # a stray slice is no thick series


def test_tables_complete_each_other_and_must_not_contradict(tmp_path: Path) -> None:
    one = write(tmp_path, "one.csv", "study_uid,any,epidural\n1,1,\n")
    two = write(tmp_path, "two.csv", "patient_id,any,epidural\np,,0\n")
    found = exam_labels_of(read_label_files([one, two]).exams, SERIES)
    assert np.array_equal(found.values[:3, [0, ANY]], [[0, 1], [0, 1], [0, NAN]], equal_nan=True)
    three = write(tmp_path, "three.csv", "patient_id,any\np,0\n")
    with pytest.raises(
        DataError, match=r"three\.csv: any of patient_id p is other than .*one\.csv \(study_uid 1\) says"
    ):
        exam_labels_of(read_label_files([one, three]).exams, SERIES)


def test_a_table_of_another_hospital_is_refused(tmp_path: Path) -> None:
    tables = read_label_files([write(tmp_path, "exams.csv", "study_uid,any\n9,1\n8,0\n")]).exams
    with pytest.raises(DataError, match=r"none of its 2 exams, named by study_uid, is among the 4 series"):
        exam_labels_of(tables, SERIES)


def test_an_exam_without_bleeding_and_a_slice_with_it_are_a_contradiction(tmp_path: Path) -> None:
    text = "study_uid,any,subdural\n1,0,0\n2,1,1\n"
    given = exam_labels_of(read_label_files([write(tmp_path, "exams.csv", text)]).exams, SERIES)
    slices = np.full((4, 6), NAN)
    slices[2, ANY] = 0
    assert refuse_contradictions(given, slices) == 1  # a bleed that is on no slice
    slices[1, LABELS.index("subdural")] = 1
    with pytest.raises(
        DataError, match=r"1 exam labelled 0 with a slice that is labelled 1, .* subdural by .*study_uid 1"
    ):
        refuse_contradictions(given, slices)
