"""Heads drawn from tissue maps: their tissues and geometry, seeded exams, and that bleeding gives nothing else away."""

from pathlib import Path

import numpy as np
import pytest

from ichseq.errors import ConfigError, DataError
from ichseq.phantom import icbm152
from ichseq.phantom.artefacts import apply_artefacts, back_projected, draw_artefacts, projector
from ichseq.phantom.couch import SHAPES, add_couch, draw_couch
from ichseq.phantom.drawn import DrawnVolume, Grid, draw_volume
from ichseq.phantom.drawn_exam import draw_exam_geometry, drawn_exam, volume_grid
from ichseq.phantom.person import Person, draw_person
from ichseq.phantom.scanner import Pose
from ichseq.phantom.tissue import AIR
from ichseq.phantom.write import write_phantoms


def straight_head(seed: int) -> tuple[Person, DrawnVolume]:
    """A head without tilt on voxels of 2.5 x 2.5 x 5 mm."""
    person = draw_person(np.random.default_rng(seed))
    across = np.arange(-120, 120, 2.5)
    grid = Grid(across, across, np.arange(-70.0, 92, 5), np.array([0, 1.0, 0]), np.array([0, 0, 1.0]))
    return person, draw_volume(person, grid, Pose(np.zeros(3), np.eye(3)))


@pytest.fixture(scope="module", params=[1, 2, 3])
def drawn(request: pytest.FixtureRequest) -> tuple[Person, DrawnVolume]:
    return straight_head(request.param)


def test_tissues_have_their_density(drawn: tuple[Person, DrawnVolume]) -> None:
    person, volume = drawn
    deep = volume.depth_mm > 12
    brain = volume.hu[deep & (volume.brain > 0.99)]
    assert person.head.white - 4 < np.percentile(brain, 10) < np.percentile(brain, 90) < person.head.grey + 4
    assert np.median(volume.hu[volume.ventricles > 0.99]) == pytest.approx(person.head.csf, abs=1)
    bone = volume.hu[(volume.skull > 0.99) & (volume.place[2] > 10)]
    assert 300 < np.median(bone) < 2000
    assert (volume.hu[:, 0, 0] == AIR).all()
    assert volume.hu.min() >= AIR - 1


def test_the_brain_has_the_size_of_a_brain(drawn: tuple[Person, DrawnVolume]) -> None:
    _, volume = drawn
    above = volume.place[2] > -60
    assert 900 < (volume.brain * volume.voxel_ml * above).sum() < 1700
    assert 4 < (volume.ventricles * volume.voxel_ml).sum() < 160
    assert 1000 < (volume.intracranial * volume.voxel_ml * above).sum() < 1900


def test_ventricles_lie_in_the_brain_and_fluid_in_the_skull(drawn: tuple[Person, DrawnVolume]) -> None:
    _, volume = drawn
    x, y, z = volume.place
    cavity = volume.ventricles > 0.5
    assert volume.depth_mm[cavity].min() > 3
    assert np.abs(x[cavity]).max() < 50
    assert z[cavity].min() > -60
    assert volume.csf[volume.depth_mm < -2].max() == 0
    assert (volume.csf + volume.ventricles).max() < 1.001
    # Cerebellum and brainstem lie below the tentorium, the hemispheres above.
    assert (volume.above_tentorium_mm[(z > 20) & (volume.brain > 0.5)] > 0).all()
    assert (volume.above_tentorium_mm[(z < -35) & (y > 30) & (volume.brain > 0.5)] < 0).all()


def test_the_skull_closes_the_vault(drawn: tuple[Person, DrawnVolume]) -> None:
    _, volume = drawn
    for k in np.flatnonzero((volume.positions_mm > 20) & (volume.positions_mm < 60)):
        inside = volume.depth_mm[k] > 4
        middle = (int(v.mean()) for v in np.nonzero(inside))
        row, column = middle
        for ray in (volume.skull[k, row], volume.skull[k, row, ::-1], volume.skull[k, :, column]):
            assert ray[: len(ray) // 2].max() > 0.4


def test_an_old_brain_has_more_fluid_than_a_young_one() -> None:
    found = [straight_head(seed) for seed in range(10)]
    age = [person.head.atrophy for person, _ in found]
    fluid = [float(((v.csf + v.ventricles) * v.voxel_ml).sum()) for _, v in found]
    assert np.corrcoef(age, fluid)[0, 1] > 0.6


def test_sides_differ() -> None:
    _, volume = straight_head(4)
    assert np.abs(volume.hu - volume.hu[:, :, ::-1])[volume.depth_mm > 5].mean() > 1


def test_geometry_is_within_what_scanners_do() -> None:
    turns = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        stack, pose, profile = draw_exam_geometry(rng, (1.0, 1.0, 1.0), 128)
        assert 20 <= len(stack.origins) <= 60
        assert 180 <= stack.pixel * 128 <= 300
        assert 0.6 <= profile <= 9
        heights = stack.origins @ stack.normal
        np.testing.assert_allclose(np.diff(heights), (stack.thickness[1:] + stack.thickness[:-1]) / 2, atol=1e-4)
        assert (np.diff(stack.origins[:, :2], axis=0) == 0).all(), "the table moves along z alone"
        grid, parts = volume_grid(stack, pose, profile)
        assert len(grid.heights) == parts * len(stack.origins)
        assert (np.diff(grid.heights) > 0).all()
        turns.append(np.rad2deg(np.arctan2(pose.axes[0] @ stack.down_column, pose.axes[0][0])))
    assert 20 < np.abs(turns).max() < 40


def test_an_exam_follows_from_its_seed_and_bleeding_changes_only_where_it_lies() -> None:
    kinds = ["intraparenchymal", "subarachnoid"]
    first, again = (drawn_exam(np.random.default_rng(7), kinds, 64) for _ in range(2))
    np.testing.assert_array_equal(first.hu, again.hu)
    without = drawn_exam(np.random.default_rng(7), [], 64)
    np.testing.assert_array_equal(without.stack.origins, first.stack.origins)
    assert without.bleeds == []
    share = np.sum([bleed.share for bleed in first.bleeds], axis=0)
    assert share.max() > 0.5
    higher = first.hu - without.hu
    assert higher[share > 0.7].mean() > 8
    far = np.abs(higher[share == 0])
    assert np.median(far) < 0.2, "scanner, couch and noise are the same"


def test_the_table_tells_where_blood_lies() -> None:
    for seed, kind in enumerate(("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural")):
        exam = drawn_exam(np.random.default_rng(seed), [kind], 64)
        assert {bleed.kind for bleed in exam.bleeds} == {kind}
        for bleed in exam.bleeds:
            assert bleed.share.shape == exam.hu.shape
            assert 0 <= bleed.share.min() <= bleed.share.max() < 1.001


def test_drawn_heads_are_written_like_others(tmp_path: Path) -> None:
    few, more = tmp_path / "few", tmp_path / "more"
    write_phantoms(few, patients=1, test_patients=1, size=48, seed=5, workers=1, heads="drawn")
    write_phantoms(more, patients=2, test_patients=1, size=48, seed=5, workers=2, heads="drawn")
    for path in (few / "stage_2_train").iterdir():
        assert path.read_bytes() == (more / "stage_2_train" / path.name).read_bytes()
    assert (few / "truth" / "stage_2_test.csv").read_bytes() == (more / "truth" / "stage_2_test.csv").read_bytes()


def test_back_projection_gives_back_a_disc() -> None:
    grid, angles = 64, 48
    y, x = np.mgrid[:grid, :grid] - (grid - 1) / 2
    disc = (np.hypot(x - 6, y + 4) < 12).astype(np.float32)
    rays = (projector(angles, grid) @ disc.reshape(-1)).reshape(angles, grid, 1).astype(np.float32)
    found = back_projected(rays, grid)[0]
    assert found[np.hypot(x - 6, y + 4) < 9].mean() == pytest.approx(1, abs=0.06)
    assert abs(found[np.hypot(x - 6, y + 4) > 16].mean()) < 0.03


@pytest.mark.parametrize("size", [64, 128, 256])
def test_noise_is_that_of_a_larger_image_averaged(size: int) -> None:
    for seed in range(3):
        artefacts = draw_artefacts(np.random.default_rng(seed))
        flat = np.zeros((1, 512, 512), np.float32)
        large = apply_artefacts(np.random.default_rng(0), artefacts, flat, 240 / 512)[0]
        small = apply_artefacts(np.random.default_rng(0), artefacts, flat[:, :size, :size], 240 / size)[0]
        side = 512 // size
        averaged = large.reshape(size, side, size, side).mean(axis=(1, 3))
        middle = (slice(size // 4, -size // 4),) * 2
        assert small[middle].std() == pytest.approx(averaged[middle].std(), rel=0.15)


def test_every_couch_leaves_the_head_alone() -> None:
    x = np.linspace(-125, 125, 100).astype(np.float32)
    head = np.hypot(x[None, :] / 80, x[:, None] / 100) < 1
    seen = set()
    for seed in range(60):
        couch = draw_couch(np.random.default_rng(seed))
        seen.add(couch.shape)
        image = np.where(head, 40, AIR).astype(np.float32)
        add_couch(couch, image, x, x)
        assert (image[head] == 40).all()
        if couch.shape == "cup":
            assert image.max() > 40 or couch.hu < 40
    assert seen == set(SHAPES)


def test_damaged_maps_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = tmp_path / "icbm152.xz"
    damaged.write_bytes(icbm152.FILE.read_bytes()[:1000])
    monkeypatch.setattr(icbm152, "FILE", damaged)
    icbm152.load_maps.cache_clear()
    with pytest.raises(DataError, match=r"icbm152.xz: .*install ichseq again"):
        icbm152.load_maps()
    monkeypatch.undo()
    icbm152.load_maps.cache_clear()


def test_heads_of_another_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="heads: 'real' does not fit; give one of analytic, drawn, mixed"):
        write_phantoms(tmp_path / "out", patients=1, test_patients=0, size=64, heads="real")
    assert not list(tmp_path.iterdir())
