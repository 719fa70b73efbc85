"""The network: its logits depend on one series alone, and on no way of computing them."""

import hashlib
import json
import resource
import signal
from pathlib import Path

import pytest
import timm
import torch
from resealed import edit
from safetensors.torch import save_file
from small_models import small_model
from torch import Tensor

from ichseq import Model
from ichseq.config import ModelConfig, embedding_settings
from ichseq.config.fields import settings_of
from ichseq.errors import ConfigError, RunError
from ichseq.model.stack import Span
from ichseq.windows import AIR_HU

LENGTHS = torch.tensor([7, 12, 3, 8])


def make(**settings: object) -> Model:
    return small_model(chunk_size=8, **settings)


@pytest.fixture(scope="module")
def hu() -> Tensor:
    """30 slices of blurred noise with a margin of air, another place for each."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.nn.functional.avg_pool2d(torch.randn(30, 1, 50, 50, generator=generator) * 300, 3, 1)[:, 0]
    slices = torch.full((30, 64, 64), float(AIR_HU))
    slices[:, 5:53, 9:57] = noise
    return slices.round().to(torch.int16)


def gradients(model: Model, hu: Tensor, checkpointing: str) -> tuple[Tensor, Tensor]:
    model.checkpointing = checkpointing
    model.zero_grad()
    logits, aux, _ = model(hu, LENGTHS)
    loss = logits.square().mean() + aux.square().mean()
    loss.backward()
    return loss.detach(), torch.cat([p.grad.flatten() for p in model.parameters()])


def test_shapes(hu: Tensor) -> None:
    found = make().eval()(hu, LENGTHS)
    assert found.logits.shape == found.slice_logits.shape == (30, 6)
    assert not torch.allclose(found.logits, found.slice_logits)
    single = make(sequence="none").eval()(hu, LENGTHS)
    assert single.logits.shape == (30, 6)
    assert torch.equal(single.logits, single.slice_logits)


@pytest.mark.parametrize("training", [True, False])
def test_a_series_alone_gives_what_it_gives_in_a_batch(hu: Tensor, training: bool) -> None:
    model = make(freeze_bn=True).train(training)
    together = model(hu, LENGTHS).logits
    for first, n in zip([0, 7, 19, 22], LENGTHS.tolist(), strict=True):
        alone = model(hu[first : first + n], torch.tensor([n])).logits
        assert torch.allclose(alone, together[first : first + n], atol=1e-5)
    assert together.std(dim=0).min() > 1e-4  # they are no constants


def test_padding_to_a_larger_neighbour_changes_nothing(hu: Tensor) -> None:
    model = make().eval()
    padded = torch.full((30, 80, 96), AIR_HU, dtype=torch.int16)
    padded[:, :64, :64] = hu
    sizes = [(64, 64)] * 4
    assert torch.allclose(model(padded, LENGTHS, sizes=sizes).logits, model(hu, LENGTHS).logits, atol=1e-6)


def test_order_of_the_slices_matters(hu: Tensor) -> None:
    model = make().eval()
    one = torch.tensor([30])
    assert not torch.allclose(model(hu, one).logits, model(hu.flip(0), one).logits.flip(0), atol=1e-5)


@pytest.mark.parametrize("chunk", [4, 8, 32])
def test_frozen_batch_norm_recomputation_and_chunks_agree(hu: Tensor, chunk: int) -> None:
    model = make(freeze_bn=True).train()
    loss, reference = gradients(model, hu, "off")
    model.chunk_size = chunk
    for checkpointing in ("off", "on"):
        other_loss, other = gradients(model, hu, checkpointing)
        assert abs(other_loss - loss) <= 1e-5 * loss
        assert (other - reference).norm() <= 1e-5 * reference.norm()


def test_live_batch_norm_recomputed_moves_its_statistics_once(hu: Tensor) -> None:
    plain, recomputed = make().train(), make().train()
    loss, reference = gradients(plain, hu, "off")
    other_loss, other = gradients(recomputed, hu, "on")
    assert abs(other_loss - loss) <= 1e-5 * loss
    assert (other - reference).norm() <= 1e-5 * reference.norm()
    before = dict(make().named_buffers())
    moved = 0
    for (name, a), (_, b) in zip(plain.named_buffers(), recomputed.named_buffers(), strict=True):
        assert torch.equal(a, b), name
        moved += "running_mean" in name and not torch.equal(a, before[name])
    assert moved > 0
    counts = {int(b) for name, b in recomputed.named_buffers() if name.endswith("num_batches_tracked")}
    assert counts == {4}  # 30 slices in chunks of at most 8


def test_frozen_batch_norm_stays_where_it_is(hu: Tensor) -> None:
    model = make(freeze_bn=True).train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    gradients(model, hu, "on")
    assert all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers())


def test_the_backbone_reads_each_slice_once(hu: Tensor) -> None:
    model = make().eval()
    model(hu, LENGTHS)
    assert model.backbone_slices == 30


def test_freeze_backbone(hu: Tensor) -> None:
    model = make()
    model.freeze_backbone()
    model.train()
    model(hu, LENGTHS).logits.sum().backward()
    assert all(p.grad is None for p in model.backbone.parameters())
    assert model.sequence.head.weight.grad is not None
    assert not model.backbone.training


def test_windows_stand_for_their_hounsfield_units() -> None:
    model = make(normalise=False, crop="none")
    for hu, brain in ((0, 0.0), (40, 0.5), (80, 1.0), (3000, 1.0), (-1000, 0.0)):
        flat = torch.full((1, 64, 64), hu, dtype=torch.int16)
        boxes = model.crop_boxes(flat, torch.tensor([1]))
        image = model.network_input(flat, [Span(0, 0, 1, 0, 1, 64, 64)], boxes)
        assert image.shape == (1, 3, 32, 32)
        assert image[0, 0, 16, 16] == pytest.approx(brain, abs=1e-6)


def test_crop_box_holds_the_head(hu: Tensor) -> None:
    boxes = make().crop_boxes(hu, LENGTHS)
    centre_x, centre_y, half_x, half_y = boxes[1].tolist()
    assert (centre_x - half_x, centre_x + half_x) == (9, 57)
    assert (centre_y - half_y, centre_y + half_y) == (5, 53)
    air = torch.full((2, 40, 60), AIR_HU, dtype=torch.int16)
    assert make().crop_boxes(air, torch.tensor([2])).tolist() == [[30, 20, 30, 20]]


def test_saved_and_loaded_gives_the_same(hu: Tensor, tmp_path: Path) -> None:
    model = make(dropout=0.5, neighbours=1).eval()
    model.trained_on = {"phantom": True}
    model.save(tmp_path)
    again = Model.load(tmp_path)
    assert not again.training
    assert again.trained_on == {"phantom": True}
    assert again.config == model.config
    assert again.config.neighbours == 1
    assert torch.allclose(again(hu, LENGTHS).logits, model(hu, LENGTHS).logits, atol=1e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "weights.safetensors"]


def test_weights_from_a_local_file(tmp_path: Path) -> None:
    source = make()
    save_file(source.backbone.state_dict(), tmp_path / "timm.safetensors")
    torch.save({"state_dict": source.backbone.state_dict()}, tmp_path / "timm.pth")
    source.save(tmp_path)
    for name in ("timm.safetensors", "timm.pth", "weights.safetensors"):
        torch.manual_seed(7)
        model = Model("test_resnet", pretrained=str(tmp_path / name), image_size=32, hidden_size=8)
        for key, tensor in source.backbone.state_dict().items():
            assert torch.equal(model.backbone.state_dict()[key], tensor)
        assert model.config.freeze_bn is True  # auto: the backbone starts from trained weights
    two = Model("test_resnet", pretrained=str(tmp_path / "timm.pth"), windows=["brain", "subdural"], image_size=32)
    assert two.backbone.conv1[0].weight.shape[1] == 2


def test_weights_that_know_no_neighbours_begin_as_the_same_function(
    hu: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make(neighbours=0, windows=["brain", "subdural"]).eval()
    source.save(tmp_path / "ichseq")
    wider = make(neighbours=1, windows=["brain", "subdural"]).eval()
    wider.save(tmp_path / "wider")
    save_file(source.backbone.state_dict(), tmp_path / "timm.safetensors")

    def start(model: Model, pretrained: bool | str, n: int) -> Tensor:
        return make(neighbours=n, windows=model.config.windows, pretrained=pretrained).eval().embed(hu, LENGTHS)

    for n in (0, 1, 2):
        for name in ("ichseq/weights.safetensors", "timm.safetensors"):
            found = start(source, str(tmp_path / name), n)
            torch.testing.assert_close(found, source.embed(hu, LENGTHS), atol=1e-5, rtol=1e-5)
    for n in (1, 2):
        found = start(wider, str(tmp_path / "wider" / "weights.safetensors"), n)
        torch.testing.assert_close(found, wider.embed(hu, LENGTHS), atol=1e-5, rtol=1e-5)
    with pytest.raises(ConfigError, match="can't be read as weights"):
        start(wider, str(tmp_path / "wider" / "weights.safetensors"), 0)
    # Weights of colour images, read by one window: the window's and not the neighbours'.
    save_file(make().backbone.state_dict(), tmp_path / "colour.safetensors")
    one, three = (
        make(neighbours=n, windows=["brain"], pretrained=str(tmp_path / "colour.safetensors")) for n in (0, 1)
    )
    torch.testing.assert_close(three.eval().embed(hu, LENGTHS), one.eval().embed(hu, LENGTHS), atol=1e-5, rtol=1e-5)

    def fetch(_name: str, options: dict) -> torch.nn.Module:  # as timm's hub
        assert options["in_chans"] == 2
        return source.backbone

    monkeypatch.setattr("ichseq.model.backbone._fetch", fetch)
    for n in (0, 1):
        torch.testing.assert_close(start(source, True, n), source.embed(hu, LENGTHS), atol=1e-5, rtol=1e-5)


def test_what_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"resnet81.*did you mean"):
        Model("resnet81")
    with pytest.raises(
        ConfigError, match=r"model\.windows has 'stroke'; choose one of brain, subdural, soft_tissue, bone"
    ):
        make(windows=["stroke"])
    with pytest.raises(ConfigError, match=r"model\.windows has bone, .* set model\.normalise=false"):
        make(windows=["brain", "bone"])
    with pytest.raises(ConfigError, match=r"no file .*nowhere"):
        make(pretrained=str(tmp_path / "nowhere.pth"))
    (tmp_path / "bad.pth").write_bytes(b"no weights")
    with pytest.raises(ConfigError, match=r"bad.pth can't be read"):
        make(pretrained=str(tmp_path / "bad.pth"))
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match="of another network; it lacks"):
        make(pretrained=str(tmp_path / "other.safetensors"))
    with pytest.raises(RunError, match="no model there"):
        Model.load(tmp_path)


def test_damaged_and_newer_models_are_refused(tmp_path: Path) -> None:
    make().save(tmp_path)
    edit(tmp_path / "model.json", format=99)
    with pytest.raises(RunError, match="newer ichseq"):
        Model.load(tmp_path)
    edit(tmp_path / "model.json", format=1)
    assert Model.load(tmp_path).config == make().config
    (tmp_path / "weights.safetensors").write_bytes((tmp_path / "weights.safetensors").read_bytes()[:-100])
    with pytest.raises(RunError, match="damaged"):
        Model.load(tmp_path)


def test_every_change_of_a_saved_model_is_an_error(tmp_path: Path) -> None:
    make().save(tmp_path)
    generator = torch.Generator().manual_seed(0)
    for name in ("weights.safetensors", "model.json"):
        sound = (tmp_path / name).read_bytes()
        for place in torch.randint(len(sound), (20,), generator=generator).tolist():
            changed = bytearray(sound)
            changed[place] ^= 1
            (tmp_path / name).write_bytes(changed)
            if name == "model.json" and json.loads(sound) == _json(changed):  # the layout alone
                continue
            with pytest.raises(RunError, match=r"damaged|newer"):
                Model.load(tmp_path)
        (tmp_path / name).write_bytes(sound)
    Model.load(tmp_path)


def _json(text: bytes | bytearray) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pretrained": True}, "pretrained is True; a saved model brings its weights"),
        ({"pretrained": "/etc/passwd"}, "pretrained is '/etc/passwd'"),
        ({"pretrained": "package"}, "pretrained is 'package'"),
        ({"image_size": 10**9}, "image_size is 1000000000; it has to be between 32 and 2048"),
        ({"hidden_size": 10**12}, "hidden_size is"),
        ({"neighbours": 10**6}, "neighbours is"),
        ({"windows": ["brain"] * 1000}, "windows has 1000 values; at most 16"),
        ({"views": ["flip"] * 1000}, "views has 1000 values"),
        ({"backbone": "resnet152"}, "has 58,143,808 weights, and the file"),
        ({"backbone": "hf-hub:someone/model"}, "timm has no 'hf-hub:someone/model'"),
        ({"freeze_bn": "auto"}, "freeze_bn is 'auto'"),
        ({"code": "import os"}, "no key model.code"),
    ],
)
def test_a_model_asks_for_nothing_beyond_its_folder(tmp_path: Path, change: dict, words: str) -> None:
    make().save(tmp_path)
    config = json.loads((tmp_path / "model.json").read_text())["config"]
    edit(tmp_path / "model.json", config=config | change)
    with pytest.raises(RunError, match=words):
        Model.load(tmp_path)


@pytest.mark.parametrize(
    "trained_on", [{"network": "a\x1b[2J"}, {"scans": "x" * 2000}, {"a": {"b": 1}}, {"a": [[1]]}, {"a": [1] * 99}]
)
def test_what_the_weights_come_from_is_short_and_plain(tmp_path: Path, trained_on: dict) -> None:
    make().save(tmp_path)
    edit(tmp_path / "model.json", trained_on=trained_on)
    with pytest.raises(RunError, match="short text and numbers"):
        Model.load(tmp_path)


def test_a_loaded_model_knows_its_file_until_its_weights_may_change(tmp_path: Path) -> None:
    model = make()
    assert model.weights_sha256 is None
    model.save(tmp_path)
    known = hashlib.sha256((tmp_path / "weights.safetensors").read_bytes()).hexdigest()
    loaded = Model.load(tmp_path)
    assert loaded.weights_sha256 == known
    assert loaded.eval().weights_sha256 == known
    assert loaded.train().weights_sha256 is None
    other = Model.load(tmp_path)
    other.load_state_dict(model.state_dict())
    assert other.weights_sha256 is None


def test_wrong_lengths_are_refused(hu: Tensor) -> None:
    with pytest.raises(ValueError, match="do not add up to the 30 slices"):
        make()(hu, torch.tensor([7, 12]))


@pytest.mark.parametrize("crop", ["series", "slice"])
def test_neighbours_change_no_way_of_computing(hu: Tensor, crop: str) -> None:
    model = make(freeze_bn=True, neighbours=1, crop=crop).train()
    loss, reference = gradients(model, hu, "off")
    for chunk in (5, 32):
        model.chunk_size = chunk
        other_loss, other = gradients(model, hu, "on")
        assert abs(other_loss - loss) <= 1e-5 * loss
        assert (other - reference).norm() <= 1e-5 * reference.norm()
    together = model.eval()(hu, LENGTHS).logits
    assert torch.allclose(model(hu[7:19], torch.tensor([12])).logits, together[7:19], atol=1e-5)
    before = model.backbone_slices
    embeddings = model.embed(hu, LENGTHS)
    assert model.backbone_slices == before + 30
    moved = hu.clone()
    moved[8] = hu[25]  # the second slice of the second series
    boxes = model.crop_boxes(hu, LENGTHS)
    changed = (model.embed(moved, LENGTHS, boxes=boxes) - embeddings).abs().amax(1) > 1e-6
    assert changed.nonzero().flatten().tolist() == [7, 8, 9]


def test_activation_bytes_grow_with_the_image() -> None:
    assert 3 < make(image_size=64).activation_bytes() / make(image_size=32).activation_bytes() < 5


def test_weights_in_another_precision_are_no_activations() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        mixed = make(image_size=32).activation_bytes()
    assert 0.4 < mixed / make(image_size=32).activation_bytes() < 1


def test_the_sequence_part_works_in_full_precision(hu: Tensor) -> None:
    model, lengths = make().eval(), torch.tensor([7, 12, 11])
    with torch.no_grad():
        embeddings = model.embed(hu, lengths)
        plain = model.sequence_logits(embeddings, lengths)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(model.sequence_logits(embeddings, lengths), plain)


def test_fresh_heads_answer_near_the_prevalence() -> None:
    model = small_model().eval()
    prevalence = [0.01, 0.05, 0.03, None, 0.06, 0.15]
    model.set_prior(prevalence)
    logits, aux, _ = model(torch.randint(-100, 200, (6, 32, 32)), torch.tensor([2, 4]))
    expected = torch.logit(torch.tensor([p or 0.5 for p in prevalence]))
    for answer in (logits, aux):
        assert (answer.mean(0) - expected).abs().max() < 1.0


def test_weights_that_cannot_be_written_leave_the_old_ones(tmp_path: Path) -> None:
    model = make()
    model.save(tmp_path / "run")
    before = (tmp_path / "run" / "weights.safetensors").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # as a full disk: a file can't grow further
    try:
        with pytest.raises(RunError, match="weights can't be written"):
            make(hidden_size=9).save(tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert (tmp_path / "run" / "weights.safetensors").read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["model.json", "weights.safetensors"]
    assert Model.load(tmp_path / "run").config.hidden_size == 8


# ---- which settings decide what ------------------------------------------------------------------------------------

OTHER = {
    "backbone": "test_resnet2", "pool": "max", "cross_slice": [8], "image_size": 64, "windows": ["brain", "subdural"],
    "neighbours": 2, "edge": "zero", "normalise": False, "crop": "none", "window_first": True, "views": ["flip"],
    "sequence": "gru", "hidden_size": 4, "sequence_inputs": ["position"], "dropout": 0.5, "channel_dropout": 0.5,
    "sequence_dropout": 0.0, "sequence_slices": 4, "slice_dropout": 0.5, "embedding_noise": 0.5, "exam": "attention",
    "drop_path": 0.5, "pretrained": False, "freeze_bn": True, "channels_last": False,
}  # fmt: skip


@pytest.mark.parametrize("name", [setting.name for setting in settings_of(ModelConfig) if setting.name != "backbone"])
def test_what_decides_an_embedding_is_in_its_section(hu: Tensor, name: str) -> None:
    same = {"image_size": 96, "neighbours": 1}
    plain, other = make(**same).eval(), make(**same | {name: OTHER[name]}).eval()
    decides = embedding_settings(plain.config) != embedding_settings(other.config)
    for weights in getattr(other.backbone, "cross_slice", plain).parameters() if name == "cross_slice" else []:
        weights.data.fill_(0.5)
    found, seen = other.embed(hu, LENGTHS), plain.embed(hu, LENGTHS)
    assert (found.shape != seen.shape or not torch.equal(found, seen)) == decides


def test_a_model_is_made_again_from_its_configuration(hu: Tensor) -> None:
    model = make(neighbours=1, sequence="gru", freeze_bn=True).eval()
    again = Model.from_config(model.config).eval()
    assert again.config == model.config
    again.load_state_dict(model.state_dict())
    again.chunk_size = model.chunk_size
    assert torch.equal(again(hu, LENGTHS).logits, model(hu, LENGTHS).logits)


@pytest.mark.parametrize("frozen", [True, False])
def test_batch_norm_learns_in_training_unless_it_is_frozen(frozen: bool) -> None:
    model = make(freeze_bn=frozen).train()
    assert model.live_batch_norms() != frozen
    norms = [norm for norm in model.backbone.modules() if isinstance(norm, torch.nn.BatchNorm2d)]
    assert norms
    assert all(norm.training != frozen for norm in norms)


def test_what_changes_while_it_runs_is_in_the_configuration(tmp_path: Path) -> None:
    model = make()
    assert model.config.channels_last is False
    model.use_channels_last(True)
    assert model.backbone.conv1[0].weight.is_contiguous(memory_format=torch.channels_last)
    model.save(tmp_path)
    assert Model.load(tmp_path).config == model.config


def test_a_model_is_loaded_from_its_folder_or_one_of_its_files(tmp_path: Path) -> None:
    make().save(tmp_path / "joint" / "fold0")
    for path in ("joint/fold0", "joint/fold0/model.json", "joint/fold0/weights.safetensors"):
        assert Model.load(tmp_path / path, device="cpu").device == torch.device("cpu")
    assert Model.load(tmp_path / "joint" / "fold0").device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(RunError, match=r"no model there .*; train one"):
        Model.load(tmp_path / "joint")
    with pytest.raises(RunError, match=r"no model there .*; inside it are .*fold0"):
        Model.load(tmp_path)
    description = json.loads((tmp_path / "joint/fold0/model.json").read_text())
    edit(tmp_path / "joint/fold0/model.json", config=description["config"] | {"crop": "head"})
    with pytest.raises(RunError, match=r"does not describe a model of this version: model\.crop is 'head'"):
        Model.load(tmp_path / "joint/fold0")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named(tmp_path: Path) -> None:
    make().save(tmp_path)
    with pytest.raises(ConfigError, match="device is 'cuda', and there is no GPU; leave it at auto"):
        Model.load(tmp_path, device="cuda")


@torch.no_grad()
def test_the_mean_behind_the_layers_of_the_head() -> None:
    model = small_model(backbone="test_convnext", pool="head_avg", image_size=64).eval()
    hu, lengths = torch.randint(-50, 120, (2, 40, 40)).to(torch.int16), torch.tensor([2])
    plain = timm.create_model("test_convnext", num_classes=0, global_pool="").eval()
    plain.load_state_dict(model.backbone.state_dict())
    wanted = plain(model.images(hu, lengths)).mean((2, 3))
    assert torch.allclose(model.embed(hu, lengths), wanted, atol=1e-5)
    other = small_model(backbone="test_convnext", image_size=64).eval()
    other.backbone.load_state_dict(model.backbone.state_dict())
    assert not torch.allclose(other.embed(hu, lengths), wanted, atol=1e-3)  # its norm reads the pooled map


def test_drop_path_is_timms_and_for_training() -> None:
    model = small_model(drop_path=0.9, freeze_bn=True)
    for norm in model.backbone.modules():  # timm begins with blocks that add nothing
        if isinstance(norm, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(norm.weight)
    hu, lengths = torch.randint(-50, 120, (2, 40, 40)).to(torch.int16), torch.tensor([2])
    model.train()
    assert not torch.equal(model.embed(hu, lengths), model.embed(hu, lengths))
    model.eval()
    assert torch.equal(model.embed(hu, lengths), model.embed(hu, lengths))
    with pytest.raises(ConfigError, match=r"vgg11 has no stochastic depth.*model.drop_path"):
        small_model(backbone="vgg11", drop_path=0.1)
