"""Several models as one: the mean over models and views, and no slice read twice by one backbone."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from conftest import tiny

from ichseq import Model
from ichseq.cli import main
from ichseq.data.index import Index
from ichseq.errors import ConfigError, RunError
from ichseq.evaluation.evaluate import evaluate_fold
from ichseq.inference.model_ensemble import ModelEnsemble
from ichseq.inference.predict import predict_prepared
from ichseq.labels import LABELS
from ichseq.runs.folders import leaf_of
from ichseq.training.train import train_stage

LENGTHS = torch.tensor([4, 6])


def make(seed: int = 0, **settings: object) -> Model:
    torch.manual_seed(seed)
    return Model("test_resnet", image_size=32, hidden_size=8, **settings)


@pytest.fixture(scope="module")
def hu() -> torch.Tensor:
    return (torch.randn(10, 40, 40, generator=torch.Generator().manual_seed(3)) * 200).to(torch.int16)


def answers(ensemble: ModelEnsemble, hu: torch.Tensor) -> np.ndarray:
    return ensemble.answers(ensemble.embed(hu, LENGTHS), LENGTHS, None).slices


def test_the_mean_over_models_and_views(hu: torch.Tensor) -> None:
    one, other = make(1, crop="none"), make(2, crop="none")
    turned = [hu, hu.flip(2), hu.transpose(1, 2)]
    by_hand = np.mean([answers(ModelEnsemble(model), view) for model in (one, other) for view in turned], axis=0)
    assert np.allclose(answers(ModelEnsemble([one, other], ["flip", "transpose"]), hu), by_hand, atol=1e-5)
    assert not np.allclose(answers(ModelEnsemble([one, other]), hu), by_hand, atol=1e-3)
    with torch.no_grad():
        assert np.allclose(answers(ModelEnsemble(one), hu), torch.sigmoid(one.eval()(hu, LENGTHS).logits), atol=1e-6)


def test_an_answer_that_is_no_number_is_an_error_that_names_the_series(hu: torch.Tensor, prepared: Path) -> None:
    sound, broken = make(1), make(1)
    with torch.no_grad():
        next(broken.slice_head.parameters()).fill_(torch.inf)
        next(broken.sequence.parameters()).fill_(torch.nan)
    for models in (broken, [sound, broken]):
        with pytest.raises(RunError, match="a series: the network's answers are no finite numbers"):
            answers(ModelEnsemble(models), hu)
        with pytest.raises(RunError, match=r"\.b2nd: the network's answers are no finite numbers"):
            predict_prepared(ModelEnsemble(models), Index.load(prepared), np.array([0]))


def test_which_weights_answer_stands_with_every_exam(prepared: Path, tmp_path: Path) -> None:
    for seed in (1, 2):
        make(seed).save(tmp_path / str(seed))
    ensemble = ModelEnsemble.load([tmp_path / "1", tmp_path / "2", tmp_path / "1"])
    files = [(tmp_path / name / "weights.safetensors").read_bytes() for name in "12"]
    assert ensemble.hashes == [hashlib.sha256(file).hexdigest() for file in files]
    exams = predict_prepared(ensemble, Index.load(prepared), np.array([0, 1])).exams
    assert list(exams["weights"]) == ["+".join(one[:16] for one in ensemble.hashes)] * 2
    assert ModelEnsemble(make(1)).weights == "unsaved"


def test_a_models_views_are_averaged_before_the_sequence_part(hu: torch.Tensor) -> None:
    plain, averaging = make(1, crop="none"), make(1, crop="none", views=["flip", "transpose"])
    with torch.no_grad():
        views = [plain.eval().embed(view, LENGTHS) for view in (hu, hu.flip(2), hu.transpose(1, 2))]
        assert torch.allclose(averaging.eval().embed(hu, LENGTHS), sum(views) / 3, atol=1e-5)
        frozen = make(1, crop="none", views=["flip"], freeze_bn=True).train()
        assert torch.allclose(frozen.embed(hu, LENGTHS), plain.embed(hu, LENGTHS), atol=1e-5)  # training reads it once


def test_a_backbone_that_models_share_reads_a_slice_once(hu: torch.Tensor) -> None:
    one, other = make(1), make(1)
    with torch.no_grad():
        other.sequence.head.bias += 1
    third = make(2)
    ensemble = ModelEnsemble([one, third, other])
    parts = [answers(ModelEnsemble(model), hu) for model in (one, third, other)]
    for model in (one, other, third):
        model.backbone_slices = 0
    assert np.allclose(answers(ensemble, hu), np.mean(parts, axis=0), atol=1e-6)
    assert (one.backbone_slices, third.backbone_slices, other.backbone_slices) == (10, 10, 0)
    windowed = make(1, window_first=True)
    assert len(ModelEnsemble([one, windowed]).embed(hu, LENGTHS)) == 2  # the same weights, but another view of a slice


def test_an_exams_answer_is_the_mean_over_heads_and_highest_slices(hu: torch.Tensor) -> None:
    one, other = make(1, crop="none", exam="pooled"), make(2, crop="none")

    def exams(*models: Model) -> np.ndarray | None:
        ensemble = ModelEnsemble(models)
        return ensemble.answers(ensemble.embed(hu, LENGTHS), LENGTHS, None).exams

    assert exams(other) is None
    with torch.no_grad():
        output, slices = one.eval()(hu, LENGTHS), other.eval()(hu, LENGTHS).logits.sigmoid()
    assert output.exam_logits is not None
    own = output.exam_logits.sigmoid()
    highest = torch.stack([series.amax(0) for series in slices.split(LENGTHS.tolist())])
    assert np.allclose(exams(one), own, atol=1e-6)
    assert np.allclose(exams(one, other), (own + highest) / 2, atol=1e-6)
    one.trained_on = {"answers_with": "slice_head"}  # its head is as it was drawn
    assert exams(one, other) is None


def test_an_unknown_view_is_named() -> None:
    with pytest.raises(ConfigError, match="--tta: no view 'mirror'; there are flip, transpose"):
        ModelEnsemble(make(), ["mirror"])
    with pytest.raises(ConfigError, match=r"model\.views has 'mirror'; choose one of flip, transpose"):
        make(views=["mirror"])


def test_a_bag_is_the_mean_over_the_last_epochs(prepared: Path, tmp_path: Path) -> None:
    config = tiny("joint", "train.epochs=3", "train.keep_epochs=2")
    leaf = train_stage(config, "joint", data=prepared, fold=0, out=tmp_path / "run", progress=False)
    index = Index.load(prepared)
    kept = sorted((leaf / "epochs").iterdir())
    assert [path.name for path in kept] == ["epoch-002", "epoch-003"]
    series = index.validation_series(0)
    parts = [predict_prepared(ModelEnsemble(Model.load(path)), index, series).slices for path in kept]
    scored = evaluate_fold(leaf, index, bag=2)
    table, metrics = scored.slices, scored.metrics
    assert np.allclose(table[list(LABELS)], np.mean([part[list(LABELS)] for part in parts], axis=0), atol=1e-6)
    assert (metrics["bag"], metrics["tta"]) == (2, [])
    command = ["evaluate", "--data", str(prepared), "--run", str(tmp_path / "run")]
    result = CliRunner().invoke(main, [*command, "--bag", "3", "--tta", "flip"])
    assert result.exit_code == 1
    assert "a bag of 3 epochs was asked for, and the weights of 2 are kept" in result.stderr
    assert CliRunner().invoke(main, [*command, "--bag", "2", "--tta", "flip"]).exit_code == 0


def test_several_runs_are_asked_together(phantoms: Path, run: Path, run_copy: Path, tmp_path: Path) -> None:
    out = tmp_path / "together.csv"
    command = ["predict", str(phantoms / "stage_2_test"), "--run", str(run), "--run", str(run_copy), "-o", str(out)]
    assert CliRunner().invoke(main, [*command, "--tta", "flip"]).exit_code == 0
    alone = tmp_path / "alone.csv"
    command = ["predict", str(phantoms / "stage_2_test"), "--run", str(run), "-o", str(alone), "--tta", "flip"]
    assert CliRunner().invoke(main, command).exit_code == 0
    pd.testing.assert_frame_equal(pd.read_csv(out), pd.read_csv(alone), atol=1e-6)


def test_the_distances_learned_are_those_of_all_models_that_know_theirs(run: Path) -> None:
    model = Model.load(leaf_of(run, "joint", 0))
    low, high = ModelEnsemble(model).learned_mm or (0, 0)
    assert 1 < low < high < 10
    other, bare = (Model("test_resnet", image_size=32, hidden_size=8) for _ in range(2))
    assert ModelEnsemble(bare).learned_mm is None
    other.trained_on = {"slice_distance_mm": [0.5, 1.0]}
    assert ModelEnsemble([model, other, bare]).learned_mm == (0.5, high)
