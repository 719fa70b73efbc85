"""What the start answers: computed once, kept in the leaf, and what holds the slices near it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny
from exam_sets import with_exam_labels
from safetensors.torch import load_file

from ichseq.data.index import Index
from ichseq.errors import ConfigError, RunError
from ichseq.inference.model_ensemble import ModelEnsemble
from ichseq.inference.predict import predict_prepared
from ichseq.labels import LABELS
from ichseq.model import Model
from ichseq.runs.folders import leaf_of
from ichseq.training.keep import given_exams
from ichseq.training.train import start_training, train_stage

EXAMS = ("model.exam=pooled", "train.exam_weight=1", "train.warmup_steps=0")


def probabilities(leaf: Path, index: Index, series: np.ndarray) -> np.ndarray:
    table = predict_prepared(ModelEnsemble(Model.load(leaf, device="cpu")), index, series).slices
    return table[list(LABELS)].to_numpy()


@pytest.mark.parametrize(("stage", "first"), [("joint", "joint"), ("frozen", "slice")])
def test_the_start_is_asked_once_and_a_resumed_run_reads_what_it_said(
    prepared: Path, tmp_path: Path, stage: str, first: str
) -> None:
    index = Index.load(with_exam_labels(prepared, tmp_path / "exams"))
    start = train_stage(tiny(first, "train.epochs=1"), first, data=prepared, fold=0, out=tmp_path / "s", progress=False)
    config, leaf = tiny(stage, *EXAMS, "train.keep_weight=1"), leaf_of(tmp_path / "r", stage, 0)
    training = start_training(config, stage, index, 0, leaf, init=start)
    training.run()
    kept = load_file(leaf / "last" / "start.safetensors")["probabilities"].numpy()
    trained_on = index.training_series(0)
    expected = probabilities(start, index, trained_on)
    assert np.allclose(kept[index.slice_rows(trained_on)], expected, atol=1e-5)
    assert np.isnan(kept[index.slice_rows(index.validation_series(0))]).all()
    again = start_training(config, stage, index, 0, leaf, resume=True)
    again.read_ahead()
    assert again._start is not None
    assert np.array_equal(again._start.numpy(), kept, equal_nan=True)
    (leaf / "last" / "start.safetensors").unlink()
    with pytest.raises(RunError, match=r"start\.safetensors: the start's answers are gone"):
        start_training(config, stage, index, 0, leaf, resume=True).read_ahead()


def test_it_holds_the_slices_near_the_start(prepared: Path, tmp_path: Path) -> None:
    data = with_exam_labels(prepared, tmp_path / "exams")
    index = Index.load(data)
    start = train_stage(tiny("joint"), "joint", data=prepared, fold=0, out=tmp_path / "s", progress=False)
    before, moved = probabilities(start, index, index.training_series(0)), []
    for weight in (0, 100):
        config = tiny("joint", *EXAMS, f"train.keep_weight={weight}", "train.epochs=3")
        out = tmp_path / f"r{weight}"
        leaf = train_stage(config, "joint", data=data, fold=0, out=out, init=start, progress=False)
        moved.append(np.abs(probabilities(leaf, index, index.training_series(0)) - before).mean())
    assert moved[1] < 0.5 * moved[0]


def test_what_exams_say_of_the_answers_for_their_slices(prepared: Path, tmp_path: Path) -> None:
    index = Index.load(with_exam_labels(prepared, tmp_path / "exams", without=[2]))
    answers = torch.rand((index.n_slices, len(LABELS)), generator=torch.Generator().manual_seed(0)) * 0.2
    given = given_exams(answers, index)
    for i in range(index.n_series):
        rows = slice(index.offsets[i], index.offsets[i + 1])
        for k in range(len(LABELS)):
            before, after, label = answers[rows, k].double(), given[rows, k].double(), index.exam_labels[i, k]
            if i == 2:
                assert torch.equal(before, after)
            elif label == 0:
                assert not after.any()
            else:  # by hand, over all ways in which independent slices can be, less the one where none is positive
                assert torch.allclose(after, before / (1 - torch.prod(1 - before)), atol=1e-6)
                assert torch.equal(before.argsort(), after.argsort())
    sure = torch.zeros((index.n_slices, len(LABELS)))
    assert torch.isfinite(given_exams(sure, index)).all()
    assert torch.equal(given_exams(sure + 1, index)[index.slice_rows([2])], sure[index.slice_rows([2])] + 1)


def test_slices_are_held_near_what_exams_make_of_the_answers(prepared: Path, tmp_path: Path) -> None:
    data = with_exam_labels(prepared, tmp_path / "exams")
    index = Index.load(data)
    start = train_stage(tiny("joint"), "joint", data=prepared, fold=0, out=tmp_path / "s", progress=False)
    rows = index.slice_rows(index.training_series(0))
    before = torch.full((index.n_slices, len(LABELS)), torch.nan)
    before[rows] = torch.from_numpy(probabilities(start, index, index.training_series(0))).float()
    distance = []
    for keep in ("answers", "posterior"):
        config = tiny("joint", *EXAMS, "train.keep_weight=100", "train.epochs=6", f"train.keep={keep}")
        out = tmp_path / keep
        leaf = train_stage(config, "joint", data=data, fold=0, out=out, init=start, progress=False)
        after = torch.from_numpy(probabilities(leaf, index, index.training_series(0)))
        distance.append([(after - goal[rows]).abs().mean() for goal in (before, given_exams(before, index))])
    assert distance[0][0] < distance[1][0]
    assert distance[1][1] < distance[0][1]


def test_without_a_start_there_is_nothing_to_hold_on_to(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"train\.keep_weight holds answers near those of a start; give one with --init"
    ):
        train_stage(tiny("joint", "train.keep_weight=1"), "joint", data=prepared, fold=0, out=tmp_path / "r")
    assert not (tmp_path / "r").exists()
    assert torch.is_grad_enabled()
