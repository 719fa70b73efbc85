"""Sequence parts: a series' answers are its own, every parameter is trained, positions count where they are read."""

import json
import shutil
import typing
from pathlib import Path

import pytest
import torch
from conftest import tiny
from resealed import edit
from safetensors.torch import load_file
from small_models import small_model
from torch import Tensor

from ichseq import Model
from ichseq.config import ModelConfig
from ichseq.data.index import Index
from ichseq.errors import ConfigError, RunError
from ichseq.geometry import VIEWS
from ichseq.model.sequence.inputs import (
    INPUTS,
    add_noise,
    drop_channels,
    drop_slices,
    relative_mm,
    with_differences,
    with_inputs,
)
from ichseq.model.sequence.parts import PARTS, DeltaSkipLSTM, SequencePart, make_sequence
from ichseq.model.sequence.thinned import thinned
from ichseq.training.stage_loss import StageLoss
from ichseq.training.stages import STAGE_CLASSES, make_stage
from ichseq.training.start import build_model, start_from
from ichseq.training.train import train_stage

FEATURES = 12
COUNTS = [5, 1, 9, 1, 3, 20]
NAMES = list(PARTS)
NEEDS_POSITIONS = {"transformer"}


def make_part(name: str, hidden_size: int = 8) -> SequencePart:
    torch.manual_seed(0)
    part = make_sequence(name, FEATURES, hidden_size)
    assert part is not None
    return part


def series(name: str, counts: list[int] = COUNTS) -> tuple[list[Tensor], list[Tensor]]:
    """Embeddings (or what the part reads) and positions of a few series, each starting anywhere."""
    generator = torch.Generator().manual_seed(1)
    width = 6 if PARTS[name].reads_logits else FEATURES + 2 * len(PARTS[name].own_inputs)
    places = [torch.rand(n, generator=generator).add(2).cumsum(0) - 100 * i for i, n in enumerate(counts)]
    return [torch.randn(n, width, generator=generator) for n in counts], places


def answer(part: SequencePart, embeddings: list[Tensor], places: list[Tensor]) -> list[Tensor]:
    counts = [len(e) for e in embeddings]
    return list(part(torch.cat(embeddings), torch.tensor(counts), torch.cat(places)).split(counts))


def test_the_settings_offer_what_there_is() -> None:
    hints = typing.get_type_hints(ModelConfig)
    assert list(typing.get_args(hints["sequence"])) == [*PARTS, "none"]
    assert list(typing.get_args(typing.get_args(hints["sequence_inputs"])[0])) == list(INPUTS)
    assert set(typing.get_args(typing.get_args(hints["views"])[0])) == set(VIEWS)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sequence": "lstm3"}, ["model.sequence", "'lstm3'", *PARTS, "none"]),
        ({"sequence_inputs": ["position", "age"]}, ["model.sequence_inputs", "'age'", *INPUTS]),
        ({"sequence_inputs": ["spacing", "spacing"]}, ["model.sequence_inputs", "spacing, spacing", "once"]),
        ({"sequence": "gru", "sequence_dropout": 0.1}, ["model.sequence_dropout", "gru_projected", "transformer_post"]),
    ],
)
def test_unknown_names_are_refused_with_those_there_are(settings: dict[str, typing.Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        Model("test_resnet", image_size=32, **settings)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_a_series_alone_gives_what_it_gives_in_a_batch(name: str, training: bool) -> None:
    part = make_part(name).train(training)
    embeddings, places = series(name)
    with torch.set_grad_enabled(training):  # without gradients torch takes another way through the transformer
        together = answer(part, embeddings, places)
        for e, p, found in zip(embeddings, places, together, strict=True):
            assert torch.allclose(answer(part, [e], [p])[0], found, atol=1e-5)
    assert torch.cat(together).std(dim=0).min() > 1e-3  # they are no constants


@pytest.mark.parametrize("name", NAMES)
def test_order_of_the_series_changes_nothing(name: str) -> None:
    part = make_part(name).eval()
    embeddings, places = series(name)
    plain = answer(part, embeddings, places)
    for order in ([5, 4, 3, 2, 1, 0], [2, 0, 5, 1, 4, 3]):
        other = answer(part, [embeddings[i] for i in order], [places[i] for i in order])
        assert all(torch.allclose(other[k], plain[i], atol=1e-5) for k, i in enumerate(order))


@pytest.mark.parametrize("name", NAMES)
def test_neighbours_matter(name: str) -> None:
    part = make_part(name).eval()
    embeddings, places = series(name, [7])
    changed = embeddings[0].clone()
    changed[4] += 1
    moved = (answer(part, [changed], places)[0] - answer(part, embeddings, places)[0]).abs().amax(dim=1)
    assert moved[3] > 1e-5
    assert moved[5] > 1e-5


@pytest.mark.parametrize("counts", [COUNTS, [1], [1, 1]])
@pytest.mark.parametrize("hidden_size", [8, 6, 5])  # 2H: not a multiple of D, D itself, and smaller
@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_parameter(name: str, hidden_size: int, counts: list[int]) -> None:
    part = make_part(name, hidden_size)
    embeddings, places = series(name, counts)
    torch.cat(answer(part, embeddings, places)).square().mean().backward()
    for parameter_name, parameter in part.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        # Where each series has one slice there is nothing to remember.
        assert max(counts) == 1 or parameter.grad.abs().max() > 0, parameter_name


@pytest.mark.parametrize("name", [*NAMES, "none"])
def test_save_and_load(name: str, tmp_path: Path) -> None:
    settings: dict[str, typing.Any] = {"sequence_inputs": ["spacing", "position"], "channel_dropout": 0.25}
    model = small_model(sequence=name, **settings).eval()
    model.save(tmp_path)
    same = Model.load(tmp_path)
    assert same.config == model.config
    assert list(same.config.sequence_inputs) == settings["sequence_inputs"]
    assert same.config.channel_dropout == settings["channel_dropout"]
    hu, lengths, places = torch.zeros(5, 40, 40), torch.tensor([2, 3]), torch.tensor([0.0, 5, 0, 3, 6])
    hu[:, 5:30, 5:30] = torch.randn(5, 25, 25) * 100
    assert torch.equal(same(hu, lengths, positions_mm=places).logits, model(hu, lengths, positions_mm=places).logits)


def test_weights_of_the_first_version_still_load(tmp_path: Path) -> None:
    kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    recurrent = [f"{kind}_{direction}" for direction in ("l0", "l0_reverse") for kind in kinds]
    expected = [f"{layer}.{name}" for layer in ("lstm1", "lstm2") for name in recurrent]
    expected += [f"{layer}.{name}" for layer in ("linear1", "linear2", "head") for name in ("weight", "bias")]
    assert list(make_part("lstm2").state_dict()) == expected  # the order is the optimizer's too
    model = make_model()
    model.save(tmp_path)
    description = json.loads((tmp_path / "model.json").read_text())
    for key in ("sequence_inputs", "channel_dropout", "neighbours"):
        del description["config"][key]
    edit(tmp_path / "model.json", config=description["config"])
    embeddings, lengths = torch.randn(5, model.features), torch.tensor([3, 2])
    loaded = Model.load(tmp_path)
    assert torch.equal(loaded.sequence_logits(embeddings, lengths), model.sequence_logits(embeddings, lengths))


# ---- what a part reads ---------------------------------------------------------------------------------------------


def test_differences_by_hand() -> None:
    values = torch.tensor([[1.0, 10], [4, 30], [2, 60], [7, 7]])
    by_hand = torch.tensor(
        [
            [1.0, 10, 0, 0, -3, -20],
            [4, 30, 3, 20, 2, -30],
            [2, 60, -2, 30, 0, 0],
            [7, 7, 0, 0, 0, 0],  # a series of one
        ]
    )
    assert torch.equal(with_differences(values, [3, 1]), by_hand)


@pytest.mark.parametrize(("features", "hidden_size", "repeats"), [(4, 2, 1), (2, 2, 2), (3, 2, None), (8, 2, None)])
def test_the_embedding_itself_reaches_the_head_of_lstm2_delta(
    features: int, hidden_size: int, repeats: int | None
) -> None:
    part = DeltaSkipLSTM(features, hidden_size)
    for layer in (part.lstm1, part.lstm2, part.linear1, part.linear2):
        for parameter in layer.parameters():
            torch.nn.init.zeros_(parameter)
    embeddings = torch.randn(5, features)
    if repeats is None:
        assert part.skip is not None
        direct = part.skip(embeddings)
    else:
        assert part.skip is None
        direct = torch.cat([embeddings] * repeats, dim=1)
    assert torch.allclose(part(embeddings, torch.tensor([3, 2])), part.head(direct), atol=1e-6)
    assert part.lstm1.input_size == 3 * features


def test_inputs_by_hand() -> None:
    embeddings, places = torch.randn(4, FEATURES), torch.tensor([-30.0, -25, -18, 7])
    read = with_inputs(embeddings, [3, 1], places, ["position", "spacing"])
    assert torch.equal(read[:, :FEATURES], embeddings)
    position = torch.stack([torch.tensor([0, 0.5, 1, 0]), torch.tensor([0.0, 1, 2, 0]).log1p()], dim=1)
    spacing = torch.tensor([[0, 0.5], [0.5, 0.7], [0.7, 0], [0, 0]])
    assert torch.allclose(read[:, FEATURES:], torch.cat([position, spacing], dim=1))
    assert torch.equal(with_inputs(embeddings, [3, 1], None, []), embeddings)


def test_a_series_with_unknown_places_counts_five_millimetres_a_slice() -> None:
    nan = float("nan")
    places = relative_mm(torch.tensor([3.0, nan, 9, -50, -40, nan]), [3, 2, 1], "the test")
    assert places.tolist() == [0, 5, 10, 0, 10, 0]


def test_channels_are_dropped_for_a_whole_series() -> None:
    torch.manual_seed(0)
    counts = [40, 1, 60]
    dropped = drop_channels(torch.ones(sum(counts), 500), counts, 0.3)
    masks = []
    for part in dropped.split(counts):
        assert torch.equal(part, part[:1].expand_as(part))
        assert part.unique().tolist() == pytest.approx([0, 1 / 0.7])
        assert (part[0] == 0).float().mean() == pytest.approx(0.3, abs=0.1)
        masks.append(part[0])
    assert not torch.equal(masks[0], masks[2])


def test_whole_slices_are_dropped_and_noise_follows_each_slice() -> None:
    torch.manual_seed(0)
    dropped = drop_slices(torch.ones(1000, 3), 0.2)
    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped))
    assert (dropped[:, 0] == 0).float().mean() == pytest.approx(0.2, abs=0.04)
    embeddings = torch.randn(2, 20_000) * torch.tensor([[1.0], [50.0]]) + 7
    noise = add_noise(embeddings, 0.1) - embeddings
    assert (noise.std(dim=1) / embeddings.std(dim=1)).tolist() == pytest.approx([0.1, 0.1], rel=0.03)
    assert drop_slices(embeddings, 0) is add_noise(embeddings, 0) is embeddings


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("lstm1", "channel_dropout"),
        ("logits", "channel_dropout"),
        ("gru", "slice_dropout"),
        ("gru", "embedding_noise"),
        ("gru_projected", "sequence_dropout"),
        ("transformer_post", "sequence_dropout"),
    ],
)
def test_what_is_drawn_is_for_training(name: str, setting: str) -> None:
    model = small_model(sequence=name, **{setting: 0.5})
    embeddings, lengths = torch.randn(6, model.features), torch.tensor([4, 2])
    model.eval()
    assert torch.equal(model.sequence_logits(embeddings, lengths), model.sequence_logits(embeddings, lengths))
    model.train()
    assert not torch.equal(model.sequence_logits(embeddings, lengths), model.sequence_logits(embeddings, lengths))


# ---- long series ---------------------------------------------------------------------------------------------------


def test_long_series_are_thinned_evenly_and_every_slice_finds_the_nearest() -> None:
    counts = [3, 64, 65, 239, 1]
    lengths, rows, found = thinned(counts, 64)
    assert lengths == [3, 64, 64, 64, 1]
    for n, first, of_one in zip(counts, [0, 3, 67, 132, 371], rows.split(lengths), strict=True):
        assert (of_one[0], of_one[-1]) == (first, first + n - 1)
        steps = of_one.diff()
        assert n == 1 or int(steps.max() - steps.min()) <= 1
    assert torch.equal(rows, rows.unique())
    assert len(found) == sum(counts)
    of_series = torch.repeat_interleave(torch.tensor(counts))
    places = torch.arange(sum(counts))
    distances = (rows - places[:, None]).abs().float()
    distances[of_series[rows] != of_series[:, None]] = torch.inf
    assert torch.equal(distances.argmin(dim=1), found)  # the first of equal ones, which is the earlier slice


@torch.no_grad()
def test_a_thinned_series_answers_as_its_chosen_slices_and_short_ones_as_ever() -> None:
    whole, part = (make_model(sequence="gru", exam="attention", sequence_slices=most) for most in (0, 4))
    part.load_state_dict(whole.state_dict())
    embeddings, lengths = torch.randn(13, whole.features), torch.tensor([3, 10])
    logits, exams = part.series_logits(embeddings, lengths)
    short, short_exam = whole.series_logits(embeddings[:3], lengths[:1])
    alone, exam = whole.series_logits(embeddings[[3, 6, 9, 12]], torch.tensor([4]))
    assert torch.allclose(logits[:3], short, atol=1e-6)
    assert torch.allclose(logits[3:], alone[[0, 0, 1, 1, 1, 2, 2, 2, 3, 3]], atol=1e-6)
    assert exams is not None
    assert short_exam is not None
    assert exam is not None
    assert torch.allclose(exams, torch.cat([short_exam, exam]), atol=1e-6)


@torch.no_grad()
def test_the_place_of_gru_projected_is_that_in_the_whole_series() -> None:
    model = make_model(sequence="gru_projected", sequence_slices=3)
    embeddings = torch.randn(1, model.features).expand(8, -1)  # so that only the place tells slices apart
    part = model.sequence
    assert part is not None
    read = torch.cat([embeddings[:3], torch.tensor([[0, 0], [4 / 7, 0], [1, 0]])], dim=1)
    by_hand = part(read, torch.tensor([3]))
    assert torch.allclose(model.sequence_logits(embeddings, torch.tensor([8])), by_hand[[0, 0, 0, 1, 1, 1, 2, 2]])


# ---- positions -----------------------------------------------------------------------------------------------------


def make_model(**settings: typing.Any) -> Model:
    return small_model(**settings).eval()


@pytest.mark.parametrize(
    "settings", [{"sequence": "transformer"}, {"sequence": "gru", "sequence_inputs": ["spacing"]}], ids=str
)
@torch.no_grad()
def test_positions_matter_where_they_are_read(settings: dict[str, typing.Any]) -> None:
    model = make_model(**settings)
    embeddings, lengths = torch.randn(5, model.features), torch.tensor([3, 2])
    places = torch.tensor([0.0, 5, 10, 0, 5])
    usual = model.sequence_logits(embeddings, lengths, places)
    shifted = model.sequence_logits(embeddings, lengths, places + torch.tensor([7.0, 7, 7, -99, -99]))
    assert torch.allclose(shifted, usual, atol=1e-5)  # where the scanner's zero is says nothing
    other = model.sequence_logits(embeddings, lengths, places * 0.5)
    assert ((other - usual).abs().amax(dim=1) > 1e-4).all()
    unknown = torch.full((5,), float("nan"), dtype=torch.float64)
    assert torch.equal(model.sequence_logits(embeddings, lengths, unknown), usual)
    with pytest.raises(ValueError, match=r"needs positions_mm.*give them"):
        model.sequence_logits(embeddings, lengths)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NEEDS_POSITIONS])
@torch.no_grad()
def test_the_other_parts_do_without_positions(name: str) -> None:
    model = make_model(sequence=name, sequence_inputs=["position"])
    embeddings, lengths = torch.randn(5, model.features), torch.tensor([3, 2])
    known = model.sequence_logits(embeddings, lengths, torch.arange(5.0))
    assert torch.equal(model.sequence_logits(embeddings, lengths), known)


# ---- training ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own_set(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared set that may gain embeddings."""
    return Path(shutil.copytree(prepared, tmp_path_factory.mktemp("own") / "set"))


@pytest.mark.parametrize("stage", ["joint", "frozen"])
@pytest.mark.parametrize("name", [*NAMES, "none"])
def test_a_run_trains_every_part_and_nothing_else(name: str, stage: str, own_set: Path, tmp_path: Path) -> None:
    more = ["train.epochs=1", "train.warmup_steps=1", "model.sequence_inputs=[position, spacing]"]
    config = tiny(stage, *more, f"model.sequence={name}", "model.channel_dropout=0.3")
    if (name, stage) == ("none", "frozen"):
        with pytest.raises(ConfigError, match=r"model.sequence is none"):
            train_stage(config, stage, data=own_set, fold=0, out=tmp_path, progress=False)
        return
    index = Index.load(own_set)
    before = build_model(config, stage, index, 0)
    before.set_prior([None if p != p else float(p) for p in index.prevalence(index.training_series(0))])
    leaf = train_stage(config, stage, data=own_set, fold=0, out=tmp_path, progress=False)
    after = load_file(sorted((leaf / "last").glob("step-*"))[-1] / "state.safetensors")
    parts = STAGE_CLASSES[stage].parts
    for key, tensor in before.named_parameters():
        assert torch.equal(after[f"model.{key}"], tensor) != (key.split(".")[0] in parts), key


def test_the_slice_head_is_trained_through_the_part_that_reads_it() -> None:
    for name in ("logits", "lstm1"):
        joint = make_stage("joint", tiny("joint", "train.aux_weight=0"))
        assert StageLoss(make_model(sequence=name), joint).model.slice_head.weight.requires_grad == (name == "logits")
    frozen = make_stage("frozen", tiny("frozen", "train.aux_weight=0"))
    assert not StageLoss(make_model(sequence="logits"), frozen).model.slice_head.weight.requires_grad


def test_a_start_without_neighbours_begins_as_the_same_function(prepared: Path, tmp_path: Path) -> None:
    torch.manual_seed(2)
    hu, lengths = (torch.randn(9, 40, 40) * 100).to(torch.int16), torch.tensor([5, 4])
    for mine, theirs in ((1, 0), (2, 0), (2, 1)):
        other = make_model(neighbours=theirs).eval()
        other.save(tmp_path)
        config = tiny("joint", f"model.neighbours={mine}")
        model = build_model(config, "joint", Index.load(prepared), 0, init=tmp_path).eval()
        words = start_from(model, tmp_path)
        assert words == f"weights from {tmp_path}; first convolution extended to {3 * (2 * mine + 1)} channels"
        assert torch.allclose(model.embed(hu, lengths), other.embed(hu, lengths), atol=1e-5)
        assert torch.allclose(model(hu, lengths).logits, other(hu, lengths).logits, atol=1e-5)
    model = build_model(tiny("joint"), "joint", Index.load(prepared), 0, init=tmp_path)
    with pytest.raises(RunError, match=r"model.neighbours is 1, this run's 0"):
        start_from(model, tmp_path)


@pytest.mark.parametrize(
    ("mine", "theirs", "taken"),
    [("gru", "gru", True), ("gru", "lstm2", False), ("lstm2", "lstm2_delta", False), ("conv", "none", False)],
)
def test_a_start_gives_its_sequence_part_whole_or_not_at_all(
    mine: str, theirs: str, taken: bool, prepared: Path, tmp_path: Path
) -> None:
    make_model(sequence=theirs).save(tmp_path)
    config = tiny("joint", f"model.sequence={mine}")
    model = build_model(config, "joint", Index.load(prepared), 0, init=tmp_path)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    words = start_from(model, tmp_path)
    assert words.endswith("fresh: sequence") != taken
    for key, tensor in model.state_dict().items():
        if key.startswith("sequence."):
            assert torch.equal(tensor, before[key]) != taken, key
