"""Training on exams: alone, beside slices, in the frozen and the joint stage; what is known counts, and no more."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny
from exam_sets import with_exam_labels
from sklearn.metrics import log_loss

from ichseq.data.batches import Item, item_exam_labels, read_batch
from ichseq.data.index import Index
from ichseq.errors import ConfigError, DataError
from ichseq.evaluation.evaluate import evaluate_fold
from ichseq.inference.model_ensemble import ModelEnsemble
from ichseq.inference.predict import predict_prepared
from ichseq.labels import LABEL_WEIGHTS, LABELS
from ichseq.model import Model
from ichseq.predictions.read import read_exams
from ichseq.predictions.schema import TRUTH
from ichseq.training.losses import label_weight, step_weights, weighted_bce_sum
from ichseq.training.stage_loss import StageLoss
from ichseq.training.stages import make_stage
from ichseq.training.train import train_stage
from ichseq.training.validation import Validated


@pytest.fixture(scope="module")
def exams(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantoms with labels of exams alone; not to be changed."""
    return with_exam_labels(prepared, tmp_path_factory.mktemp("exams") / "set")


@pytest.mark.parametrize("exam", ["attention", "pooled", "max"])
@pytest.mark.parametrize("stage", ["joint", "frozen"])
def test_exams_alone_train_a_network_and_say_which_epoch_was_best(
    exams: Path, run: Path, tmp_path: Path, stage: str, exam: str
) -> None:
    config = tiny(stage, f"model.exam={exam}", "train.epochs=8", "train.sequence_lr=3e-3")
    init = run / "joint" / "fold0"
    leaf = train_stage(config, stage, data=exams, fold=0, out=tmp_path / "r", init=init, progress=False)
    history = pd.read_csv(leaf / "history.csv")
    assert history["valid_weighted_log_loss"].isna().all()
    assert history["valid_exam_log_loss"].equals(history["valid_loss"])
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]
    start, after = Model.load(init, device="cpu").state_dict(), Model.load(leaf, device="cpu").state_dict()
    moved = {key.split(".")[0] for key in start if not torch.equal(start[key], after[key])}
    assert "sequence" in moved
    assert ("backbone" in moved) == (stage == "joint")
    index = Index.load(exams)
    scored = evaluate_fold(leaf, index)
    assert scored.metrics["weighted_log_loss"] is None  # a figure of slices
    assert set(scored.metrics["by_exam"]) == set(LABELS)
    best = history["valid_exam_log_loss"].min()
    table = predicted_exams(leaf, index)
    weights = np.tile(LABEL_WEIGHTS, len(table))
    truth, answer = table[list(TRUTH)].to_numpy().ravel(), table[list(LABELS)].to_numpy().ravel()
    assert log_loss(truth, answer.clip(1e-5, 1 - 1e-5), sample_weight=weights) == pytest.approx(best, abs=1e-5)


def predicted_exams(leaf: Path, index: Index) -> pd.DataFrame:
    model = Model.load(leaf, device="cpu")
    return predict_prepared(ModelEnsemble(model), index, index.validation_series(0)).exams


def test_slices_and_exams_each_count_where_they_are_known(prepared: Path, tmp_path: Path) -> None:
    index = Index.load(with_exam_labels(prepared, tmp_path / "set", with_slices=[1], without=[2]))
    config = tiny(
        "joint", "model.exam=attention", "train.aux_weight=0.5", "train.slice_weight=2", "train.exam_weight=3"
    )
    torch.manual_seed(0)
    model = Model.from_config(config.model)
    network = StageLoss(model, make_stage("joint", config)).eval()  # so that batch norm leaves it alone
    for numbers in ([0, 1, 2], [0], [2], [1]):
        batch = read_batch(index, [Item(i) for i in numbers])
        loss = network(batch)
        output = model(batch.hu, batch.lengths)
        weights = step_weights(batch.labels, batch.exam_labels)
        torch.testing.assert_close(loss.own, weighted_bce_sum(output.logits, batch.labels))
        assert output.exam_logits is not None
        torch.testing.assert_close(loss.exams, weighted_bce_sum(output.exam_logits, batch.exam_labels))
        by_hand = 2 * (loss.own + 0.5 * weighted_bce_sum(output.slice_logits, batch.labels)) / weights.slices
        by_hand = by_hand + 3 * loss.exams / weights.exams
        total, shown = network.stage.mean_loss(loss, weights)
        torch.testing.assert_close(total, by_hand)
        assert shown.isfinite()
        assert not shown.requires_grad
        model.zero_grad()
        total.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
        nothing = numbers == [2]
        assert (total.item() == 0) == nothing
        assert any(p.grad.any() for p in model.backbone.parameters()) == (not nothing)


def test_a_step_is_divided_by_what_it_knows() -> None:
    labels, exams = torch.full((5, 6), torch.nan), torch.zeros(2, 6)
    labels[0], exams[1] = 1, torch.nan
    assert step_weights(labels, exams) == (7, 7, 35)
    assert step_weights(labels[1:], exams[1:]) == (1, 1, 28)
    assert label_weight(exams) == sum(LABEL_WEIGHTS)


def test_a_part_of_a_series_knows_of_its_exam_only_what_it_has_not(prepared: Path) -> None:
    index = Index.load(prepared)
    bleeds = int(np.flatnonzero(index.exam_labels[:, -1] == 1)[0])
    whole, part = item_exam_labels(index, [Item(bleeds), Item(bleeds, 2, 3)])
    assert np.array_equal(whole, index.exam_labels[bleeds])
    assert np.array_equal(part, np.where(whole == 0, 0, np.nan), equal_nan=True)
    everything = item_exam_labels(index, [Item(bleeds, 0, int(index.lengths[bleeds]))])
    assert np.array_equal(everything[0], whole)
    assert item_exam_labels(index, []).shape == (0, 6)


def test_both_are_trained_validated_and_written(prepared: Path, tmp_path: Path) -> None:
    index = Index.load(prepared)
    config = tiny("joint", "model.exam=attention", "train.exam_weight=3")
    leaf = train_stage(config, "joint", data=prepared, fold=0, out=tmp_path / "r", progress=False)
    history = pd.read_csv(leaf / "history.csv")
    mean = (history["valid_weighted_log_loss"] + 3 * history["valid_exam_log_loss"]) / 4
    assert np.allclose(history["valid_loss"], mean)
    scored = evaluate_fold(leaf, index)
    table, metrics = scored.slices, scored.metrics
    assert metrics["weighted_log_loss"] == pytest.approx(history["valid_weighted_log_loss"][mean.argmin()], abs=1e-6)
    written = read_exams(leaf / "exams.parquet")
    pd.testing.assert_frame_equal(written, predicted_exams(leaf, index), check_dtype=False)
    highest = table.groupby("series_uid", sort=False)["any"].max().to_numpy()
    assert not np.allclose(written["any"], highest)  # the head's own answer
    prior = json.loads((leaf / "run.json").read_text())["exam_prevalence"]
    assert np.allclose(prior, index.exam_prevalence(index.training_series(0)))


def test_series_of_which_nothing_is_known_are_not_read(prepared: Path, tmp_path: Path) -> None:
    data = with_exam_labels(prepared, tmp_path / "set", without=[0, 1, 2, 3])
    index = Index.load(data)
    config = tiny("joint", "model.exam=pooled", "train.epochs=1")
    leaf = train_stage(config, "joint", data=data, fold=0, out=tmp_path / "r", progress=False)
    known = [i for i in index.training_series(0) if i > 3]
    assert pd.read_csv(leaf / "history.csv")["slices"][0] == index.lengths[known].sum()


@pytest.mark.parametrize("stage", ["slice", "joint"])
def test_without_an_exam_head_series_with_labels_of_exams_alone_are_not_read(
    prepared: Path, tmp_path: Path, stage: str
) -> None:
    labelled = Index.load(prepared).training_series(0)[2:5]
    data = with_exam_labels(prepared, tmp_path / "set", with_slices=labelled.tolist())
    config = tiny(stage, "train.epochs=1")
    leaf = train_stage(config, stage, data=data, fold=0, out=tmp_path / "r", progress=False)
    assert pd.read_csv(leaf / "history.csv")["slices"][0] == Index.load(data).lengths[labelled].sum()


def test_training_stops_when_it_gets_no_better(prepared: Path, tmp_path: Path) -> None:
    settings = ("train.patience=2", "train.epochs=30", "train.backbone_lr=0.05", "train.sequence_lr=0.05")
    config = tiny("joint", *settings, "model.exam=pooled")
    leaf = train_stage(config, "joint", data=prepared, fold=0, out=tmp_path / "r", progress=False)
    history = pd.read_csv(leaf / "history.csv")
    assert len(history) < 30
    assert len(history) - 1 - history["valid_loss"].argmin() == 2
    assert json.loads((leaf / "run.json").read_text())["finished"]
    assert "no better for 2 epochs: stopped" in (leaf / "log.txt").read_text()
    again = train_stage(config, "joint", data=prepared, fold=0, out=tmp_path / "r", resume=True, progress=False)
    assert len(pd.read_csv(again / "history.csv")) == len(history)


def test_the_best_epoch_is_chosen_by_what_is_trained() -> None:
    train = tiny("joint", "train.slice_weight=1", "train.exam_weight=3").train
    assert Validated(0.4, None).figure(train) == 0.4
    assert Validated(None, 0.2).figure(train) == 0.2
    assert Validated(0.4, 0.2).figure(train) == pytest.approx(0.25)
    assert Validated(None, None).figure(train) is None
    assert Validated(0.4, 0.2).figure(tiny("joint", "train.slice_weight=0").train) == 0.2
    assert Validated(0.4, None).figure(tiny("joint", "train.slice_weight=0").train) == 0.4


@pytest.mark.parametrize(
    ("stage", "settings", "error", "message"),
    [
        ("joint", (), DataError, r"labels of exams alone outside fold 0; set model\.exam"),
        (
            "slice",
            ("model.exam=pooled",),
            DataError,
            "labels of exams alone outside fold 0; .* the frozen or the joint",
        ),
        ("joint", ("model.exam=attention", "train.exam_weight=0"), ConfigError, "it would stay untrained"),
        ("joint", ("train.slice_weight=0",), ConfigError, "so nothing is; set model.exam"),
        (
            "joint",
            ("model.exam=max", "train.fit_share=true"),
            ConfigError,
            "wants labels of slices, and fold 0 has none",
        ),
        ("joint", ("model.exam=max", "train.window=8"), ConfigError, "a part need not show what its exam bleeds"),
        ("joint", ("model.exam=max", "train.short_scans=0.1"), ConfigError, "train.short_scans reads parts of series"),
        ("frozen", ("model.sequence=none", "model.exam=max"), ConfigError, "model.exam max has no weights"),
    ],
)
def test_what_cannot_be_trained_is_refused(
    exams: Path, prepared: Path, tmp_path: Path, stage: str, settings: tuple[str, ...], error: type, message: str
) -> None:
    data = prepared if error is ConfigError and "fit_share" not in str(settings) else exams
    with pytest.raises(error, match=message):
        train_stage(tiny(stage, *settings), stage, data=data, fold=0, out=tmp_path / "r", progress=False)
    assert not (tmp_path / "r").exists()
