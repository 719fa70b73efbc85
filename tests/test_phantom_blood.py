"""Bleeding in volumes: each kind lies where it must, the truth is where the picture changed, everything is seeded."""

from collections.abc import Callable

import numpy as np
import pytest
from phantom_heads import known_volume

from ichseq.labels import LABELS
from ichseq.phantom.blood import VOLUMES, Blood, draw_blood, paint
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
