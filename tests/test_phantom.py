"""The phantom: the layout of the RSNA 2019 set, the same bytes every time, a task neither trivial nor hopeless."""

import csv
import shutil
import warnings
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pydicom
import pytest
from scipy import ndimage

from ichseq.errors import ConfigError, DataError
from ichseq.labels import LABELS
from ichseq.phantom import MARKER, write_phantoms
from ichseq.phantom.bleeding import KINDS, draw_kinds
from ichseq.phantom.scanner import draw_scanner, scan_noise

RSNA_TAGS = {
    *("SOPInstanceUID", "Modality", "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "StudyID"),
    *("ImagePositionPatient", "ImageOrientationPatient", "SamplesPerPixel", "PhotometricInterpretation", "Rows"),
    *("Columns", "PixelSpacing", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "WindowCenter"),
    *("WindowWidth", "RescaleIntercept", "RescaleSlope", "PixelData"),
}


# Their UIDs are none by the standard's rules, on purpose.
pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR UI")


def read(path: Path) -> pydicom.FileDataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(path)


def read_labels(path: Path) -> dict[str, list[float]]:
    """SOPInstanceUID -> its labels in the order of LABELS."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            name, label = row["ID"].rsplit("_", 1)
            assert label not in found[name]
            found[name][label] = float(row["Label"])
    return {name: [labels[label] for label in LABELS] for name, labels in found.items()}


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten patients and two for testing, small."""
    out = tmp_path_factory.mktemp("phantom") / "raw"
    write_phantoms(out, patients=10, test_patients=2, size=128, seed=3, workers=2)
    return out


@pytest.fixture(scope="module")
def series(phantoms: Path) -> list[list[pydicom.FileDataset]]:
    """The training series, each with its slices from the feet to the head."""
    groups = defaultdict(list)
    for path in sorted((phantoms / "stage_2_train").iterdir()):
        dataset = read(path)
        assert path.name == f"{dataset.SOPInstanceUID}.dcm"
        groups[dataset.SeriesInstanceUID].append(dataset)
    return [sorted(group, key=height) for group in groups.values()]


def height(dataset: pydicom.FileDataset) -> float:
    across, down = np.array(dataset.ImageOrientationPatient, float).reshape(2, 3)
    return float(np.cross(across, down) @ np.array(dataset.ImagePositionPatient, float))


def hounsfield(dataset: pydicom.FileDataset) -> np.ndarray:
    return dataset.pixel_array.astype(np.float32) * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)


def test_headers_are_those_of_the_set(series: list[list[pydicom.FileDataset]]) -> None:
    for slices in series:
        for dataset in slices:
            assert {element.keyword for element in dataset} == RSNA_TAGS
            assert dataset.file_meta.ImplementationVersionName == MARKER
            assert (dataset.RescaleIntercept, dataset.RescaleSlope, dataset.Modality) == (-1024, 1, "CT")
            assert dataset.BitsStored == (16 if dataset.PixelRepresentation else 12)
            assert dataset.pixel_array.shape == (128, 128)
            assert 0.44 < dataset.PixelSpacing[0] * 128 / 512 < 0.5


def test_geometry_of_a_tilted_stack(series: list[list[pydicom.FileDataset]]) -> None:
    assert len(series) == 10
    tilts = []
    for slices in series:
        assert 20 <= len(slices) <= 60
        across, down = np.array(slices[0].ImageOrientationPatient, float).reshape(2, 3)
        np.testing.assert_allclose(across, (1, 0, 0))
        assert np.linalg.norm(down) == pytest.approx(1, abs=1e-5)
        tilts.append(np.rad2deg(np.arcsin(-down[2])))
        steps = np.diff([np.array(d.ImagePositionPatient, float) for d in slices], axis=0)
        assert (steps[:, :2] == 0).all(), "the table moves along z alone"
        gaps = np.diff([height(d) for d in slices])
        assert gaps.min() > 2
        assert 125 < gaps.sum() < 185, "a whole head"
    assert 0 <= min(tilts) < 8
    assert 10 < max(tilts) <= 22
    # Names say nothing about the order.
    orders = [np.argsort([d.SOPInstanceUID for d in slices]) for slices in series]
    assert all((np.diff(order) < 0).any() and (np.diff(order) > 0).any() for order in orders)


def test_tables_name_every_slice_once(phantoms: Path) -> None:
    for part, table in (("train", "stage_2_train.csv"), ("test", "truth/stage_2_test.csv")):
        labels = read_labels(phantoms / table)
        assert set(labels) == {path.stem for path in (phantoms / f"stage_2_{part}").iterdir()}
        assert all(row[5] == max(row[:5]) for row in labels.values())
    answers = read_labels(phantoms / "stage_2_sample_submission.csv")
    assert list(answers) == list(read_labels(phantoms / "truth" / "stage_2_test.csv"))
    assert set(np.ravel(list(answers.values()))) == {0.5}


def test_bleeds_lie_where_the_table_says(phantoms: Path, series: list[list[pydicom.FileDataset]]) -> None:
    labels = read_labels(phantoms / "stage_2_train.csv")
    by_series = {slices[0].SeriesInstanceUID: slices for slices in series}
    with open(phantoms / "truth" / "bleeds.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["part"] == "train"]
    assert {row["kind"] for row in rows} == set(KINDS)
    expected = {sop: [0.0] * 6 for sop in labels}
    for row in rows:
        slices = by_series[row["series_uid"]]
        assert slices[0].PatientID == row["patient_id"]
        assert 50 <= float(row["mean_hu"]) <= 85
        assert 0.7 <= float(row["volume_ml"]) < 110
        assert float(row["min_slice"]) - 0.5 <= float(row["slice_index"]) <= float(row["max_slice"]) + 0.5
        assert int(row["min_row"]) <= float(row["row"]) <= int(row["max_row"])
        # The centre in patient coordinates, read back through the header, is the one in rows, columns and slices.
        index = float(row["slice_index"])
        dataset = slices[round(index)]
        across, down = np.array(dataset.ImageOrientationPatient, float).reshape(2, 3)
        gap = np.array([float(row[axis]) for axis in ("x_mm", "y_mm", "z_mm")])
        gap -= np.array(dataset.ImagePositionPatient, float)
        heights = [height(d) for d in slices]
        assert gap @ across / dataset.PixelSpacing[1] == pytest.approx(float(row["column"]), abs=0.1)
        assert gap @ np.cross(across, down) + heights[round(index)] == pytest.approx(
            np.interp(index, range(len(slices)), heights), abs=0.1
        )
        # A bleed makes no slice outside its extent positive; within, it may lack the gap between two lobes.
        for dataset in slices[int(row["min_slice"]) : int(row["max_slice"]) + 1]:
            expected[dataset.SOPInstanceUID][LABELS.index(row["kind"])] = 1
    kinds = np.array([row[:5] for row in labels.values()])
    allowed = np.array([expected[sop][:5] for sop in labels])
    assert (kinds <= allowed).all()
    assert kinds.sum() > 0.85 * allowed.sum()


def smooth_slices(slices: list[pydicom.FileDataset]) -> tuple[np.ndarray, np.ndarray]:
    """HU smoothed over some 3 mm, and a mask of the brain: (n, rows, columns) each."""
    hu = np.stack([hounsfield(d) for d in slices])
    bone = ndimage.binary_dilation(hu > 200, np.ones((1, 3, 3)))
    inside = np.stack([ndimage.binary_fill_holes(b) & ~b for b in bone])
    inside &= (hu > -20) & (hu < 150)
    inside = ndimage.binary_opening(inside, np.ones((1, 3, 3)))
    return ndimage.gaussian_filter(hu, (0, 1, 1)), inside


def test_a_threshold_does_not_win_but_blood_shows(phantoms: Path, series: list[list[pydicom.FileDataset]]) -> None:
    labels = read_labels(phantoms / "stage_2_train.csv")
    with open(phantoms / "truth" / "bleeds.csv", newline="") as file:
        large = [row for row in csv.DictReader(file) if row["part"] == "train" and float(row["volume_ml"]) > 8]
    scores, truth, contrasts = [], [], []
    for slices in series:
        hu, inside = smooth_slices(slices)
        scores += [((h > 50) & (h < 85) & m).sum() / max(m.sum(), 200) for h, m in zip(hu, inside, strict=True)]
        truth += [labels[d.SOPInstanceUID][5] for d in slices]
        for row in large:
            if row["series_uid"] == slices[0].SeriesInstanceUID and row["kind"] in ("epidural", "intraparenchymal"):
                s, r, c = round(float(row["slice_index"])), round(float(row["row"])), round(float(row["column"]))
                brain = hu[s][inside[s] & (hu[s] < 45)]
                contrasts.append((hu[s, r - 1 : r + 2, c - 1 : c + 2].mean() - np.median(brain)) / brain.std())
    assert min(contrasts) > 3
    positive, negative = (np.array([s for s, t in zip(scores, truth, strict=True) if t == v]) for v in (1, 0))
    larger = (positive[:, None] > negative[None, :]).mean()
    ties = (positive[:, None] == negative[None, :]).mean()
    assert 0.3 < larger + ties / 2 < 0.9


def test_noise_and_tissue_are_those_of_a_head(series: list[list[pydicom.FileDataset]]) -> None:
    for slices in series:
        middle = slices[int(0.62 * len(slices))]
        hu = hounsfield(middle)
        inside = smooth_slices([middle])[1][0]
        assert 22 < np.median(hu[inside]) < 45
        assert (hu > 800).sum() > 200, "skull"
        assert np.median(hu[:8, :8]) < -900
        assert height(slices[-1]) - height(slices[0]) > 130


@pytest.mark.parametrize("size", [64, 128, 256])
def test_small_images_have_the_noise_of_averaged_large_ones(size: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        scanner = draw_scanner(rng)
        large = scan_noise(rng, scanner, 512)
        assert large.std() == pytest.approx(scanner.noise, rel=0.01)
        side = 512 // size
        averaged = large.reshape(size, side, size, side).mean(axis=(1, 3))
        assert scan_noise(rng, scanner, size).std() == pytest.approx(averaged.std(), rel=0.1)


def test_same_bytes_whatever_the_workers_and_the_number_of_patients(tmp_path: Path) -> None:
    few, more = tmp_path / "few", tmp_path / "more"
    done: list[tuple[int, int]] = []
    write_phantoms(few, patients=1, test_patients=1, size=48, seed=5, workers=1, progress=lambda *a: done.append(a))
    write_phantoms(more, patients=2, test_patients=1, size=48, seed=5, workers=2)
    assert done == [(1, 2), (2, 2)]
    for part in ("train", "test"):
        for path in (few / f"stage_2_{part}").iterdir():
            assert path.read_bytes() == (more / f"stage_2_{part}" / path.name).read_bytes()
    assert (few / "truth" / "stage_2_test.csv").read_bytes() == (more / "truth" / "stage_2_test.csv").read_bytes()
    other = tmp_path / "other"
    write_phantoms(other, patients=1, test_patients=0, size=48, seed=6, workers=1)
    assert not {p.name for p in (other / "stage_2_train").iterdir()} & {
        p.name for p in (few / "stage_2_train").iterdir()
    }


def test_every_kind_in_every_ten_patients() -> None:
    for seed in range(3):
        for start in range(0, 60, 10):
            kinds = [draw_kinds(seed, 0, number) for number in range(start, start + 10)]
            assert sorted(k[0] for k in kinds if k) == sorted(KINDS)
        assert all(len(set(k)) == len(k) for k in kinds)
    orders = [tuple(bool(draw_kinds(0, 0, n)) for n in range(start, start + 10)) for start in range(0, 60, 10)]
    assert any(a != b for a, b in pairwise(orders)), "who bleeds must not follow from the number"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("patients", 0),
        ("patients", 2.5),
        ("test_patients", -1),
        ("size", 16),
        ("size", 4096),
        ("seed", -1),
        ("workers", 0),
    ],
)
def test_a_number_out_of_range_is_named(tmp_path: Path, name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"{name}: {value}"):
        write_phantoms(tmp_path / "out", **{"patients": 1, "test_patients": 0, "size": 32, name: value})
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten_or_left_half_done(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="not an empty folder"):
        write_phantoms(out, patients=1, test_patients=0, size=32)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    shutil.rmtree(out)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_phantoms(out, patients=1, test_patients=0, size=32, workers=1, progress=stop)
    assert not list(tmp_path.iterdir())
    (tmp_path / "out.partial").mkdir()
    with pytest.raises(DataError, match="interrupted run"):
        write_phantoms(out, patients=1, test_patients=0, size=32, workers=1)
    assert not out.exists()
