"""Donors: their anatomy is found, their exams keep the brain's density and get the labels that the blood deserves."""

import csv
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from phantom_heads import known_head

from ichseq.cli import main
from ichseq.ct.series import load_series
from ichseq.errors import ConfigError, DataError, ScanError
from ichseq.labels import LABELS
from ichseq.phantom import write_phantoms
from ichseq.phantom.donor import LABEL_FILE, Donor, read_donors
from ichseq.phantom.donor_anatomy import find_anatomy
from ichseq.phantom.donor_exam import donor_exam
from ichseq.phantom.grid import interpolated

SIZE = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head without bleeding as DICOM."""
    made = tmp_path_factory.mktemp("donor") / "scan"
    known_head(3, SIZE, made)
    return made


@pytest.fixture(scope="module")
def donor(folder: Path) -> Donor:
    (found,) = read_donors([folder])
    return found


@pytest.mark.parametrize(("seed", "size"), [(0, 64), (2, 64), (3, 96)])
def test_anatomy_is_found(seed: int, size: int) -> None:
    known = known_head(seed, size)
    found = find_anatomy(known.hu, known.positions_mm, known.pixel_mm, "scan")
    factor = found.step[1] / known.pixel_mm
    across = (np.arange(size) - (factor - 1) / 2) / factor
    points = np.stack(np.meshgrid(known.positions_mm / found.step[0], across, across, indexing="ij"))
    inside, true = interpolated(found.depth_mm, points) > 0, known.cavity < 0
    assert (inside & ~true).sum() < 0.02 * true.sum()
    vault = true & (known.standard[2] > -30)
    assert (inside & vault).sum() > 0.9 * vault.sum()
    for axis, most in ((0, 4), (1, 10), (2, 7)):
        error = np.abs(interpolated(found.place[axis], points) - known.standard[axis])[true]
        assert np.median(error) < most
    ventricles = interpolated(found.near_ventricle, points) > 0.5
    assert (ventricles & (known.ventricle < -1)).sum() > 0.7 * (known.ventricle < -1).sum()


def test_interpolation_between_voxels_is_linear(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = np.add.outer(np.add.outer(100.0 * np.arange(5), 10.0 * np.arange(9)), np.arange(7.0)).astype(np.float32)
    rng = np.random.default_rng(0)
    points = np.stack([rng.uniform(0, limit, (6, 5, 4)) for limit in (4, 8, 6)]).astype(np.float32)
    wanted = 100 * points[0] + 10 * points[1] + points[2]
    np.testing.assert_allclose(interpolated(volume, points), wanted, atol=0.01)
    monkeypatch.setattr("ichseq.phantom.grid.TALLEST", 20)  # several tall images
    np.testing.assert_allclose(interpolated(volume, points), wanted, atol=0.01)
    points[2, 0] = -1
    assert (interpolated(volume, points, fill=-5.0)[0] == -5).all()


def test_exams_keep_a_head_and_its_brain(donor: Donor) -> None:
    baselines, views = [], []
    for seed in range(6):
        exam = donor_exam(np.random.default_rng(seed), donor, [], SIZE)
        assert 20 <= len(exam.hu) <= 60
        assert exam.bleeds == []
        brain = exam.hu[(exam.hu > 12) & (exam.hu < 60)]
        baselines.append(float(np.median(brain)))
        views.append(exam.stack.pixel * SIZE)
        assert 22 < baselines[-1] < 45
        assert (exam.hu > 500).mean() > 0.01, "skull"
        assert np.diff((exam.stack.origins - exam.stack.origins[0]) @ exam.stack.normal).min() > 1.5
    assert np.ptp(baselines) > 2, "the baseline is drawn"
    assert 180 <= min(views) < max(views) <= 300


def test_blood_is_where_the_exam_changed(donor: Donor) -> None:
    changed = 0
    for seed in range(12):
        kind = LABELS[seed % 5]
        exam = donor_exam(np.random.default_rng(seed), donor, [kind], SIZE)
        if not exam.bleeds:
            continue
        (bleed,) = exam.bleeds
        assert bleed.kind == kind
        assert bleed.share.shape == exam.hu.shape
        full = (bleed.share > 0.85) & (exam.hu < 120)
        if full.sum() > 5:
            changed += 1
            painted, density = np.median(exam.hu[full]), np.median(bleed.density[full])
            assert 0.75 * density < painted < density + 12
    assert changed > 4


def test_nothing_but_blood_depends_on_bleeding(donor: Donor) -> None:
    for seed in range(3):
        healthy = donor_exam(np.random.default_rng(seed), donor, [], SIZE)
        bled = donor_exam(np.random.default_rng(seed), donor, ["intraventricular"], SIZE)
        blood = sum(bleed.share for bleed in bled.bleeds) > 0
        np.testing.assert_array_equal(bled.hu[~blood], healthy.hu[~blood])
        np.testing.assert_array_equal(bled.stack.origins, healthy.stack.origins)
        assert (bled.box, bled.table) == (healthy.box, healthy.table)


def read_rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_set_of_donors_and_drawn_heads(folder: Path, tmp_path: Path) -> None:
    out, again = tmp_path / "out", tmp_path / "again"
    write_phantoms(out, patients=10, test_patients=1, size=SIZE, seed=4, workers=1, donors=[folder], donor_share=1.0)
    rows = read_rows(out / "stage_2_train.csv")
    assert {row["Label"] for row in rows} == {"0", "1"}
    bleeds = read_rows(out / "truth" / "bleeds.csv")
    assert len({row["kind"] for row in bleeds}) > 2
    series = load_series(out / "stage_2_train")
    assert len(series) == 10
    assert all(one.phantom for one in series)
    # A slice is positive only within the extent of a bleed of that kind.
    allowed = {
        (row["series_uid"], k, row["kind"])
        for row in bleeds
        if row["min_slice"]
        for k in range(int(row["min_slice"]), int(row["max_slice"]) + 1)
    }
    place = {uid: (one.series_uid, k) for one in series for k, uid in enumerate(one.sop_uids)}
    positive = [row["ID"].rsplit("_", 1) for row in rows if row["Label"] == "1" and not row["ID"].endswith("_any")]
    assert positive
    assert {(*place[uid], kind) for uid, kind in positive} <= allowed
    write_phantoms(again, patients=2, test_patients=1, size=SIZE, seed=4, workers=2, donors=[folder], donor_share=1.0)
    for path in (again / "stage_2_train").iterdir():
        assert path.read_bytes() == (out / "stage_2_train" / path.name).read_bytes()


def test_share_of_donors_mixes_and_leaves_drawn_heads_alone(folder: Path, tmp_path: Path) -> None:
    for name, donors, share in (("drawn", [], 0.6), ("none", [folder], 0.0), ("half", [folder], 0.5)):
        write_phantoms(
            tmp_path / name, patients=6, test_patients=0, size=48, seed=2, workers=1, donors=donors, donor_share=share
        )
    drawn, none, half = (
        {path.name: path.read_bytes() for path in (tmp_path / name / "stage_2_train").iterdir()}
        for name in ("drawn", "none", "half")
    )
    assert drawn == none
    same = sum(half.get(name) == content for name, content in drawn.items())
    assert 0 < same < len(drawn)


def test_a_donor_keeps_its_labels(folder: Path, tmp_path: Path) -> None:
    scan = tmp_path / "scan"
    known_head(3, SIZE, scan)
    (series,) = load_series(scan)
    middle = series.sop_uids[len(series) // 2]
    with open(scan / LABEL_FILE, "w") as file:
        print(
            "ID,Label",
            *(f"{middle}_{label},{int(label in ('subdural', 'any'))}" for label in LABELS),
            sep="\n",
            file=file,
        )
    (labelled,) = read_donors([scan])
    assert labelled.labels.sum() == 2
    exam = donor_exam(np.random.default_rng(1), labelled, [], SIZE)
    assert 0 < exam.labels[:, LABELS.index("subdural")].sum() < len(exam.labels) / 3
    assert exam.labels[:, :4].sum() == 0
    (scan / LABEL_FILE).write_text("one,two\n1,2\n")
    with pytest.raises(DataError, match=rf"{LABEL_FILE}: is no label table"):
        read_donors([scan])


def test_bad_donors_are_one_line(folder: Path, tmp_path: Path) -> None:
    few, empty, water = tmp_path / "few", tmp_path / "empty", tmp_path / "water"
    for path in (few, empty, water):
        path.mkdir()
    for k, file in enumerate(sorted(folder.iterdir())):
        content = file.read_bytes()
        if k < 5:
            (few / file.name).write_bytes(content)
        (water / file.name).write_bytes(content[:-8192] + (1024).to_bytes(2, "little") * 4096)
    for path, words in ((few, "5 slices are too few"), (empty, "no DICOM file"), (water, "no skull")):
        result = CliRunner().invoke(main, ["phantom", str(tmp_path / "out"), "--patients", "1", "--donor", str(path)])
        assert result.exit_code == 1, result.output
        assert words in result.output
        assert result.output.count("\n") <= 2
        assert not list(tmp_path.glob("out*"))
    with pytest.raises(ConfigError, match="donor_share"):
        write_phantoms(tmp_path / "out", patients=1, test_patients=0, size=64, donors=[folder], donor_share=1.5)


def test_a_part_of_a_head_is_no_donor(folder: Path, tmp_path: Path) -> None:
    files = sorted(folder.iterdir())
    for name, kept, words in (("low", files[:-9], "below the vertex"), ("high", files[-14:], "above the base")):
        part = tmp_path / name
        part.mkdir()
        for file in kept:
            (part / file.name).write_bytes(file.read_bytes())
        with pytest.raises(ScanError, match=words):
            read_donors([part])
