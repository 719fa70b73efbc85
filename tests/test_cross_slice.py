"""Convolutions across slices: within a series and nowhere else, whatever the chunks; and at first as if not there."""

import copy
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import tiny
from safetensors.torch import load_file
from torch import Tensor

from ichseq import Model
from ichseq.errors import ConfigError, RunError
from ichseq.training.optimizer import make_optimizer
from ichseq.training.stage_loss import StageLoss
from ichseq.training.stages import make_stage
from ichseq.training.start import start_from
from ichseq.training.train import train_stage

LENGTHS = torch.tensor([12, 1, 7])
CROSS = "model.cross_slice=[4,8,16]"


def make(strides: tuple[int, ...] = (4, 8, 16), weight: float = 0.5, **settings: object) -> Model:
    """A network whose convolutions across slices do something."""
    torch.manual_seed(0)
    options: dict = {"image_size": 32, "hidden_size": 8, "chunk_size": 64, "checkpointing": "off", "freeze_bn": True}
    model = Model("test_resnet", cross_slice=strides, **options | settings)
    for weights in model.backbone.cross_slice.weights if strides else []:
        weights.data.normal_(0, weight)
    return model


@pytest.fixture(scope="module")
def hu() -> Tensor:
    return torch.randint(-200, 200, (20, 40, 40), generator=torch.Generator().manual_seed(1)).to(torch.int16)


def test_by_hand() -> None:
    maps = torch.randn(5, 3, 2, 2)
    cross = make((4,)).backbone.cross_slice
    cross.weights[0] = torch.nn.Parameter(torch.randn(2, 3))
    before, after = cross.weights[0].detach()[:, :, None, None]
    with cross.series([3, 2]):
        found = cross.after_stage(0, cross, (), maps)
    zero = torch.zeros(3, 2, 2)
    previous = torch.stack([zero, maps[0], maps[1], zero, maps[3]])
    following = torch.stack([maps[1], maps[2], zero, maps[4], zero])
    torch.testing.assert_close(found, maps + before * previous + after * following)
    assert torch.equal(cross.after_stage(0, cross, (), maps), maps)  # nobody said how the slices belong together


def test_a_fresh_one_changes_nothing(hu: Tensor) -> None:
    plain, crossed = make(()).eval(), make(weight=0.0).eval()
    crossed.load_state_dict(plain.state_dict(), strict=False)
    assert torch.equal(crossed.embed(hu, LENGTHS), plain.embed(hu, LENGTHS))
    assert crossed.reach == 3
    assert plain.reach == 0


def test_series_alone_chunks_and_recomputation_agree(hu: Tensor) -> None:
    model = make().train()

    def gradients() -> tuple[Tensor, Tensor]:
        model.zero_grad()
        embeddings = model.embed(hu, LENGTHS)
        embeddings.square().mean().backward()
        found = [p.grad for name, p in model.named_parameters() if name.startswith("backbone")]
        return embeddings.detach(), torch.cat([grad.flatten() for grad in found])

    embeddings, reference = gradients()
    for first, n in ((0, 12), (12, 1), (13, 7)):
        alone = model.embed(hu[first : first + n], torch.tensor([n]))
        torch.testing.assert_close(alone, embeddings[first : first + n], atol=1e-5, rtol=1e-4)
    for chunk, checkpointing in ((3, "off"), (3, "on"), (64, "on")):
        model.chunk_size, model.checkpointing = chunk, checkpointing
        again, other = gradients()
        torch.testing.assert_close(again, embeddings, atol=1e-5, rtol=1e-4)
        assert (other - reference).norm() < 1e-5 * reference.norm()
    plain = make(()).train()
    plain.load_state_dict({k: t for k, t in model.state_dict().items() if "cross_slice" not in k})
    assert (plain.embed(hu, LENGTHS) - embeddings).abs().max() > 0.01
    single = plain.embed(hu, LENGTHS)[12]
    torch.testing.assert_close(embeddings[12], single, atol=1e-5, rtol=1e-4)  # a series of one slice


def test_slices_cropped_by_themselves_keep_their_neighbours(hu: Tensor) -> None:
    """Those that are cropped or warped one by one are still of one series."""
    model = make(crop="none").eval()
    still = torch.eye(3).expand(20, 3, 3)
    torch.testing.assert_close(model.embed(hu, LENGTHS, warp=still), model.embed(hu, LENGTHS), atol=1e-5, rtol=1e-4)
    model.chunk_size = 3
    torch.testing.assert_close(model.embed(hu, LENGTHS, warp=still), model.embed(hu, LENGTHS), atol=1e-5, rtol=1e-4)


def test_neighbours_that_a_chunk_needs_are_counted(hu: Tensor) -> None:
    model = make((8,)).eval()
    model.embed(hu, LENGTHS)
    assert model.backbone_slices == 20
    model.chunk_size = 10
    model.embed(hu, LENGTHS)
    assert model.backbone_slices == 20 + 11 + 11  # the cut goes through the first series
    model.checkpointing = "on"
    model.train().embed(hu, LENGTHS).sum().backward()
    assert model.backbone_slices == 20 + 11 + 11 + 11 + 11  # recomputed: not counted again


def test_what_they_keep_for_the_backward_pass_is_counted() -> None:
    assert make().activation_bytes() > make(()).activation_bytes()


def test_a_copy_has_its_own(hu: Tensor) -> None:
    model = make().eval()
    before = model.embed(hu, LENGTHS)
    other = copy.deepcopy(model)
    for weights in model.backbone.cross_slice.weights:
        weights.data.zero_()
    assert torch.equal(other.embed(hu, LENGTHS), before)
    assert not torch.allclose(model.embed(hu, LENGTHS), before, atol=1e-3)


def test_saved_and_loaded_gives_the_same(hu: Tensor, tmp_path: Path) -> None:
    model = make().eval()
    model.save(tmp_path)
    assert torch.equal(Model.load(tmp_path).embed(hu, LENGTHS), model.embed(hu, LENGTHS))


def test_images_by_themselves_have_no_neighbours(hu: Tensor) -> None:
    model = make().eval()
    images = model.images(hu, LENGTHS)
    alone = torch.cat([model.embed_images(image[None]) for image in images])
    torch.testing.assert_close(model.embed_images(images), alone, atol=1e-5, rtol=1e-4)


def test_the_start_has_none_or_the_same(hu: Tensor, tmp_path: Path) -> None:
    plain, crossed = make(()).eval(), make(weight=0.0).eval()
    plain.trained_on = crossed.trained_on = {"phantom": True}
    plain.save(tmp_path / "plain")
    with torch.no_grad():
        for p in crossed.backbone.conv1.parameters():
            p.add_(1)
    assert start_from(crossed, tmp_path / "plain").endswith("fresh: cross_slice")
    assert torch.equal(crossed.embed(hu, LENGTHS), plain.embed(hu, LENGTHS))
    crossed.save(tmp_path / "crossed")
    with pytest.raises(RunError, match=r"its model.cross_slice is \[4, 8, 16\], this run's \[\]"):
        start_from(make(()), tmp_path / "crossed")


@pytest.mark.parametrize(
    ("backbone", "strides", "words"),
    [
        ("test_resnet", (4, 64), "the maps of test_resnet have strides 2, 4, 8, 16, 32"),
        ("test_resnet", (4, 4), "name each stride once"),
        ("test_vit", (16,), r"no maps \(n, 64, H, W\) of stride 16"),
    ],
)
def test_a_backbone_without_such_maps_is_named(backbone: str, strides: tuple[int, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Model(backbone, cross_slice=strides, image_size=160)


def test_its_rate_is_its_own_and_nothing_decays_it() -> None:
    config = tiny("joint", CROSS, "train.cross_slice_lr=0.5", "train.weight_decay=0.1")
    stage = make_stage("joint", config)
    network = StageLoss(make(), stage)
    optimizer = make_optimizer(stage.parameter_groups(network.model), config.train, torch.device("cpu"))
    group = {group["name"]: group for group in optimizer.param_groups}
    assert list(group) == ["backbone", "cross_slice", "sequence"]
    assert (group["cross_slice"]["lr"], group["cross_slice"]["weight_decay"]) == (0.5, 0.0)
    assert group["backbone"]["weight_decay"] == 0.1
    ids = {id(p) for p in network.model.backbone.cross_slice.parameters()}
    assert {id(p) for p in group["cross_slice"]["params"]} == ids
    assert sum(len(g["params"]) for g in optimizer.param_groups) == len(list(network.parameters()))


def test_joint_after_slice_then_frozen(prepared: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = (CROSS, "train.epochs=1", "train.window=10", "train.cross_slice_lr=0.05", "train.ema=0.5")
    first = train_stage(tiny("slice", "train.epochs=1"), "slice", data=prepared, fold=0, out=run, progress=False)
    joint = train_stage(tiny("joint", *options), "joint", data=prepared, fold=0, out=run, init=first, progress=False)
    weights = load_file(joint / "weights.safetensors")
    learned = [tensor for name, tensor in weights.items() if ".cross_slice." in name]
    assert len(learned) == 3
    assert all(tensor.abs().max() > 1e-3 for tensor in learned)
    frozen = train_stage(tiny("frozen", *options), "frozen", data=prepared, fold=0, out=run, init=joint, progress=False)
    after = load_file(frozen / "weights.safetensors")
    assert all(torch.equal(after[name], weights[name]) for name in weights if name.startswith("backbone."))
    assert pd.read_csv(frozen / "history.csv")["valid_loss"].iloc[-1] < 2
