"""Bleeding in volumes: each kind lies where it must, the truth is where the picture changed, everything is seeded."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from phantom_heads import known_volume

from ichseq.labels import LABELS
from ichseq.phantom.blood import VOLUMES, Blood, VolumeBleed, draw_blood, leave_out_hidden, paint
from ichseq.phantom.blood_shapes import _in_the_horns, _spots
from ichseq.phantom.volume import HeadVolume

KINDS = LABELS[:5]
SEEDS = range(12)


@pytest.fixture(scope="module")
def head() -> HeadVolume:
    return known_volume(3)


@pytest.fixture(scope="module")
def drawn(head: HeadVolume) -> dict[str, list[Blood]]:
    """A dozen patients of each kind alone, those of them that have room for it."""
    all_of = {kind: [draw_blood(np.random.default_rng(seed), head, [kind]) for seed in SEEDS] for kind in KINDS}
    kept = {kind: [blood for blood in bloods if blood.bleeds] for kind, bloods in all_of.items()}
    assert all(len(bloods) > 8 for bloods in kept.values())
    return kept


def millilitres(head: HeadVolume, share: np.ndarray) -> float:
    return float((share * head.voxel_ml).sum())


def test_shares_are_shares_within_the_skull(head: HeadVolume, drawn: dict[str, list[Blood]]) -> None:
    for bloods in drawn.values():
        for blood in bloods:
            (bleed,) = blood.bleeds
            assert bleed.share.dtype == np.float32
            assert 0 <= bleed.share.min() <= bleed.share.max() <= 1
            assert bleed.share[head.depth_mm < -2].max() == 0
            assert 15 < bleed.hu < 95


@pytest.mark.parametrize(
    ("kind", "holds"),
    [
        ("intraventricular", lambda head: head.ventricles > 0),
        ("intraparenchymal", lambda head: head.brain > 0.3),
        ("subarachnoid", lambda head: (head.csf > 0.05) | (head.brain < 1)),
        ("epidural", lambda head: head.depth_mm < 34),
        ("subdural", lambda head: (head.depth_mm < 34) | (head.falx_mm < 12) | (head.tentorium_mm < 12)),
    ],
)
def test_each_kind_lies_where_it_must(
    kind: str, holds: Callable[[HeadVolume], np.ndarray], head: HeadVolume, drawn: dict[str, list[Blood]]
) -> None:
    for blood in drawn[kind]:
        share = blood.bleeds[0].share
        assert share[holds(head)].sum() > 0.93 * share.sum(), blood.bleeds[0].form


def test_sheets_touch_the_skull_or_the_dura(head: HeadVolume, drawn: dict[str, list[Blood]]) -> None:
    for kind in ("epidural", "subdural"):
        for blood in drawn[kind]:
            (bleed,) = blood.bleeds
            nearest = {"falx": head.falx_mm, "tentorium": head.tentorium_mm}.get(bleed.form, head.depth_mm)
            seen = bleed.share > 0.5
            assert seen.any()
            assert np.quantile(np.abs(nearest[seen]), 0.25) < 8, bleed.form


def test_layers_sink_to_the_back(head: HeadVolume, drawn: dict[str, list[Blood]]) -> None:
    layers = [blood.bleeds[0].share for blood in drawn["intraventricular"] if blood.bleeds[0].form == "layer"]
    assert layers
    for share in layers:
        level = share / np.maximum(head.ventricles, 1e-3) * (head.ventricles > 0.5)
        x = head.place[0]
        sides = [level * (side * x > 2) for side in (-1, 1)]
        side = max(sides, key=np.sum)
        low = head.height_along_gravity_mm
        filled = np.average(low, weights=side + 1e-9)
        empty = np.average(low, weights=(head.ventricles > 0.5) * (side < 0.2) + 1e-9)
        assert filled < empty - 8


def test_volumes_are_those_that_were_asked_for(head: HeadVolume, drawn: dict[str, list[Blood]]) -> None:
    for kind, bloods in drawn.items():
        found = np.array([millilitres(head, blood.bleeds[0].share) for blood in bloods])
        low, high = VOLUMES[kind]
        assert found.max() < 1.6 * high, kind
        assert found.max() > 4 * found.min(), "small and large ones"
        assert found.min() > 0.02 * low, kind


def test_the_picture_changes_where_the_truth_says(head: HeadVolume, drawn: dict[str, list[Blood]]) -> None:
    fluid = np.clip(head.csf + head.ventricles, 0, 1)
    noiseless = np.where(head.depth_mm > 0, 31 - 24 * fluid, 700).astype(np.float32)
    for kind, bloods in drawn.items():
        for blood in bloods:
            (bleed,) = blood.bleeds
            rise = paint(noiseless, blood.bleeds, fluid, head.pixel_mm) - noiseless
            inside = head.depth_mm > 3
            full = (bleed.share > 0.8) & inside
            if full.any() and bleed.hu > 50 and kind != "subdural":
                assert rise[full].mean() > 12, (kind, bleed.form)
            assert np.abs(rise[bleed.share == 0]).max() <= 14.001, "oedema at most"
            assert rise[bleed.share == 0].max() <= 0


def test_oedema_darkens_the_brain_around(head: HeadVolume, drawn: dict[str, list[Blood]]) -> None:
    rings = [bleed.oedema for blood in drawn["intraparenchymal"] for bleed in blood.bleeds if bleed.oedema is not None]
    assert len(rings) > 3
    for ring in rings:
        assert 1 < ring.max() <= 14
        assert ring.min() >= 0


def test_blood_pushes_the_brain_away(head: HeadVolume, drawn: dict[str, list[Blood]]) -> None:
    pushed = [blood for kind in ("epidural", "subdural") for blood in drawn[kind] if blood.push is not None]
    assert pushed
    for blood in pushed:
        (bleed,) = blood.bleeds
        amount = np.linalg.norm(blood.push, axis=0)
        assert amount.max() < 40
        assert amount[head.depth_mm < 0].max() == 0, "the skull stays"
        near = (head.depth_mm > 4) & (bleed.share < 0.1) & (amount > 1)
        if near.any():
            outwards = (blood.push * (head.place - np.array([0, 4, 0]).reshape(3, 1, 1, 1))).sum(0)
            assert (outwards[near] < 0).mean() > 0.95


def test_several_bleeds_share_the_room(head: HeadVolume) -> None:
    for seed in range(4):
        blood = draw_blood(np.random.default_rng(seed), head, ["subdural", "subarachnoid", "epidural"])
        assert sum(bleed.share for bleed in blood.bleeds).max() <= 1 + 1e-5


def test_same_draw_same_blood(head: HeadVolume) -> None:
    one, two = (draw_blood(np.random.default_rng(7), head, list(KINDS)) for _ in range(2))
    assert [b.kind for b in one.bleeds] == [b.kind for b in two.bleeds]
    assert all(np.array_equal(a.share, b.share) for a, b in zip(one.bleeds, two.bleeds, strict=True))


def test_no_kinds_no_blood(head: HeadVolume) -> None:
    blood = draw_blood(np.random.default_rng(0), head, [])
    assert blood.bleeds == []
    assert blood.push is None


def test_blood_within_the_white_edge_of_the_skull_is_not_seen(head: HeadVolume) -> None:
    white = np.clip(200 - 60 * head.depth_mm, 30, 700).astype(np.float32)
    for seed in range(4):
        blood = draw_blood(np.random.default_rng(seed), head, ["epidural"])
        before = [bleed.share.copy() for bleed in blood.bleeds]
        leave_out_hidden(blood.bleeds, white, head.pixel_mm)
        for bleed, share in zip(blood.bleeds, before, strict=True):
            np.testing.assert_array_equal(bleed.share[white < 70], share[white < 70])
            assert bleed.share[white > 130].max(initial=0) < 0.11
            assert bleed.share[(share > 0.9) & (white < 70)].size, "what lies deeper is seen"


def test_sheets_are_as_thick_below_a_white_edge_as_without_one(head: HeadVolume) -> None:
    """An edge moves a film inwards, and does not swallow it."""
    edge = 2.5
    deeper = replace(head, edge_mm=edge)
    found = 0
    for seed in range(12):
        plain, moved = (draw_blood(np.random.default_rng(seed), one, ["subdural"]).bleeds for one in (head, deeper))
        if not plain or plain[0].form not in ("film", "crescent"):
            continue
        found += 1
        below = (moved[0].share * (head.depth_mm > edge)).sum()
        assert below > 0.6 * plain[0].share.sum()
    assert found > 3


def test_blood_in_a_voxel_that_is_part_bone_makes_it_brighter(head: HeadVolume) -> None:
    share = np.full_like(head.hu, 0.5)
    bleed = VolumeBleed("subdural", "film", 60.0, share, np.full_like(share, 60))
    for hu in (30, 50, 80, 110, 200):
        flat = np.full_like(head.hu, hu)
        rise = paint(flat, [bleed], np.zeros_like(flat), head.pixel_mm) - flat
        assert rise.min() > 3


def test_horns_hold_a_little_on_both_sides(head: HeadVolume) -> None:
    shape = _in_the_horns(np.random.default_rng(1), head)
    assert shape is not None
    x, y, _ = head.place
    for side in (-1, 1):
        own = shape.share * (side * x > 2)
        assert 0.02 < millilitres(head, own) < 4
        assert (own * (y > 10)).sum() > 0.9 * own.sum()


def test_spots_are_small(head: HeadVolume) -> None:
    found = []
    for seed in range(9):
        shape = _spots(np.random.default_rng(seed), head, 1.0)
        assert shape is not None
        found.append(millilitres(head, shape.share))
        assert (shape.share * head.ventricles).sum() <= 0.2 * shape.share.sum()
    assert max(found) < 4
    assert sum(volume > 0.02 for volume in found) > 5, "some fall between the planes"


def test_thin_films_are_fresh_and_thick_ones_of_every_age(head: HeadVolume) -> None:
    means: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(60):
        for bleed in draw_blood(np.random.default_rng(seed), head, ["subdural"], 32.0).bleeds:
            means[bleed.form == "film"].append(bleed.hu)
    assert min(means[True]) > 44
    assert min(means[False]) < 38
    assert np.median(means[False]) > 50
