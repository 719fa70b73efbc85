"""The experiment files: every one loads, builds its network, and trains a step of each of its stages."""

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ichseq import Model
from ichseq.config import Config
from ichseq.data.index import Index
from ichseq.experiment.quick import QUICK
from ichseq.experiment.spec import Spec, load_spec
from ichseq.training.train import start_training

FOLDER = Path(__file__).parents[1] / "experiments"
FILES = sorted(path for path in FOLDER.glob("*.yaml") if path.name != QUICK)
ROWS = [f"row{number:02d}" for number in range(1, 27)]
FEATURES = {"row25": (1024,), "row26": (512,)}


def every(spec: Spec) -> list[Spec]:
    return spec.parts or [spec]


def test_every_file_below_can_be_carried_out() -> None:
    paths = [
        path for path in FOLDER.rglob("*.yaml") if path.name != QUICK and "base" not in (path.stem, path.parent.name)
    ]
    assert len(paths) > len(FILES)
    for path in paths:
        spec = load_spec(path)
        assert [spec.config(stage) for stage in spec.plan.stages] or spec.parts, path


def test_every_published_row_has_a_file() -> None:
    names = {path.stem for path in FILES}
    assert set(ROWS) <= names
    assert {"stage2", "end_to_end_10", "crop_none", "mixup", "no_transpose", "position", "negatives"} <= names


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_its_network_is_built_in_its_own_size(path: Path) -> None:
    for spec in every(load_spec(path)):
        for stage in spec.plan.stages:
            settings = dataclasses.asdict(spec.config(stage).model) | {"pretrained": False}
            with torch.device("meta"):  # shapes without memory
                model = Model(**settings)
            assert model.features in FEATURES.get(path.stem, (1280, 2048))


TRAINED = {"slice": {"backbone", "slice_head"}, "frozen": {"sequence"}, "joint": {"backbone", "sequence"}}
stepped: list[tuple[str, Config]] = []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_trains_a_step_of_each_stage(path: Path, prepared: Path, prepared_wide: Path, tmp_path: Path) -> None:
    for spec in every(load_spec(path, quick=True, folds=[0])):
        start = None
        data = prepared_wide if "bone" in spec.config(spec.plan.stages[0]).model.windows else prepared
        for stage in spec.plan.stages:
            config = spec.config(stage)
            train = dataclasses.replace(config.train, warmup_steps=0)
            config = dataclasses.replace(config, model=dataclasses.replace(config.model, image_size=32), train=train)
            if (stage, config) in stepped and stage == spec.plan.stages[-1]:
                continue  # another file asks for the same
            start = step(config, stage, data, tmp_path / spec.name / stage, start)
            stepped.append((stage, config))


def step(config: Config, stage: str, data: Path, leaf: Path, start: Path | None) -> Path:
    """One step, and the weights that it leads to."""
    training = start_training(config, stage, Index.load(data), 0, leaf, init=start)
    model, steps = training.setup.model, training.setup.plan(0)[:1]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    batches = training.batches(training.read_ahead().training(0), steps)
    training.begin_epoch()
    training.step(steps[0], batches)
    training.save()
    model.save(leaf)
    after = load_file(leaf / "weights.safetensors")
    moved = {name.split(".")[0] for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert moved >= TRAINED[stage]
    return leaf
