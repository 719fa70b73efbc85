"""What a stage trains, reads and minimises, beside the plain loss of test_losses."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny
from safetensors.torch import load_file
from small_models import small_model
from torch import Tensor

from ichseq import Model
from ichseq.config import STAGES
from ichseq.data.batches import EmbeddingBatch, Item, SliceBatch, new_array, read_batch
from ichseq.data.index import Index
from ichseq.errors import ConfigError
from ichseq.training.losses import weighted_bce_sum
from ichseq.training.processes import Processes
from ichseq.training.stage_loss import StageLoss
from ichseq.training.stages import STAGE_CLASSES, make_stage
from ichseq.training.stages.readers import SliceReader, series_boxes
from ichseq.training.stopping import StopRequest
from ichseq.training.train import train_stage


@pytest.fixture(scope="module")
def batch(prepared: Path) -> SliceBatch:
    index = Index.load(prepared)
    return read_batch(index, [Item(i, k, 1) for i in range(4) for k in (5, 15)])


def network(stage: str = "slice", *settings: str) -> StageLoss:
    torch.manual_seed(0)
    model = small_model(freeze_bn=True, chunk_size=3, checkpointing="on")
    return StageLoss(model, make_stage(stage, tiny(stage, "train.aux_weight=1", *settings))).train()


def test_the_stages_are_those_of_the_configuration() -> None:
    assert tuple(STAGE_CLASSES) == STAGES
    assert all(cls.name == name for name, cls in STAGE_CLASSES.items())


def trained(loss: StageLoss) -> set[str]:
    return {name.split(".")[0] for name, p in loss.model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("stage", STAGES)
def test_gradients_reach_what_a_stage_trains(stage: str, prepared: Path, batch: SliceBatch) -> None:
    loss = network(stage)
    assert trained(loss) == {part for part in loss.stage.parts if getattr(loss.model, part) is not None}
    assert loss.stage.trains("backbone") == ("backbone" in trained(loss))
    whole = one_series(batch)
    if not loss.stage.trains("backbone"):
        known = {"items": whole.items, "lengths": whole.lengths, "labels": whole.labels}
        known |= {"exam_labels": whole.exam_labels, "positions_mm": None}
        whole = EmbeddingBatch(**known, embeddings=torch.randn(8, loss.model.features))  # type: ignore[assignment]
    total, own, *_ = loss(whole)
    total.backward()
    assert not own.requires_grad
    assert {name.split(".")[0] for name, p in loss.model.named_parameters() if p.grad is not None} == trained(loss)


@pytest.mark.parametrize("stage", STAGES)
def test_a_share_without_slices_still_has_a_gradient_for_every_parameter(stage: str, prepared: Path) -> None:
    loss = network(stage)
    total, own, *_ = loss(read_batch(Index.load(prepared), []))
    total.backward()
    assert total.item() == own.item() == 0
    assert all(p.grad is not None and not p.grad.any() for p in loss.parameters() if p.requires_grad)


def test_a_model_without_a_sequence_part_has_nothing_to_train_in_the_frozen_stage() -> None:
    with pytest.raises(ConfigError, match=r"model\.sequence is none"):
        StageLoss(Model("test_resnet", image_size=32, sequence="none"), make_stage("frozen", tiny("frozen")))


def one_series(batch: SliceBatch) -> SliceBatch:
    """The slices of a batch, taken for those of one series."""
    whole = {"items": [Item(0)], "lengths": torch.tensor([8]), "sizes": batch.sizes[:1]}
    return replace(batch, **whole, exam_labels=batch.exam_labels[:1])


def test_mixup_mixes_images_and_labels_in_the_same_shares(batch: SliceBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    mixing = network("slice", "train.mixup=1")
    images = mixing.model.images(batch.hu, batch.lengths)
    torch.manual_seed(7)
    share, partner = torch.distributions.Beta(1.0, 1.0).sample((8,)), torch.randperm(8)
    mixed = torch.stack([share[k] * images[k] + (1 - share[k]) * images[partner[k]] for k in range(8)])
    labels = torch.stack([share[k] * batch.labels[k] + (1 - share[k]) * batch.labels[partner[k]] for k in range(8)])
    seen: list[Tensor] = []
    mixing.model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    torch.manual_seed(7)
    loss, shown, *_ = mixing(batch)
    torch.testing.assert_close(torch.cat(seen), mixed, atol=1e-5, rtol=1e-5)
    logits = mixing.model.slice_logits(mixing.model.embed_images(mixed))
    torch.testing.assert_close(loss, weighted_bce_sum(logits, labels))
    assert torch.equal(loss, shown)
    loss.backward()
    assert all(p.grad is not None for p in mixing.parameters() if p.requires_grad)
    assert 0 < share.min() < 0.3 < 0.7 < share.max() < 1


def test_mixup_is_for_training_slices_alone(batch: SliceBatch) -> None:
    plain, mixing = network(), network("slice", "train.mixup=1")
    assert not torch.equal(mixing(batch)[0], plain(batch)[0])
    assert torch.equal(mixing.eval()(batch)[0], plain.eval()(batch)[0])
    whole = one_series(batch)
    torch.testing.assert_close(network("joint", "train.mixup=1")(whole)[0], network("joint")(whole)[0])


def test_a_backbone_left_alone_gets_no_gradient(batch: SliceBatch) -> None:
    whole = one_series(batch)
    free, frozen = network("joint"), network("joint")
    free(whole)[0].backward()
    loss, *_ = frozen(whole, backbone_frozen=True)
    loss.backward()
    torch.testing.assert_close(loss, free(whole)[0])
    for (name, one), two in zip(free.named_parameters(), frozen.parameters(), strict=True):
        assert two.grad is not None, name  # or other processes would wait for it
        if "backbone" in name:
            assert not two.grad.any(), name
        else:
            torch.testing.assert_close(one.grad, two.grad)


def test_the_backbone_is_left_alone_for_the_first_epochs(prepared: Path, tmp_path: Path) -> None:
    options = ("train.freeze_epochs=1", "train.keep_epochs=2", "train.weight_decay=0.5", "model.freeze_bn=false")
    first = train_stage(
        tiny("slice", "train.epochs=1"), "slice", data=prepared, fold=0, out=tmp_path / "r", progress=False
    )
    leaf = train_stage(
        tiny("joint", *options), "joint", data=prepared, fold=0, out=tmp_path / "r", init=first, progress=False
    )
    start, one, two = (Model.load(p).backbone.state_dict() for p in (first, *sorted((leaf / "epochs").iterdir())))
    assert all(torch.equal(start[key], one[key]) for key in start)
    assert not all(torch.equal(one[key], two[key]) for key in start)
    tensors = load_file(sorted((leaf / "last").glob("step-*"))[-1] / "state.safetensors")
    steps = {float(tensor) for name, tensor in tensors.items() if name.split(".")[-1] == "step"}
    assert steps == {4.0, 8.0}  # the backbone's count begins when it is let go: 4 steps an epoch


@pytest.mark.parametrize("edge", ["repeat", "zero"])
@pytest.mark.parametrize("crop", ["series", "slice", "none"])
def test_slices_and_windows_are_seen_as_in_their_series(prepared: Path, crop: str, edge: str) -> None:
    index = Index.load(prepared)
    torch.manual_seed(0)
    model = Model("test_resnet", image_size=32, hidden_size=8, neighbours=2, edge=edge, crop=crop).eval()
    series = np.array([2, 5])
    read = SliceReader(index, series_boxes(model, index, series, 1, StopRequest()), neighbours=2).training(0)
    with torch.no_grad():
        whole = {int(i): embedded(model, read_batch(index, [Item(int(i))])) for i in series}
        last = int(index.lengths[2]) - 1
        slices = [Item(2, 0, 1), Item(5, 1, 1), Item(2, 9, 1), Item(2, last, 1), Item(2, last - 1, 1)]
        for items in (slices, [Item(2, last - 5, 6), Item(5, 3, 6)], [Item(5, 0, 6), Item(2)]):
            rows = [whole[i][k : k + n] if n > 0 else whole[i] for i, k, n in items]
            found = embedded(model, read(items, new_array))
            torch.testing.assert_close(found, torch.cat(rows), atol=1e-5, rtol=1e-5)
        assert model.backbone_slices == sum(index.lengths[series]) + 5 + 12 + 6 + index.lengths[2]


def embedded(model: Model, batch: SliceBatch) -> Tensor:
    return model.embed(batch.hu, batch.lengths, **batch.seen_as)


@pytest.mark.parametrize("per", ["series", "slice"])
def test_augmentation_is_drawn_for_an_epoch_and_validation_has_none(prepared: Path, per: str) -> None:
    config = tiny("joint", f"augment.per={per}", "augment.noise=5")
    stage, index = make_stage("joint", config), Index.load(prepared)
    model = Model("test_resnet", image_size=32, hidden_size=8)
    reader = stage.reader(model, index, np.arange(4), processes=Processes(), request=StopRequest(), shown=False)
    items = [Item(0), Item(1)]
    batches = [reader.training(epoch)(items, new_array) for epoch in (0, 0, 1)]
    for draws in ([batch.warp for batch in batches], [batch.appearance.values for batch in batches]):
        first, again, next_epoch = draws
        assert torch.equal(first, again)
        assert not torch.equal(first, next_epoch)
        assert len(first) == (2 if per == "series" else index.lengths[:2].sum())
    plain = reader.validation()(items, new_array)
    assert plain.warp is None
    assert plain.appearance is None


def test_a_slice_has_the_noise_of_its_place_whatever_it_is_read_with(prepared: Path) -> None:
    index, augment = Index.load(prepared), tiny("slice", "augment.noise=5").augment
    read = SliceReader(index, augment=augment).training(0)
    whole = read([Item(2)], new_array).appearance.for_each_slice([int(index.lengths[2])])
    parts = read([Item(2, 4, 3), Item(2, 6, 1)], new_array).appearance
    assert list(parts.for_each_slice([3, 1]).noise) == [whole.noise[k] for k in (4, 5, 6, 6)]
    assert torch.equal(parts.values[0], whole.values[0])
    assert read_batch(index, [Item(2)]).appearance is None


def test_a_batch_takes_its_appearance_to_the_device(prepared: Path) -> None:
    index, augment = Index.load(prepared), tiny("slice", "augment.noise=5").augment
    batch = SliceReader(index, augment=augment).training(0)([Item(0)], new_array)
    assert any(one is batch.appearance.values for one in batch.device_tensors())
    there = batch.to(torch.device("meta"))
    assert {one.device.type for one in there.device_tensors()} == {"meta"}
    assert there.lengths.device.type == "cpu"
    assert there.appearance.noise == batch.appearance.noise


@pytest.mark.parametrize(
    ("stage", "settings"),
    [
        ("slice", ("train.mixup=1", "train.negatives=0.4", "model.crop=slice", "model.window_first=true")),
        ("joint", ("train.window=10", "train.negatives=0.4")),
        ("slice", ("train.mixup=1", "model.neighbours=1", "model.views=[flip]")),
        ("joint", ("train.window=10", "model.neighbours=1")),
        ("joint", ("augment.per=slice", "model.crop=slice", "model.neighbours=1", "augment.correlated_noise=4")),
        ("joint", ("augment.per=slice", "model.crop=slice", "model.sequence=transformer")),
        ("frozen", ("train.window=10", "model.channel_dropout=0.3")),
    ],
)
def test_what_the_published_rows_ask_for_trains(
    prepared: Path, tmp_path: Path, stage: str, settings: tuple[str, ...]
) -> None:
    config = tiny(stage, "train.epochs=1", *settings)
    leaf = train_stage(config, stage, data=prepared, fold=0, out=tmp_path / "run", progress=False)
    (row,) = pd.read_csv(leaf / "history.csv").to_dict("records")
    index = Index.load(prepared)
    training = index.training_series(0)
    if config.train.window:
        assert row["slices"] <= 10 * len(training)
    assert (row["slices"] == index.lengths[training].sum()) == (config.train.negatives == 1 and not config.train.window)
    assert 0 < row["valid_loss"] < 2
