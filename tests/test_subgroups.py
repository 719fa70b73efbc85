"""Groups of exams: each exam once, edges on the right side, figures those of the group alone."""

from pathlib import Path

import numpy as np
import pytest
from dicom_files import write_series
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from ichseq.data.index import Index
from ichseq.data.prepare import prepare
from ichseq.evaluation.calibration import fit_label
from ichseq.evaluation.rates import share_of
from ichseq.evaluation.subgroups import characteristics, subgroups, volume_groups


def draw(n: int = 300) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    random = np.random.default_rng(0)
    truth = (random.random(n) < 0.4).astype(float)
    return expit(2 * truth - 1 + random.normal(size=n)), truth, random


def test_groups_hold_each_exam_once() -> None:
    score, truth, random = draw()
    truth[::9] = np.nan
    known = {"slice_spacing": random.uniform(0.5, 8, 300), "pixel_size": random.uniform(0.3, 0.6, 300),
             "slices": random.integers(5, 200, 300).astype(float)}  # fmt: skip
    known["pixel_size"][::4] = np.nan
    found = subgroups(score, truth, known, None)
    assert set(found) == set(known)
    for name, groups in found.items():
        assert sum(of["exams"] for of in groups) == 300
        assert sum(of["bleeding"] for of in groups) == (truth == 1).sum()
        assert sum(of["without_bleeding"] for of in groups) == (truth == 0).sum()
        assert len({of["group"] for of in groups}) == len(groups) >= 4
        assert (groups[-1]["group"] == "unknown") == (name == "pixel_size")
    assert found["pixel_size"][-1]["exams"] == 75


def test_edges_belong_to_the_group_that_they_end() -> None:
    score, truth, _ = draw(6)
    spacing = np.array([1.5, np.float32(1.5000001), 1.51, 3.5, 6.0, 6.1])
    found = subgroups(score, truth, {"slice_spacing": spacing}, None)["slice_spacing"]
    assert [(of["group"], of["exams"]) for of in found] == [
        ("up to 1.5 mm", 2), ("over 1.5 up to 3.5 mm", 2), ("over 3.5 up to 6 mm", 1), ("over 6 mm", 1)
    ]  # fmt: skip


def test_the_figures_are_those_of_the_group() -> None:
    score, truth, random = draw()
    slices = random.integers(5, 60, 300).astype(float)
    label = fit_label(score, truth, "exam")
    group = subgroups(score, truth, {"slices": slices}, label)["slices"][0]
    rows = slices <= 20
    assert group["exams"] == rows.sum()
    assert group["auc"] == pytest.approx(roc_auc_score(truth[rows], score[rows]))
    threshold = label.points["youden"].threshold
    assert group["points"]["youden"]["sensitivity"] == share_of(score[rows & (truth == 1)] >= threshold)
    assert group["undefined"] is None


def test_a_group_of_one_class_says_so() -> None:
    score, _, _ = draw(4)
    slices = np.array([10.0, 10, 30, 50])
    found = subgroups(score, np.array([1.0, 1, 0, np.nan]), {"slices": slices}, None)["slices"]
    assert [of["undefined"] for of in found] == [
        "no exam without bleeding", "no exam with bleeding", "no exam with a known label"
    ]  # fmt: skip
    assert [of["auc"] for of in found] == [None] * 3
    assert [of["log_loss"] is None for of in found] == [False, False, True]


def test_small_bleeds_are_set_against_all_exams_without() -> None:
    score, truth, random = draw()
    volume = np.where(truth == 1, random.choice([1.0, 5, 20, 80], 300), 0.0)
    found = volume_groups(score, truth, volume, None)
    assert [of["group"] for of in found] == ["up to 2 ml", "over 2 up to 10 ml", "over 10 up to 30 ml", "over 30 ml"]
    assert sum(of["bleeding"] for of in found) == (truth == 1).sum()
    assert {of["without_bleeding"] for of in found} == {(truth == 0).sum()}
    small = (truth == 0) | (volume == 1)
    assert found[0]["auc"] == pytest.approx(roc_auc_score(truth[small], score[small]))


def test_the_index_knows_spacing_pixels_slices_and_manufacturers(prepared: Path) -> None:
    index = Index.load(prepared)
    series = np.array([3, 0, 7])
    known = characteristics(index, series)
    for place, i in enumerate(series):
        positions = index.positions_mm[index.offsets[i] : index.offsets[i + 1]]
        assert known["slices"][place] == len(positions)
        assert known["slice_spacing"][place] == pytest.approx(np.median(np.diff(positions)))
        assert known["pixel_size"][place] == pytest.approx(index.spacing[i].mean())
    assert list(known["manufacturer"]) == [""] * 3  # phantoms have none


def test_a_prepared_set_knows_the_manufacturer_and_none_of_the_text(tmp_path: Path) -> None:
    write_series(tmp_path / "raw", Manufacturer="SIEMENS of Dr. Doe")
    prepare(tmp_path / "raw", tmp_path / "set", labels=None, folds=1, workers=1)
    assert list(Index.load(tmp_path / "set").manufacturers) == ["Siemens"]
    assert b"Doe" not in (tmp_path / "set" / "series.parquet").read_bytes()


def test_exams_are_grouped_by_names_too() -> None:
    score, truth, _ = draw()
    names = np.array(["GE", "", "Siemens"] * 100, object)
    found = subgroups(score, truth, {"manufacturer": names}, None)["manufacturer"]
    assert [(of["group"], of["exams"]) for of in found] == [("GE", 100), ("Siemens", 100), ("unknown", 100)]
    rows = names == "Siemens"
    assert found[1]["auc"] == pytest.approx(roc_auc_score(truth[rows], score[rows]))
