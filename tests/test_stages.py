"""What a stage minimises, beside the plain loss of test_losses."""

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
from ichseq.data.batches import Batch, Item, new_array, read_batch
from ichseq.data.index import Index
from ichseq.training.engine import train
from ichseq.training.losses import weighted_bce_sum
from ichseq.training.stages import STAGE_BY_NAME, StageNetwork, StageReader, seen_by_the_backbone, series_boxes
from ichseq.training.stopping import StopRequest


@pytest.fixture(scope="module")
def batch(prepared: Path) -> Batch:
    index = Index.load(prepared)
    return read_batch(index, [Item(i, k, 1) for i in range(4) for k in (5, 15)])


def network(stage: str = "slice", **options: float) -> StageNetwork:
    torch.manual_seed(0)
    model = small_model(freeze_bn=True, chunk_size=3, checkpointing="on")
    return StageNetwork(model, STAGE_BY_NAME[stage], 1.0, **options).train()


def test_mixup_mixes_images_and_labels_in_the_same_shares(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    mixing = network(mixup=1.0)
    images = mixing.model.images(batch.hu, batch.lengths)
    torch.manual_seed(7)
    share, partner = torch.distributions.Beta(1.0, 1.0).sample((8,)), torch.randperm(8)
    mixed = torch.stack([share[k] * images[k] + (1 - share[k]) * images[partner[k]] for k in range(8)])
    labels = torch.stack([share[k] * batch.labels[k] + (1 - share[k]) * batch.labels[partner[k]] for k in range(8)])
    seen: list[Tensor] = []
    mixing.model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    torch.manual_seed(7)
    loss, shown = mixing(batch)
    torch.testing.assert_close(torch.cat(seen), mixed, atol=1e-5, rtol=1e-5)
    logits = mixing.model.slice_logits(mixing.model.embed_images(mixed))
    torch.testing.assert_close(loss, weighted_bce_sum(logits, labels))
    assert torch.equal(loss, shown)
    loss.backward()
    assert all(p.grad is not None for p in mixing.parameters() if p.requires_grad)
    assert 0 < share.min() < 0.3 < 0.7 < share.max() < 1


def test_mixup_is_for_training_slices_alone(batch: Batch) -> None:
    plain, mixing = network(), network(mixup=1.0)
    assert not torch.equal(mixing(batch)[0], plain(batch)[0])
    assert torch.equal(mixing.eval()(batch)[0], plain.eval()(batch)[0])
    whole = replace(batch, items=[Item(0)], lengths=torch.tensor([8]), sizes=batch.sizes[:1])
    torch.testing.assert_close(network("joint", mixup=1.0)(whole)[0], network("joint")(whole)[0])


def test_a_backbone_held_gets_no_gradient(batch: Batch) -> None:
    whole = replace(batch, items=[Item(0)], lengths=torch.tensor([8]), sizes=batch.sizes[:1])
    free, held = network("joint"), network("joint")
    held.held = True
    free(whole)[0].backward()
    loss, _ = held(whole)
    loss.backward()
    torch.testing.assert_close(loss, free(whole)[0])
    for (name, one), two in zip(free.named_parameters(), held.parameters(), strict=True):
        assert two.grad is not None, name  # or other processes would wait for it
        if "backbone" in name:
            assert not two.grad.any(), name
        else:
            torch.testing.assert_close(one.grad, two.grad)


def test_the_backbone_is_left_alone_for_the_first_epochs(prepared: Path, tmp_path: Path) -> None:
    options = ("train.freeze_epochs=1", "train.keep_epochs=2", "train.weight_decay=0.5", "model.freeze_bn=false")
    first = train(tiny("slice", "train.epochs=1"), "slice", data=prepared, fold=0, out=tmp_path / "r", progress=False)
    leaf = train(
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
    reader = StageReader(index, series_boxes(model, index, series, 1, StopRequest()), neighbours=2)
    with torch.no_grad():
        whole = {int(i): embedded(model, read_batch(index, [Item(int(i))])) for i in series}
        last = int(index.lengths[2]) - 1
        slices = [Item(2, 0, 1), Item(5, 1, 1), Item(2, 9, 1), Item(2, last, 1), Item(2, last - 1, 1)]
        for items in (slices, [Item(2, last - 5, 6), Item(5, 3, 6)], [Item(5, 0, 6), Item(2)]):
            rows = [whole[i][k : k + n] if n > 0 else whole[i] for i, k, n in items]
            found = embedded(model, reader(items, new_array))
            torch.testing.assert_close(found, torch.cat(rows), atol=1e-5, rtol=1e-5)
        assert model.backbone_slices == sum(index.lengths[series]) + 5 + 12 + 6 + index.lengths[2]


def embedded(model: Model, batch: Batch) -> Tensor:
    return model.embed(batch.hu, batch.lengths, **seen_by_the_backbone(batch))


@pytest.mark.parametrize(
    ("stage", "settings"),
    [
        ("slice", ("train.mixup=1", "train.negatives=0.4", "model.crop=slice", "model.window_first=true")),
        ("joint", ("train.window=10", "train.negatives=0.4")),
        ("slice", ("train.mixup=1", "model.neighbours=1", "model.views=[flip]")),
        ("joint", ("train.window=10", "model.neighbours=1")),
        ("joint", ("augment.per=slice", "model.crop=slice", "model.neighbours=1")),
        ("joint", ("augment.per=slice", "model.crop=slice", "model.sequence=transformer")),
        ("frozen", ("train.window=10", "model.channel_dropout=0.3")),
    ],
)
def test_what_the_published_rows_ask_for_trains(
    prepared: Path, tmp_path: Path, stage: str, settings: tuple[str, ...]
) -> None:
    config = tiny(stage, "train.epochs=1", *settings)
    leaf = train(config, stage, data=prepared, fold=0, out=tmp_path / "run", progress=False)
    (row,) = pd.read_csv(leaf / "history.csv").to_dict("records")
    index = Index.load(prepared)
    training = index.training_series(0)
    if config.train.window:
        assert row["slices"] <= 10 * len(training)
    assert (row["slices"] == index.lengths[training].sum()) == (config.train.negatives == 1 and not config.train.window)
    assert 0 < row["valid_loss"] < 2
