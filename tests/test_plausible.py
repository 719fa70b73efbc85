"""What a series does not look like: no head, contrast medium, a child; and no warning of a plain adult head."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_files import ct_dataset, dicom_bytes
from looked_at import looked_at
from phantom_heads import known_volume

from ichseq import Model
from ichseq.ct.plausible import ADULT_SKULL_MM, Plausibility
from ichseq.ct.series import Series, load_series
from ichseq.inference.predict import predict_sources
from ichseq.phantom.lookalikes import contrast_medium

SEED = 5  # of a head of usual size


def written(folder: Path, hu: np.ndarray, pixel_mm: float | None, **changes: Any) -> Path:
    """Slices (n, rows, columns) as DICOM files, 5 mm apart."""
    folder.mkdir()
    stored = np.clip(np.round(hu) + 1024, 0, 4095).astype(np.int16)
    spacing = None if pixel_mm is None else [round(pixel_mm, 5)] * 2
    for number, pixels in enumerate(stored):
        dataset = ct_dataset(pixels, number=number, PixelSpacing=spacing, **changes)
        (folder / f"{number:03d}").write_bytes(dicom_bytes(dataset))
    return folder


@pytest.fixture(scope="module")
def head() -> tuple[np.ndarray, float]:
    """HU of a made-up head without bleeding, and its pixel in mm."""
    volume = known_volume(SEED, 96)
    return volume.hu, volume.pixel_mm


def ball(hu: float) -> np.ndarray:
    """A ball of one density in air."""
    axis = np.linspace(-1.2, 1.2, 40)
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    return np.where(x * x + y * y + z * z < 1, hu, -1000.0)[4:-4]


def test_an_adult_head_is_passed(head: tuple[np.ndarray, float], tmp_path: Path) -> None:
    looks = looked_at(written(tmp_path / "a", *head))
    assert looks.warnings() == []
    assert max(looks.skulls_mm) > 1.1 * ADULT_SKULL_MM
    assert looked_at(written(tmp_path / "b", head[0], None)).warnings() == []
    assert looked_at(written(tmp_path / "c", *head, PatientAge="016Y", ContrastBolusAgent="NONE")).warnings() == []


@pytest.mark.parametrize("hu", [0, 40, 1200])
def test_a_ball_is_no_head(hu: int, tmp_path: Path) -> None:
    (warning,) = looked_at(written(tmp_path / "ball", ball(hu), 5.0)).warnings()
    assert "no head" in warning


def test_a_skull_without_brain_is_no_head(head: tuple[np.ndarray, float], tmp_path: Path) -> None:
    empty = np.where((head[0] > -100) & (head[0] < 150), -1000, head[0])
    assert any("no head" in warning for warning in looked_at(written(tmp_path / "a", empty, head[1])).warnings())


def test_few_slices_may_show_no_skull(tmp_path: Path) -> None:
    assert looked_at(written(tmp_path / "few", ball(40)[:4], 5.0)).warnings() == []


def test_a_skull_may_have_a_hole(head: tuple[np.ndarray, float], tmp_path: Path) -> None:
    hu, pixel_mm = head
    opened = hu.copy()
    middle = hu.shape[2] // 2
    opened[:, :, middle : middle + 2] = np.minimum(opened[:, :, middle : middle + 2], 30)  # a slit from front to back
    assert looked_at(written(tmp_path / "slit", opened, pixel_mm)).warnings() == []


def test_contrast_medium_is_seen_and_read(head: tuple[np.ndarray, float], tmp_path: Path) -> None:
    volume = known_volume(SEED, 96)
    contrast_medium(np.random.default_rng(SEED), volume)
    (seen,) = looked_at(written(tmp_path / "seen", volume.hu, volume.pixel_mm)).warnings()
    (read,) = looked_at(written(tmp_path / "read", *head, ContrastBolusAgent="Iopamidol 300")).warnings()
    assert "as dense as with contrast medium" in seen
    assert "the header names contrast medium" in read
    assert "Iopamidol" not in read


@pytest.mark.parametrize("age", ["015Y", "008M", "003W", "020D", "000Y"])
def test_a_child_is_read(head: tuple[np.ndarray, float], tmp_path: Path, age: str) -> None:
    (warning,) = looked_at(written(tmp_path / "child", *head, PatientAge=age)).warnings()
    assert "by PatientAge" in warning
    assert age not in warning


def test_a_small_head_is_seen_where_its_widest_slice_is(head: tuple[np.ndarray, float], tmp_path: Path) -> None:
    hu, pixel_mm = head
    looks = looked_at(written(tmp_path / "small", hu, 0.7 * pixel_mm))
    (warning,) = looks.warnings()
    assert "perhaps a child's" in warning
    assert max(looks.skulls_mm) == pytest.approx(
        0.7 * max(looked_at(written(tmp_path / "whole", *head)).skulls_mm), rel=0.05
    )
    widest = int(np.argmax(looks.skulls_mm))
    of_vertex = looked_at(written(tmp_path / "vertex", hu[widest + 1 :], 0.7 * pixel_mm)).warnings()
    assert [text for text in of_vertex if not text.startswith("the bottom of the head seems to be missing")] == []


@pytest.mark.parametrize("end", ["bottom", "top"])
def test_a_head_that_is_cut_off_is_seen(head: tuple[np.ndarray, float], tmp_path: Path, end: str) -> None:
    hu, pixel_mm = head
    areas = [area for area, _ in looked_at(written(tmp_path / "whole", hu, pixel_mm)).inside_mm2]
    wide = np.flatnonzero(np.array(areas) > 0.7 * max(areas))
    left = slice(wide[1], None) if end == "bottom" else slice(None, wide[-1])
    assert len(hu[left]) >= 10
    (warning,) = looked_at(written(tmp_path / "cut", hu[left], pixel_mm)).warnings()
    assert warning.startswith(f"the {end} of the head seems to be missing")
    few = looked_at(written(tmp_path / "few", hu[left][-9:], pixel_mm)).warnings()  # some slices of a head
    assert not any("missing" in text for text in few)


def test_the_circumference_is_that_of_the_outer_table(tmp_path: Path) -> None:
    y, x = np.mgrid[-64:64, -64:64] * 2.0
    distance = np.hypot(x / 70, y / 90)
    skull = np.select([distance < 0.9, distance < 1], [30.0, 1000.0], -1000.0)
    looks = looked_at(written(tmp_path / "ellipse", np.stack([skull] * 6), 2.0))
    around = np.pi * (70 + 90) * (1 + 0.25 * (20 / 160) ** 2)  # Ramanujan's first terms
    assert np.allclose(looks.skulls_mm, around, rtol=0.02)


def test_a_doubt_ends_in_the_table_of_exams(tmp_path: Path, head: tuple[np.ndarray, float]) -> None:
    model = Model("test_resnet", image_size=32, hidden_size=8)
    outcome = predict_sources([model], [written(tmp_path / "ball", ball(0), 5.0)])
    assert "this may be no head" in outcome.exams.loc[0, "warnings"]
    assert any("1 of 1 series with warnings" in line for line in outcome.remarks())
    assert any(re.match(r"    \[.*ball\]: no skull around tissue like brain", line) for line in outcome.remarks())


def test_the_header_is_kept_with_the_series(tmp_path: Path) -> None:
    def series(name: str, **changes: Any) -> Series:
        return load_series(written(tmp_path / name, ball(0)[:6], 5.0, **changes))[0]

    plain, other = series("plain"), series("other", PatientAge="006M", ContrastBolusAgent="Ultravist")
    assert (np.isnan(plain.age_years), plain.contrast) == (True, False)
    assert (other.age_years, other.contrast) == (0.5, True)
    doubtful = series("doubtful", PatientAge="young", ContrastBolusAgent="None given")
    assert (np.isnan(doubtful.age_years), doubtful.contrast) == (True, False)


def test_the_real_head_ct_is_passed(head_ct: Path) -> None:
    assert looked_at(head_ct).warnings() == []


def test_slices_far_from_what_the_network_learned_on_are_warned_of(tmp_path: Path) -> None:
    (series,) = load_series(written(tmp_path / "a", ball(0)[:8], 5.0, SliceThickness=1))  # 5 mm apart
    assert Plausibility(series).warnings() == []
    assert Plausibility(series, (0.8, 5)).warnings() == []
    assert Plausibility(series, (2, 6)).warnings() == ["slices 1 mm thick, while the network learned on 2 to 6 mm"]
    assert Plausibility(series, (0.5, 2)).warnings() == ["slices 5 mm apart, while the network learned on 0.5 to 2 mm"]
    model = Model("test_resnet", image_size=32, hidden_size=8)
    model.trained_on = {"slice_distance_mm": [0.5, 2.0]}
    outcome = predict_sources([model], [tmp_path / "a"])
    assert "slices 5 mm apart, while the network learned on 0.5 to 2 mm" in outcome.exams.loc[0, "warnings"]
