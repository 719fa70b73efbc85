"""A drawn appearance changes what slices show as its settings say, the same in whatever company they are computed."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from small_models import small_model
from torch import Tensor

from ichseq import Model
from ichseq.appearance import PARAMETERS, Appearance, NoiseOf
from ichseq.config import AugmentConfig
from ichseq.data.augment import Drawn, appearances
from ichseq.geometry import NO_SLICE_HU
from ichseq.model.appearance import show

LENGTHS = torch.tensor([5, 3])
ALL = AugmentConfig(
    tissue_shift=6, tissue_contrast=0.2, shading=5, blur=1.5, sharpen=1, noise=8, correlated_noise=6
)  # fmt: skip
DRAWN = [Drawn((0, 1, i), 0, n, alone=False) for i, n in enumerate(LENGTHS.tolist())]


@pytest.fixture(scope="module")
def hu() -> Tensor:
    """Smooth heads of two series in air, with bone."""
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 40), torch.linspace(-1, 1, 40), indexing="ij")
    radius = torch.hypot(rows, columns * 1.2)
    heads = [torch.where(radius < 0.75, 30 + 20 * torch.sin(5 * rows + k), 900.0) for k in range(8)]
    return torch.stack([torch.where(radius < 0.85, head, -1000.0) for head in heads]).to(torch.int16)


def drawn(config: AugmentConfig = ALL, draws: list[Drawn] = DRAWN) -> Appearance:
    found = appearances(config, draws)
    assert found is not None
    return found


def given(slices: int = 1, **values: float) -> Appearance:
    """One draw with these parameters, all others off, for the slices of one series."""
    row = [values.get(name, 0.0) for name in PARAMETERS]
    noise = [NoiseOf(7, place, slices) for place in range(slices)]
    return Appearance(
        torch.tensor([row] * slices), noise, tissue=not {"shift", "contrast", "shading"}.isdisjoint(values),
        blur_radius=6 * ("blur" in values), white="white" in values, correlated="correlated" in values,
    )  # fmt: skip


def flat(value: float, slices: int = 1, size: int = 128) -> Tensor:
    return torch.full((slices, 1, size, size), value)


def images(model: Model, hu: Tensor, appearance: Appearance | None = None, **more: Any) -> Tensor:
    return model.images(hu, more.pop("lengths", LENGTHS), appearance=appearance, **more)


def test_nothing_is_drawn_where_nothing_is_asked_for() -> None:
    assert appearances(AugmentConfig(), DRAWN) is None
    assert len(drawn(ALL, [])) == 0


@pytest.mark.parametrize("settings", [{}, {"window_first": True}, {"neighbours": 1}])
def test_an_appearance_without_strength_is_the_identity(hu: Tensor, settings: dict[str, Any]) -> None:
    model = small_model(**settings)
    still = replace(drawn(), values=torch.zeros(2, len(PARAMETERS)))
    torch.testing.assert_close(images(model, hu, still), images(model, hu), atol=1e-6, rtol=0)
    ints = hu.float()[:, None].clamp(-200, 823)
    assert torch.equal(show(ints, still.for_each_slice(LENGTHS.tolist())), ints)


def test_a_key_decides_its_parameters_and_each_draw_stands_for_one_thing() -> None:
    every = [Drawn((0, epoch, i), 0, 9, alone=False) for epoch in range(10) for i in range(40)]
    found = drawn(ALL, every)
    assert torch.equal(found.values, drawn(ALL, every).values)
    assert torch.equal(found.values[7], drawn(ALL, [every[7]]).values[0])
    assert len({one.series for one in found.noise}) == len(found.values.unique(dim=0)) == len(every)
    ranges = {"shift": (-6, 6), "contrast": (-0.2, 0.2), "shading": (0, 5), "blurred": (-1, 1), "blur": (0, 1.5),
              "white": (0, 8), "correlated": (0, 6), "grain": (1, 2)}  # fmt: skip
    for name, (low, high) in ranges.items():
        column, width = found.column(name), high - low
        assert low <= column.min() < low + 0.1 * width, name
        assert high - 0.1 * width < column.max() <= high, name
    for name, parameter in [("tissue_shift", "shift"), ("noise", "white"), ("shading", "shading")]:
        without = drawn(replace(ALL, **{name: 0.0}), every)
        others = [k for k, other in enumerate(PARAMETERS) if other != parameter]
        assert not without.column(parameter).any()
        assert torch.equal(without.values[:, others], found.values[:, others])


def test_the_same_draws_give_the_same_images_and_others_give_others(hu: Tensor) -> None:
    model = small_model()
    first = images(model, hu, drawn())
    assert torch.equal(first, images(model, hu, drawn()))
    other = images(model, hu, drawn(draws=[one._replace(series=(0, 2, k)) for k, one in enumerate(DRAWN)]))
    assert ((first - other).abs().amax((1, 2, 3)) > 0.05).all()
    assert ((first - images(model, hu)).abs().amax((1, 2, 3)) > 0.05).all()


@pytest.mark.parametrize("settings", [{}, {"neighbours": 1}, {"window_first": True}, {"cross_slice": [4]}])
def test_chunks_and_recomputation_change_nothing(hu: Tensor, settings: dict[str, Any]) -> None:
    results = []
    for chunk_size, checkpointing in [(8, "off"), (3, "off"), (3, "on"), (1, "on")]:
        model = small_model(chunk_size=chunk_size, checkpointing=checkpointing, freeze_bn=True, **settings).train()
        embeddings = model.embed(hu, LENGTHS, appearance=drawn())
        embeddings.square().sum().backward()
        gradients = torch.cat([p.grad.flatten() for p in model.backbone.parameters() if p.grad is not None])
        results.append((embeddings.detach(), gradients))
    for embeddings, gradients in results[1:]:
        torch.testing.assert_close(embeddings, results[0][0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(gradients, results[0][1], atol=1e-3, rtol=1e-3)
    assert (results[0][0] - small_model(**settings).eval().embed(hu, LENGTHS)).abs().max() > 1e-3


def test_recomputation_sees_the_same_images_to_the_bit(hu: Tensor) -> None:
    model = small_model(chunk_size=3, checkpointing="on", freeze_bn=True).train()
    seen: list[Tensor] = []
    model.backbone.conv1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    model.embed(hu, LENGTHS, appearance=drawn()).sum().backward()
    assert len(seen) == 6
    again = [[torch.equal(one, other) for other in seen[:3]] for one in seen[3:]]  # the last chunk comes first
    assert sorted(row.index(True) for row in again) == [0, 1, 2]
    assert sum(map(sum, again)) == 3


@pytest.mark.parametrize("edge", ["repeat", "zero"])
@pytest.mark.parametrize("window_first", [False, True])
def test_a_slice_looks_the_same_beside_its_neighbours_as_by_itself(hu: Tensor, edge: str, window_first: bool) -> None:
    model = small_model(neighbours=1, edge=edge, window_first=window_first)
    whole = images(model, hu, drawn()).unflatten(1, (3, 3))  # (S, seen, C, size, size)
    assert torch.equal(whole[0, 2], whole[1, 1])
    assert torch.equal(whole[2, 0], whole[1, 1])
    if edge == "repeat":
        assert torch.equal(whole[0, 0], whole[0, 1])
    else:
        black = model.network_input.least[0].expand_as(whole[0, 0])
        assert torch.equal(whole[0, 0], black)
    # The same slices as parts of their series, each between its neighbours.
    outside = torch.full((1, *hu.shape[1:]), NO_SLICE_HU, dtype=torch.int16)
    padded = [torch.cat([outside, part, outside]) for part in hu.split(LENGTHS.tolist())]
    stack = torch.cat([part.unfold(0, 3, 1).movedim(-1, 1) for part in padded])
    parts = [Drawn(one.series, k, one.slices, alone=False) for one in DRAWN for k in range(one.slices)]
    boxes = model.crop_boxes(hu, LENGTHS).repeat_interleave(LENGTHS, dim=0)
    found = images(model, stack, drawn(draws=parts), lengths=torch.ones(8, dtype=torch.int64), boxes=boxes)
    torch.testing.assert_close(found.unflatten(1, (3, 3)), whole, atol=1e-4, rtol=1e-4)
    # And with a warp for each slice, which leaves each where it is.
    still = torch.eye(3).expand(8, 3, 3)
    torch.testing.assert_close(images(model, hu, drawn(), warp=still), whole.flatten(1, 2), atol=1e-4, rtol=1e-4)


def test_a_batch_shows_a_series_as_it_is_by_itself(hu: Tensor) -> None:
    model = small_model()
    both = images(model, hu, drawn())
    alone = images(model, hu[5:], drawn(draws=DRAWN[1:]), lengths=LENGTHS[1:])
    torch.testing.assert_close(both[5:], alone, atol=1e-5, rtol=1e-5)
    window = images(model, hu[1:4], drawn(draws=[DRAWN[0]._replace(place=1)]), lengths=torch.tensor([3]),
                    boxes=model.crop_boxes(hu, LENGTHS)[:1])  # fmt: skip
    torch.testing.assert_close(both[1:4], window, atol=1e-5, rtol=1e-5)


def test_slices_of_a_series_share_shift_and_contrast_and_differ_in_noise() -> None:
    calm = drawn(AugmentConfig(tissue_shift=6, tissue_contrast=0.2), DRAWN[:1]).for_each_slice([5])
    shown = show(flat(60.0, 5), calm)
    assert torch.equal(shown, shown[:1].expand_as(shown))
    assert (shown - 60).abs().max() > 0.1
    noisy = show(flat(60.0, 5), drawn(AugmentConfig(noise=8), DRAWN[:1]).for_each_slice([5])) - 60
    likeness = torch.corrcoef(noisy.flatten(1)) - torch.eye(5)
    assert likeness.abs().max() < 0.05


def test_a_draw_a_slice_changes_neighbouring_slices_differently() -> None:
    each = [one._replace(place=k, alone=True) for one in DRAWN[:1] for k in range(5)]
    shown = show(flat(60.0, 5, 8), drawn(AugmentConfig(tissue_shift=6), each))
    assert len(shown.flatten(1)[:, 0].unique()) == 5


def test_shift_moves_soft_tissue_and_leaves_air_and_bone() -> None:
    scale = torch.tensor([-200.0, -150, 0, 37, 100, 300, 823]).view(1, 1, 1, 7)
    shown = show(scale, given(shift=5.0)) - scale
    torch.testing.assert_close(shown.flatten(), torch.tensor([0.0, 0, 5, 5, 5, 0, 0]))
    every = torch.linspace(-200, 823, 2000).view(1, 1, 1, -1)
    assert (show(every, given(shift=-10.0, contrast=0.3)).diff() > 0).all()  # what is denser stays denser


def test_contrast_spreads_soft_tissue_about_its_middle() -> None:
    shown = show(torch.tensor([5.0, 35, 65]).view(1, 1, 1, 3), given(contrast=0.2))
    torch.testing.assert_close(shown.flatten(), torch.tensor([-1.0, 35, 71]))


def test_shading_is_slow_and_as_high_as_asked_for() -> None:
    shown = show(flat(30.0), given(shading=8.0, direction=0.6, phase=1.5)) - 30
    assert 5 < shown.abs().max() <= 8
    assert shown.diff(dim=3).abs().max() < 0.3
    assert shown.std() > 1


@pytest.mark.parametrize(("name", "grain"), [("white", 0.0), ("correlated", 1.0), ("correlated", 2.0)])
def test_noise_has_the_deviation_asked_for_and_air_none(name: str, grain: float) -> None:
    shown = show(flat(30.0, 4, 256), given(4, **{name: 7.0, "grain": grain})) - 30
    assert abs(float(shown.std()) - 7) < 0.25
    assert abs(float(shown.mean())) < 0.25
    next_to = float((shown[..., 1:] * shown[..., :-1]).mean()) / 49
    assert abs(next_to) < 0.02 if name == "white" else next_to > 0.7
    assert torch.equal(show(flat(-200.0), given(**{name: 7.0, "grain": grain})), flat(-200.0))


@pytest.mark.parametrize("window_first", [False, True])
def test_air_is_what_lies_below_all_that_is_read(window_first: bool) -> None:
    settings = {"normalise": False, "crop": "none", "window_first": window_first}
    model = small_model(windows=["bone"], **settings)
    for value, noisy in ((-1000, False), (-600, True), (40, True)):
        flat_hu = torch.full((1, 32, 32), value, dtype=torch.int16)
        shown = images(model, flat_hu, given(white=20.0), lengths=torch.tensor([1]))
        assert (float(shown.std()) * 2800 == pytest.approx(20, abs=2)) if noisy else not shown.any()


def test_one_noise_is_independent_of_the_other() -> None:
    white, grainy = ({"white": 5.0}, {"correlated": 4.0, "grain": 1.0})
    both = show(flat(30.0), given(**white, **grainy)) - 30
    alone = [show(flat(30.0), given(**one)) - 30 for one in (white, grainy)]
    torch.testing.assert_close(both, alone[0] + alone[1], atol=1e-4, rtol=0)
    assert abs(float(torch.corrcoef(torch.stack([one.flatten() for one in alone]))[0, 1])) < 0.05


def test_blur_smooths_and_sharpening_steepens_an_edge() -> None:
    edge = torch.where(torch.arange(64) < 32, 20.0, 60.0).expand(1, 1, 64, 64)
    smooth = show(edge, given(blur=1.5, blurred=1.0))
    sharp = show(edge, given(blur=1.0, blurred=-0.8))
    height = 40 / 2.5066 / 1.5  # slope of a step blurred by a Gaussian of 1.5 pixels
    assert abs(float(smooth.diff(dim=3).max()) - height) < 0.5
    assert float(sharp.max()) > 65
    assert float(sharp.min()) < 15
    for shown in (smooth, sharp):
        torch.testing.assert_close(shown[..., :16], edge[..., :16])
