"""A gradient through a part of each series: which slices, their embeddings, what is remembered of the others."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny
from small_models import small_model

from ichseq.config import AugmentConfig
from ichseq.data.batches import Item, SliceBatch, item_rows, new_array, read_batch
from ichseq.data.index import Index
from ichseq.errors import ConfigError
from ichseq.training.stages import make_stage
from ichseq.training.stages.part import Remembered, draw_part, embed_part, run_length
from ichseq.training.stages.readers import SliceReader
from ichseq.training.train import start_training, train_stage

CPU = torch.device("cpu")
APPEARANCE = AugmentConfig(rotate=30, affine=1, blur=1, noise=3, correlated_noise=2, tissue_shift=5)


@pytest.fixture(scope="module")
def index(prepared: Path) -> Index:
    return Index.load(prepared)


@pytest.mark.parametrize("share", [0.01, 0.25, 0.5, 1.0])
def test_a_run_of_neighbours_of_each_series_at_any_place(share: float) -> None:
    lengths = torch.tensor([7, 1, 30])
    firsts = set()
    for seed in range(200):
        torch.manual_seed(seed)
        part = draw_part(lengths, share)
        assert part.lengths.tolist() == [run_length(n, share) for n in (7, 1, 30)]
        for run, low, high in zip(part.rows.split(part.lengths.tolist()), (0, 7, 8), (7, 8, 38), strict=True):
            assert (run.diff() == 1).all()
            assert low <= run[0] <= run[-1] < high
        firsts.add(int(part.rows[-1]))
        torch.manual_seed(seed)
        assert torch.equal(draw_part(lengths, share).rows, part.rows)
    assert len(firsts) == 30 - run_length(30, share) + 1


@pytest.mark.parametrize("per", ["series", "slice"])
@pytest.mark.parametrize(
    "settings", [{}, {"neighbours": 2}, {"neighbours": 1, "edge": "zero", "crop": "slice"}, {"crop": "none"}], ids=str
)
def test_a_part_is_embedded_as_in_the_whole(index: Index, settings: dict, per: str) -> None:
    model = small_model(**settings).eval()
    augment = AugmentConfig(**{**vars(APPEARANCE), "per": per})
    reader = SliceReader(index, None, model.crop_boxes, model.config.neighbours, augment, seed=0)
    batch: SliceBatch = reader.training(0)([Item(k) for k in (3, 0, 5)], new_array)
    part = draw_part(batch.lengths, 0.3)
    with torch.no_grad():
        whole = model.embed(batch.hu, batch.lengths, **batch.seen_as)
        found = embed_part(model, batch, part)
    assert torch.allclose(found, whole[part.rows], atol=1e-5)
    assert whole.std(0).max() > 1e-3


def test_windows_bring_their_boxes_and_neighbours(index: Index) -> None:
    model = small_model(neighbours=1).eval()
    boxes = torch.stack([model.crop_boxes(one.hu, one.lengths)[0] for one in
                         (read_batch(index, [Item(k)]) for k in range(4))])  # fmt: skip
    reader = SliceReader(index, boxes, model.crop_boxes, 1, None, seed=0)
    batch = reader.training(0)([Item(1, 2, 8), Item(3, 5, 6)], new_array)
    part = draw_part(batch.lengths, 0.5)
    with torch.no_grad():
        whole = model.embed(batch.hu, batch.lengths, **batch.seen_as)
        assert torch.allclose(embed_part(model, batch, part), whole[part.rows], atol=1e-5)


def test_what_is_remembered_is_of_the_slices_asked_for(index: Index) -> None:
    remembered = Remembered(index, torch.zeros(index.n_slices, 3, dtype=torch.float16))
    items = [Item(4, 3, 6), Item(1)]
    values = torch.arange(3.0 * len(item_rows(index, items))).reshape(-1, 3)
    remembered.put(items, slice(None), values)
    assert torch.equal(remembered.of(items, CPU), values)
    assert torch.equal(remembered.of([Item(4, 4, 2)], CPU), values[1:3])
    remembered.put(items, torch.tensor([0, 7]), torch.full((2, 3), -1.0))
    changed = values.clone()
    changed[[0, 7]] = -1
    assert torch.equal(remembered.of(items, CPU), changed)
    assert int(remembered.values.any(1).sum()) == len(values)


def test_a_step_reads_runs_and_remembers_them(prepared: Path, index: Index, tmp_path: Path) -> None:
    config = tiny("joint", "train.gradient_share=0.3", "model.freeze_bn=true")
    training = start_training(config, "joint", index, 0, tmp_path / "run")
    setup = training.setup
    reader = training.read_ahead()
    before = setup.stage.state_dict()["remembered"].clone()
    trained = index.slice_rows(setup.training_series)
    assert before[trained].any(1).all()
    assert not before[index.slice_rows(setup.validation_series)].any()
    batch = reader.validation()([Item(int(setup.training_series[0]))], new_array)
    with torch.no_grad():
        expected = setup.model.eval().embed(batch.hu, batch.lengths)
    assert torch.allclose(Remembered(index, before).of(batch.items, CPU), expected, rtol=1e-3, atol=1e-3)
    step = setup.plan(0)[0]
    read = setup.model.backbone_slices
    batches = training.batches(reader.training(0), [step])
    training.begin_epoch()
    training.step(step, batches)
    after = setup.stage.state_dict()["remembered"]
    items = [item for process in step for micro_batch in process for item in micro_batch]
    runs = [run_length(int(index.lengths[item.series]), 0.3) for item in items]
    changed = np.flatnonzero((before != after).any(1).numpy())
    assert setup.model.backbone_slices - read == sum(runs) == len(changed)
    assert set(changed) <= set(item_rows(index, items))
    assert setup.stage.slices_trained([int(index.lengths[item.series]) for item in items]) == sum(runs)


def test_with_live_batch_norm_they_begin_on_the_scale_that_steps_see(index: Index, tmp_path: Path) -> None:
    config = tiny("joint", "train.gradient_share=0.3", "model.freeze_bn=false", "model.views=[flip]")
    training = start_training(config, "joint", index, 0, tmp_path / "run")
    setup = training.setup
    statistics = setup.model.running_statistics()
    reader = training.read_ahead()
    assert all(map(torch.equal, statistics, setup.model.running_statistics()))
    batch = reader.validation()([Item(int(i)) for i in setup.training_series[:4]], new_array)
    with torch.no_grad():
        seen = setup.model.train().embed(batch.hu, batch.lengths).std()
    begun = setup.stage.state_dict()["remembered"][item_rows(index, batch.items)].float().std()
    assert 0.5 < begun / seen < 2


def test_the_gradient_is_that_of_the_read_slices_alone(index: Index) -> None:
    stage = make_stage("joint", tiny("joint", "train.gradient_share=0.3", "train.aux_weight=0"))
    model = small_model(freeze_bn=True)
    stage.choose_parameters(model)
    batch = read_batch(index, [Item(2)])
    with torch.no_grad():
        others = model.eval().embed(batch.hu, batch.lengths)
    stage.load_state_dict({"remembered": torch.zeros(index.n_slices, model.features, dtype=torch.float16)}, index)
    stage.state_dict()["remembered"][item_rows(index, batch.items)] = others.half()
    model.train()
    torch.manual_seed(1)
    stage.loss(model, batch).total.backward()
    found = [p.grad.clone() for p in model.backbone.parameters() if p.grad is not None]
    model.zero_grad()
    torch.manual_seed(1)
    part = draw_part(batch.lengths, 0.3)
    embeddings = others.half().float()
    embeddings = embeddings.index_copy(0, part.rows, model.embed(batch.hu, batch.lengths)[part.rows])
    output = model.answer(embeddings, batch.lengths, batch.positions_mm)
    torch.nn.functional.binary_cross_entropy_with_logits(output.logits, batch.labels, reduction="none").mul(
        torch.tensor([1.0, 1, 1, 1, 1, 2])
    ).sum().backward()
    expected = [p.grad for p in model.backbone.parameters() if p.grad is not None]
    scale = max(float(one.abs().max()) for one in expected)
    assert scale > 0
    assert all(torch.allclose(one, other, atol=1e-4 * scale) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("setting", "words"),
    [("model.cross_slice=[4]", r"model\.cross_slice reads slices beyond"), ("train.short_scans=0.5", "crops a slice")],
)
def test_what_can_not_be_remembered_is_refused(prepared: Path, tmp_path: Path, setting: str, words: str) -> None:
    config = tiny("joint", "train.gradient_share=0.5", setting)
    with pytest.raises(ConfigError, match=words):
        train_stage(config, "joint", data=prepared, fold=0, out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_several_processes_are_refused() -> None:
    with pytest.raises(ConfigError, match="in one process, not in 2"):
        make_stage("joint", tiny("joint", "train.gradient_share=0.5")).check(2)
    make_stage("joint", tiny("joint")).check(2)
    make_stage("frozen", tiny("frozen", "train.gradient_share=0.5")).check(2)
