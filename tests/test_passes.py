"""Which slices under one UID are one pass over one head, and what is cut, warned of, or left alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_files import ct_dataset, dicom_bytes

from ichseq.ct.series import Series, SeriesCollection, load_series


def write(folder: Path, places: Any, first: int = 1, **changes: Any) -> Path:
    """A slice at each place, of pixels that stand nowhere else; InstanceNumber counts from `first`."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, place in enumerate(places, first):
        pixels = np.random.default_rng(number).integers(0, 2000, (6, 5)).astype(np.int16)
        tags = {"InstanceNumber": number, "ImagePositionPatient": [-3, 4, f"{place:.4f}"], **changes}
        (folder / f"{number * 7919 % 10007}").write_bytes(dicom_bytes(ct_dataset(pixels, number=number, **tags)))
    return folder


def steps(start: float, step: float, count: int) -> np.ndarray:
    return start + step * np.arange(count)


def places(found: SeriesCollection) -> list[list[float]]:
    return sorted(series.positions_mm.round(3).tolist() for series in found)


def warning(series: Series) -> str:
    (text,) = series.warnings
    return text


# ---- what is cut


@pytest.mark.parametrize(
    ("column", "one", "other"),
    [
        ("ConvolutionKernel", "H31s", "H60s"),
        ("SliceThickness", "5", "1.25"),
        ("ImageType", ["ORIGINAL", "PRIMARY", "AXIAL"], ["DERIVED", "SECONDARY", "AXIAL"]),
        ("SeriesNumber", 2, 3),
        ("AcquisitionNumber", 1, 2),
    ],
)
@pytest.mark.parametrize("offset", [0, 0.05, 1.7, 2.5], ids="{} mm apart".format)
def test_two_passes_over_the_same_head_are_cut_by_what_differs(
    column: str, one: Any, other: Any, offset: float, tmp_path: Path
) -> None:
    """Half a step makes even steps again, so that the steps alone say nothing."""
    write(tmp_path, steps(0, 5, 12), **{column: one})
    write(tmp_path, steps(offset, 5, 12), 20, **{column: other})
    found = load_series(tmp_path)
    assert places(found) == sorted([steps(0, 5, 12).tolist(), steps(offset, 5, 12).round(3).tolist()])
    assert {warning(series) for series in found} == {
        f"one SeriesInstanceUID, but 2 sets of slices (by {column}): read as 2 series"
    }


def test_thick_and_thin_slices_and_passes_that_overlap_are_cut(tmp_path: Path) -> None:
    write(tmp_path / "a", steps(0, 5, 20), SliceThickness=5)
    write(tmp_path / "a", steps(0, 0.8, 119), 30, SliceThickness=0.8)
    assert sorted(map(len, load_series(tmp_path / "a"))) == [20, 119]
    write(tmp_path / "b", steps(0, 5, 14), AcquisitionNumber=1)
    write(tmp_path / "b", steps(52, 5, 14), 15, AcquisitionNumber=2)
    assert places(load_series(tmp_path / "b")) == [steps(0, 5, 14).tolist(), steps(52, 5, 14).tolist()]


def test_kernels_of_two_zones_are_cut_once(tmp_path: Path) -> None:
    """Each kernel's two acquisitions, base and vertex, stay together."""
    for k, kernel in enumerate(("SOFT", "BONE")):
        write(tmp_path, steps(0, 4, 8), 1 + 40 * k, ConvolutionKernel=kernel, AcquisitionNumber=1 + 2 * k)
        write(tmp_path, steps(33, 7, 8), 20 + 40 * k, ConvolutionKernel=kernel, AcquisitionNumber=2 + 2 * k)
    found = load_series(tmp_path)
    assert [len(series) for series in found] == [16, 16]
    assert all("by ConvolutionKernel" in warning(series) for series in found)


@pytest.mark.parametrize("column", ["AcquisitionTime", "ContentTime", "AcquisitionNumber", "InstanceNumber"])
@pytest.mark.parametrize("by_place", [False, True], ids=["time by time", "place by place"])
def test_of_a_perfusion_the_first_time_is_read(column: str, by_place: bool, tmp_path: Path) -> None:
    for time in range(6):
        for k in range(4):
            number = 1 + (k * 6 + time if by_place else time * 4 + k)
            tags = {column: f"1200{2 * time:02d}.5" if "Time" in column else time + 3}
            if column == "InstanceNumber":
                tags = {}
            write(tmp_path, [5 * k], number, **tags)
    found = load_series(tmp_path)
    (series,) = found
    first = [1 + (k * 6 if by_place else k) for k in range(4)]
    assert [int(uid.rpartition(".")[2]) for uid in series.sop_uids] == first
    assert "6 times over the same places" in warning(series)
    assert [item.expected for item in found.left_out] == [True] * 20


def test_two_heads_far_from_each_other_are_two_series(tmp_path: Path) -> None:
    write(tmp_path, steps(0, 5, 20))
    write(tmp_path, steps(-900.2, 4, 25), 30)
    found = load_series(tmp_path)
    assert sorted(map(len, found)) == [20, 25]
    assert all("2 places far from each other" in warning(series) for series in found)


# ---- what stays together


@pytest.mark.parametrize(
    ("second", "changes"),
    [
        (steps(60, 5, 13), {"AcquisitionNumber": 2}),  # they meet at one place
        (steps(61.8, 7, 13), {"AcquisitionNumber": 2, "SliceThickness": 7, "ImageType": ["ORIGINAL", "PRIMARY"]}),
        (steps(65, 5, 30), {"ConvolutionKernel": "BONE", "SeriesNumber": 4}),
    ],
)
def test_two_zones_of_one_pass_are_one_series(second: np.ndarray, changes: dict[str, Any], tmp_path: Path) -> None:
    first = {"AcquisitionNumber": 1, "SliceThickness": 5, "ConvolutionKernel": "SOFT", "SeriesNumber": 3}
    write(tmp_path, steps(0, 5, 13), **first)
    write(tmp_path, second, 14, **first | changes)
    (series,) = load_series(tmp_path)
    assert len(series) == 13 + len(second)
    assert [text for text in series.warnings if "share 1 place" not in text] == []


def test_numbers_and_times_of_each_slice_tell_no_passes_apart(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for k, place in enumerate(steps(0, 2.5, 40)):
        times = {name: f"1200{rng.integers(60):02d}" for name in ("AcquisitionTime", "ContentTime")}
        write(tmp_path, [place + rng.normal(0, 0.05)], k + 1, AcquisitionNumber=k // 2, **times)
    (series,) = load_series(tmp_path)
    assert series.warnings == []


def test_rounded_positions_are_even_steps(tmp_path: Path) -> None:
    (series,) = load_series(write(tmp_path, steps(0, 0.625, 60).round(1)))
    assert series.warnings == []


# ---- what nothing tells apart


@pytest.mark.parametrize("offset", [0.05, 1.7, 2.1])
def test_two_patients_under_one_set_of_ids_are_warned_of(offset: float, tmp_path: Path) -> None:
    write(tmp_path, steps(0, 5, 20))
    write(tmp_path, steps(offset, 5, 20), 30)
    (series,) = load_series(tmp_path)
    assert "mm in turn: two passes or two patients may be mixed" in warning(series)


def test_a_few_slices_of_another_kernel_are_no_series_and_warned_of(tmp_path: Path) -> None:
    write(tmp_path, [*steps(0, 5, 5), *steps(30, 5, 5), *steps(60, 5, 5)], ConvolutionKernel="SOFT")
    write(tmp_path, [25, 55], 30, ConvolutionKernel="BONE")
    (series,) = load_series(tmp_path)
    assert (
        warning(series)
        == "slices of 2 kinds (by ConvolutionKernel) lie between each other, and are no series of their own"
    )


# ---- ids


@pytest.mark.parametrize("each_study", [False, True], ids=["series", "study too"])
def test_slices_with_a_uid_each_are_put_together(each_study: bool, tmp_path: Path) -> None:
    for k, place in enumerate([*steps(0, 4, 10), *steps(42, 7, 8)]):
        uids = {"SeriesInstanceUID": f"1.2.{90 - k}"} | ({"StudyInstanceUID": f"1.3.{k}"} if each_study else {})
        write(tmp_path / f"{k}", [place], k + 1, **uids)
    (series,) = load_series(tmp_path)
    assert (len(series), series.series_uid) == (18, "1.2.73")
    assert ["put together" in text for text in series.warnings] == [True] * (1 + each_study)
    assert load_series([tmp_path / f"{k}" for k in range(18)][::-1])[0].key == series.key


def test_slices_with_a_uid_each_that_do_not_lie_evenly_are_warned_of(tmp_path: Path) -> None:
    for k, place in enumerate([0, 5, 5, 5, 20, 21, 40]):
        write(tmp_path / f"{k}", [place], k + 1, SeriesInstanceUID=f"1.2.{k}")
    found = load_series(tmp_path)
    assert len(found) == 7
    assert all("one of many series of one slice" in warning(series) for series in found)


def test_single_slices_of_several_patients_stay_alone(tmp_path: Path) -> None:
    for k in range(8):
        uids = {"SeriesInstanceUID": f"1.2.{k}", "StudyInstanceUID": f"1.3.{k}", "PatientID": f"P{k}"}
        write(tmp_path / f"{k}", [5 * k], k + 1, **uids)
    found = load_series(tmp_path)
    assert [series.warnings for series in found] == [[]] * 8


def test_a_study_under_several_patient_ids_is_one_patients(tmp_path: Path) -> None:
    """And so are the other studies of these patients; a part of it without an id is of the same patient."""
    for k, patient in enumerate(["P7", "P3", None]):
        write(tmp_path / f"{k}", steps(25 * k, 5, 5), 1 + 5 * k, PatientID=patient)
    write(tmp_path / "other", steps(0, 5, 5), 50, PatientID="P7", StudyInstanceUID="1.9", SeriesInstanceUID="1.9.1")
    write(tmp_path / "stranger", steps(0, 5, 5), 60, PatientID="P8", StudyInstanceUID="1.8", SeriesInstanceUID="1.8.1")
    found = {(series.study_uid, series.patient_id, len(series)): series.warnings for series in load_series(tmp_path)}
    assert sorted(found) == [("1.2.3.4", "P3", 15), ("1.8", "P8", 5), ("1.9", "P3", 5)]
    text = "its study stands under several PatientIDs: taken for one patient's"
    assert [found[key] for key in sorted(found)] == [[text], [], [text]]


def test_two_heads_under_two_patient_ids_of_one_study_are_cut(tmp_path: Path) -> None:
    write(tmp_path, steps(0, 5, 12), PatientID="P1")
    write(tmp_path, steps(1.7, 5, 12), 20, PatientID="P2")
    found = load_series(tmp_path)
    assert [(len(series), series.patient_id) for series in found] == [(12, "P1"), (12, "P1")]
    assert all("by PatientID" in " ".join(series.warnings) for series in found)
