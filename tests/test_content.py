"""What a series shows that shows no skull: another part of the body, noise, nothing, values that are off; and what
predicting does with it.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from dicom_files import ct_dataset, dicom_bytes
from looked_at import looked_at
from phantom_heads import known_volume

import ichseq
from ichseq.api import predict_scans
from ichseq.cli import main
from ichseq.ct.content import findings, no_picture
from ichseq.ct.reconstruction import MAP, marks_of
from ichseq.ct.series import load_series
from ichseq.errors import ScanError
from ichseq.model import Model

SEED = 5  # of a head of usual size
MM = 2.0
SQUARE = 176  # pixels of a made body's image


@pytest.fixture(scope="module")
def head() -> tuple[np.ndarray, float]:
    """HU of a made-up head without bleeding, and its pixel in mm."""
    volume = known_volume(SEED, 96)
    return volume.hu, volume.pixel_mm


@pytest.fixture(scope="module")
def model() -> Model:
    return Model("test_resnet", image_size=32, hidden_size=8)


def body(*, lungs: float | None = None, lung_mm: float = 60, wide_mm: float = 165) -> np.ndarray:
    """HU of 12 slices of a trunk on a couch, with ribs, a spine and, if their HU are given, lungs around a heart."""
    rng = np.random.default_rng(SEED)
    y, x = (np.mgrid[:SQUARE, :SQUARE] - SQUARE / 2 + 0.5) * MM
    within = np.hypot(x / wide_mm, y / 110)
    hu = np.select([within < 0.9, within < 1], [45.0, -95.0], -1000.0)
    if lungs is not None:
        for side in (-1, 1):
            hu[np.hypot((x - 75 * side) / lung_mm, y / 75) < 1] = lungs
        hu[np.hypot((x - 20) / 50, (y + 30) / 45) < 1] = 40
    hu[(abs(within - 0.88) < 0.03) & (np.sin(14 * np.arctan2(y, x)) > 0.2)] = 500
    hu[np.hypot(x, y - 80) < 18] = 400
    hu[(y > 118) & (y < 126)] = -100
    return np.stack([hu + rng.normal(0, 15, hu.shape) for _ in range(12)])


def written(folder: Path, hu: np.ndarray, pixel_mm: float, *, name: str = "1.2.3", **changes: Any) -> Path:
    """Slices (n, rows, columns) as DICOM files, 5 mm apart; `changes` of all headers."""
    folder.mkdir(parents=True)
    stored = np.clip(np.round(hu) + 1024, -3000, 4095).astype(np.int16)
    for number, pixels in enumerate(stored):
        uids = {"SeriesInstanceUID": name, "SOPInstanceUID": f"{name}.{number}"}
        dataset = ct_dataset(pixels, number=number, PixelSpacing=[round(pixel_mm, 5)] * 2, **uids | changes)
        (folder / f"{number:03d}").write_bytes(dicom_bytes(dataset))
    return folder


def noise(slices: int = 12, size: int = 96) -> np.ndarray:
    return np.random.default_rng(SEED).normal(0, 400, (slices, size, size))


@pytest.mark.parametrize(
    ("hu", "words"),
    [
        (body(lungs=-850), "lungs are seen and no skull"),
        (body(lungs=-920), "lungs are seen and no skull"),
        (body(lungs=-850)[:, 40:-40, 30:-45], "lungs are seen and no skull"),  # cut out of the chest
        (body(), "the body is wider than a head and has no skull"),
        (noise(), "12 of 12 slices hold noise and no picture"),
        (np.full((8, 96, 96), -1000.0), "the images are empty"),
        (np.full((8, 96, 96), 37.0), "the images are empty"),
        (np.random.default_rng(0).normal(-1000, 12, (8, 96, 96)), "the images are empty"),
    ],
)
def test_what_is_surely_no_head_is_seen(hu: np.ndarray, words: str, tmp_path: Path) -> None:
    looks = looked_at(written(tmp_path / "a", hu, MM))
    assert looks.no_head().startswith(words)
    assert looks.warnings() == [looks.no_head()]
    few = looked_at(written(tmp_path / "few", hu[:4], MM))  # some slices tell nothing surely
    assert few.no_head() == ""


def test_bytes_in_the_wrong_order_are_noise(head: tuple[np.ndarray, float], tmp_path: Path) -> None:
    stored = np.clip(np.round(head[0]) + 1024, 0, 4095).astype("<i2")
    folder = written(tmp_path / "a", head[0], head[1])
    for number, pixels in enumerate(stored):
        dataset = ct_dataset(pixels, number=number, PixelData=pixels.byteswap().tobytes())
        (folder / f"{number:03d}").write_bytes(dicom_bytes(dataset))
    assert "hold noise" in looked_at(folder).no_head()


def test_a_head_is_a_head(head: tuple[np.ndarray, float], tmp_path: Path) -> None:
    hu, pixel_mm = head
    looks = looked_at(written(tmp_path / "whole", hu, pixel_mm))
    assert (looks.no_head(), looks.warnings()) == ("", [])
    narrow = body(wide_mm=100)  # a thing as wide as a head, without a skull, may be one
    looks = looked_at(written(tmp_path / "narrow", narrow, MM))
    assert looks.no_head() == ""
    assert any("this may be no head" in text for text in looks.warnings())


def test_a_head_on_a_pillow_has_no_lungs(head: tuple[np.ndarray, float], tmp_path: Path) -> None:
    hu, pixel_mm = head
    pillow = np.where(hu < -900, -850, hu)
    bare = np.where(pillow > 150, 40, pillow)  # without a skull, so that the pillow alone decides
    assert looked_at(written(tmp_path / "head", pillow, pixel_mm)).no_head() == ""
    assert "lungs" not in looked_at(written(tmp_path / "bare", bare, pixel_mm)).no_head()


def test_head_and_chest_in_one_series_are_predicted(head: tuple[np.ndarray, float], tmp_path: Path) -> None:
    chest = body(lungs=-850)
    middle = len(head[0]) // 2
    field = np.full((6, SQUARE, SQUARE), -1000.0)
    cells = (SQUARE - 96) // 2
    field[:, cells:-cells, cells:-cells] = head[0][middle - 3 : middle + 3]
    looks = looked_at(written(tmp_path / "a", np.concatenate([chest, field]), MM))
    assert looks.no_head() == ""


@pytest.mark.parametrize("off", [1024, 1000, -1024])
def test_values_that_are_off_are_warned_of(head: tuple[np.ndarray, float], off: int, tmp_path: Path) -> None:
    hu, pixel_mm = head
    looks = looked_at(written(tmp_path / "a", hu, pixel_mm, RescaleIntercept=off - 1024))
    (warning,) = looks.warnings()
    assert warning.startswith(f"values look like Hounsfield units {'plus' if off > 0 else 'minus'} 1024")
    assert looks.no_head() == ""


def test_air_that_was_clipped_away_is_warned_of(head: tuple[np.ndarray, float], tmp_path: Path) -> None:
    (warning,) = looked_at(written(tmp_path / "a", np.maximum(head[0], 0), head[1])).warnings()
    assert warning.startswith("no air is seen")


@pytest.mark.parametrize(("fault", "words"), [(np.zeros((96, 96)), "are empty"), (noise(1)[0], "hold noise")])
def test_single_slices_of_a_head_that_are_no_picture_are_counted(
    head: tuple[np.ndarray, float], fault: np.ndarray, words: str, tmp_path: Path
) -> None:
    hu = head[0].copy()
    hu[[len(hu) // 2, len(hu) // 2 + 1]] = fault
    looks = looked_at(written(tmp_path / "a", hu, head[1]))
    (warning,) = looks.warnings()
    assert warning.startswith(f"2 of {len(hu)} slices {words}")
    assert looks.no_head() == ""


def test_no_slice_tells_nothing() -> None:
    assert list(findings([], air=False)) == []


@pytest.mark.parametrize(
    ("kinds", "description", "sure"),
    [
        (["DERIVED", "SECONDARY", "AXIAL", "CT_SOM5 MIP"], "", True),
        (["ORIGINAL", "PRIMARY", "AXIAL", "CBF"], "", True),
        (["DERIVED", "SECONDARY", "AXIAL"], "BONE SUBTRACTION", True),
        (["ORIGINAL", "PRIMARY", "AXIAL"], "PERFUSION 5.0", False),  # the scan that maps are made of
        (["ORIGINAL", "PRIMARY", "AXIAL"], "HEAD 5.0", None),
        (["DERIVED", "PRIMARY", "AXIAL"], "HEAD 5.0", None),
    ],
)
def test_a_map_is_known_by_its_header(kinds: list[str], description: str, sure: bool | None) -> None:
    marks = marks_of("", description, kinds)
    found = no_picture(marks)
    assert (found.no_head if found else None) == sure
    assert bool(marks & MAP) == (sure is not None)


CBF = {"ImageType": ["DERIVED", "SECONDARY", "AXIAL", "PERFUSION", "CBF"]}


def test_beside_a_head_of_its_study_it_is_left_out(
    head: tuple[np.ndarray, float], model: Model, tmp_path: Path
) -> None:
    """A chest at another place, and a map that is asked for with all series."""
    written(tmp_path / "head", *head, name="1.2.1", FrameOfReferenceUID="1.7")
    chest = written(tmp_path / "chest", body(lungs=-850), MM, name="1.2.2", FrameOfReferenceUID="1.9")
    written(tmp_path / "cbf", *head, name="1.2.4", **CBF)
    written(tmp_path / "head2", *head, name="1.2.5", FrameOfReferenceUID="1.8")
    outcome = predict_scans(model, tmp_path, progress=False)
    assert outcome.failed == []
    assert sorted(outcome.exams["series_uid"]) == ["1.2.1", "1.2.5"]
    (line,) = [line for line in outcome.remarks() if str(chest) in line]
    assert line.startswith("not asked: 1 series, such as that of")
    assert "surely no plain head CT (lungs are seen and no skull, as in a chest or a heart)" in line
    assert line.endswith("; --any-series predicts it all the same")
    assert any("--all-series with --any-series asks all" in line for line in outcome.remarks())
    every = predict_scans(model, tmp_path, all_series=True, progress=False)
    assert (every.failed, len(every.exams)) == ([], 2)
    assert len([item for item in every.not_asked if "surely no plain head CT" in item.reason]) == 2
    insisted = predict_scans(model, tmp_path, all_series=True, any_series=True, progress=False)
    assert (insisted.failed, insisted.not_asked, len(insisted.exams)) == ([], [], 4)
    warnings = insisted.exams.set_index("series_uid")["warnings"]
    assert "lungs are seen" in warnings["1.2.2"]
    assert "by its header a map" in warnings["1.2.4"]


def test_a_study_without_an_answer_is_a_failure(run: Path, head: tuple[np.ndarray, float], tmp_path: Path) -> None:
    written(tmp_path / "scans" / "head", *head, name="1.2.1")
    chest = written(tmp_path / "scans" / "chest", body(lungs=-850), MM, name="1.2.2", StudyInstanceUID="1.5")
    arguments = ["predict", str(tmp_path / "scans"), "--run", str(run), "-o", str(tmp_path / "p.csv")]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 3, done.output
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("not predicted")]
    assert str(chest / "000") in line
    assert "--any-series" in line
    assert CliRunner().invoke(main, [*arguments, "--any-series"]).exit_code == 0


def test_alone_it_is_an_error_that_says_what_to_do(model: Model, tmp_path: Path) -> None:
    source = written(tmp_path / "a", noise(), MM)
    with pytest.raises(ScanError, match=r"surely no plain head CT .*--any-series"):
        ichseq.predict(model, source, progress=False)
    with pytest.raises(ScanError, match="surely no plain head CT"):
        ichseq.predict(model, load_series(source)[0], progress=False)
    assert len(ichseq.predict(model, source, any_series=True, progress=False)) == 12


def test_the_series_that_a_map_stood_for_is_asked_in_its_stead(
    head: tuple[np.ndarray, float], model: Model, tmp_path: Path
) -> None:
    """Noise with a soft kernel is chosen before a head with a sharp one; the head answers."""
    written(tmp_path / "noise", noise(len(head[0])), head[1], name="1.2.1", ConvolutionKernel="H31s")
    written(tmp_path / "head", *head, name="1.2.2", ConvolutionKernel="H60s")
    outcome = predict_scans(model, tmp_path, progress=False)
    assert outcome.failed == []
    assert outcome.exams["series_uid"].tolist() == ["1.2.2"]
    assert outcome.exams["chosen"][0].startswith("a better series could not be predicted; ")
    assert ["surely no plain head CT" in item.reason for item in outcome.not_asked] == [True]


def test_a_slice_that_grazes_the_vertex_is_no_noise(tmp_path: Path) -> None:
    """Few pixels of it differ from air, and they go little together."""
    rng = np.random.default_rng(SEED)
    hu = rng.normal(-1000, 3, (8, 96, 96))
    hu[:, 40:64, 40:64] = np.where(rng.random((8, 24, 24)) < 0.25, 80, -1000)
    assert not any("noise" in text for text in looked_at(written(tmp_path / "a", hu, MM)).warnings())
