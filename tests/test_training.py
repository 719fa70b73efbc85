"""Training: an interrupted run goes on to the weights of an uninterrupted one; what must not be started is refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TINY, tiny
from resealed import edit
from safetensors.torch import load_file

from ichseq import Model
from ichseq.config import load_config
from ichseq.data.batches import item_lengths
from ichseq.data.index import Index
from ichseq.data.prepare import prepare
from ichseq.errors import ConfigError, DataError, RunError, Stopped
from ichseq.evaluation.evaluate import evaluate_fold
from ichseq.runs.folders import leaf_of
from ichseq.training.loop import Training
from ichseq.training.start import build_model
from ichseq.training.stopping import StopRequest
from ichseq.training.train import start_training, train_stage
from ichseq.windows import BONE_RANGE


def last_weights(leaf: Path) -> dict[str, torch.Tensor]:
    return load_file(sorted((leaf / "last").glob("step-*"))[-1] / "state.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_a_run_leaves_what_it_should(run: Path) -> None:
    leaf = leaf_of(run, "joint", 0)
    names = {path.name for path in leaf.iterdir()}
    files = {"config.yaml", "weights.safetensors", "model.json", "last", "history.csv", "run.json", "salt", "log.txt"}
    assert names == files
    history = pd.read_csv(leaf / "history.csv")
    assert history["epoch"].tolist() == [1, 2]
    assert history["step"].tolist() == [4, 8]  # 8 patients, 2 a step
    assert np.isfinite(history[["train_loss", "valid_loss"]].to_numpy()).all()
    content = json.loads((leaf / "run.json").read_text())
    assert content["finished"] is True
    assert len(content["patients"]) == 8
    assert content["phantom"] is True
    assert Model.load(leaf).trained_on["phantom"] is True


@pytest.mark.parametrize("extra", [("train.window=0",), ("train.window=3",), ("train.window=3", "model.neighbours=1")])
def test_memory_is_planned_for_the_largest_batch_that_comes(
    prepared: Path, tmp_path: Path, extra: tuple[str, ...]
) -> None:
    index = Index.load(prepared)
    setup = start_training(tiny("joint", *extra), "joint", index, 0, tmp_path / "x").setup
    batches = [items for epoch in range(30) for step in setup.plan(epoch) for process in step for items in process]
    largest = setup.stage.largest_batch(index, setup.training_series)
    assert largest.slices == max(sum(item_lengths(index, items)) for items in batches)


class InTheFirstStep(StopRequest):
    """SIGTERM, which comes in the first step; that is finished and saved."""

    training: Training | None = None

    @property
    def code(self) -> int:  # type: ignore[override]
        return 143 if self.training is not None and self.training.position.step else 0


@pytest.mark.parametrize(
    "extra",
    [
        ("model.dropout=0.3", "train.ema=0.5"),
        ("train.accumulate=2", "train.workers=0"),
        ("train.gradient_share=0.3", "train.window=7"),
    ],
)
def test_interrupted_in_an_epoch_and_resumed_equals_uninterrupted(
    prepared: Path, tmp_path: Path, extra: tuple[str, ...]
) -> None:
    config = tiny("joint", *extra)
    whole = train_stage(config, "joint", data=prepared, fold=1, out=tmp_path / "whole", progress=False)
    leaf = leaf_of(tmp_path / "broken", "joint", 1)
    training = start_training(config, "joint", Index.load(prepared), 1, leaf, request=(request := InTheFirstStep()))
    request.training = training
    with pytest.raises(Stopped, match="go on with --resume"):
        training.run()
    assert training.position.step == 1
    train_stage(config, "joint", data=prepared, fold=1, out=tmp_path / "broken", resume=True, progress=False)
    assert same(last_weights(whole), last_weights(leaf))
    columns = ["epoch", "step", "train_loss", "valid_loss", "learning_rate_backbone"]
    one, other = pd.read_csv(whole / "history.csv")[columns], pd.read_csv(leaf / "history.csv")[columns]
    pd.testing.assert_frame_equal(one, other)


def test_a_state_that_is_put_back_leads_to_the_same_steps(prepared: Path, tmp_path: Path) -> None:
    extra = ("model.dropout=0.3", "train.ema=0.5", "train.gradient_share=0.5")
    config, index = tiny("joint", *extra), Index.load(prepared)
    one, two = (start_training(config, "joint", index, 0, tmp_path / name) for name in ("one", "two"))
    steps = one.setup.plan(0)[:4]

    def go(training: Training, first: int, stop: int) -> None:
        batches = training.batches(training.read_ahead().training(0), steps[first:stop])
        training.begin_epoch()
        for step in steps[first:stop]:
            training.step(step, batches)
        training.read_losses()

    go(one, 0, 2)
    tensors, state = one.state_dict()
    two.load_state_dict({name: tensor.clone() for name, tensor in tensors.items()}, json.loads(json.dumps(state)))
    go(one, 2, 4)
    go(two, 2, 4)
    assert same(one.state_dict()[0], two.state_dict()[0])
    assert one.position.step == two.position.step == 4
    assert one.position.epoch_loss == two.position.epoch_loss > 0


def test_killed_and_resumed_equals_uninterrupted(prepared: Path, tmp_path: Path) -> None:
    settings = [*TINY, "train.checkpoint_every=1", "train.epochs=4"]
    config = load_config("joint", None, settings)
    whole = train_stage(config, "joint", data=prepared, fold=0, out=tmp_path / "whole", progress=False)
    code = (
        "import sys, torch; torch.set_num_threads(1)\n"
        "from pathlib import Path; from ichseq.config import load_config\n"
        "from ichseq.training.train import train_stage\n"
        f"train_stage(load_config('joint', None, {settings!r}), 'joint', data=Path({str(prepared)!r}), fold=0,"
        f" out=Path({str(tmp_path / 'killed')!r}), progress=False)"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    last = leaf_of(tmp_path / "killed", "joint", 0) / "last"
    deadline = time.monotonic() + 120
    while not (last / "step-00000002").is_dir() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    leaf = train_stage(config, "joint", data=prepared, fold=0, out=tmp_path / "killed", resume=True, progress=False)
    assert same(last_weights(whole), last_weights(leaf))


def test_threads_change_nothing(prepared: Path, run: Path, tmp_path: Path) -> None:
    config = tiny("joint", "train.workers=3")
    leaf = train_stage(config, "joint", data=prepared, fold=0, out=tmp_path / "r", progress=False)
    assert same(last_weights(leaf), last_weights(leaf_of(run, "joint", 0)))


def test_a_truncated_checkpoint_falls_back_to_the_one_before(prepared: Path, run: Path, run_copy: Path) -> None:
    leaf = leaf_of(run_copy, "joint", 0)
    newest = sorted((leaf / "last").glob("step-*"))[-1] / "state.safetensors"
    newest.write_bytes(newest.read_bytes()[:1000])
    train_stage(tiny(), "joint", data=prepared, fold=0, out=run_copy, resume=True, progress=False)
    assert "going back to the checkpoint before it" in (leaf / "log.txt").read_text()
    assert same(last_weights(leaf), last_weights(leaf_of(run, "joint", 0)))


def test_what_the_weights_have_seen_is_not_forgotten_when_resumed(prepared: Path, run: Path, tmp_path: Path) -> None:
    start = Path(shutil.copytree(leaf_of(run, "joint", 0), tmp_path / "start"))
    real = Path(shutil.copytree(prepared, tmp_path / "set"))
    assert json.loads((real / "index.json").read_text())["phantom"] is True
    edit(real / "index.json", phantom=False)
    for out, pretrained, init in (("by init", "false", start), ("by file", f"{start}/weights.safetensors", None)):
        config = tiny("joint", f"model.pretrained={pretrained}")
        leaf = train_stage(config, "joint", data=real, fold=0, out=tmp_path / out, init=init, progress=False)
        assert Model.load(leaf).trained_on["phantom"] is True
        shutil.rmtree(sorted((leaf / "last").glob("step-*"))[-1])
        (leaf / "model.json").unlink()
        (leaf / "history.csv").unlink()
        train_stage(config, "joint", data=real, fold=0, out=tmp_path / out, resume=True, progress=False)
        assert json.loads((leaf / "run.json").read_text())["phantom"] is False
        assert Model.load(leaf).trained_on["phantom"] is True


def test_a_file_of_weights_that_a_start_replaces_leaves_no_mark(prepared: Path, run: Path, tmp_path: Path) -> None:
    real = Path(shutil.copytree(prepared, tmp_path / "set"))
    edit(real / "index.json", phantom=False)
    leaf = leaf_of(run, "joint", 0)
    config = tiny("joint", f"model.pretrained={leaf}/weights.safetensors")
    assert build_model(config, "joint", Index.load(real), 0).trained_on["phantom"] is True
    assert build_model(config, "joint", Index.load(real), 0, init=leaf).trained_on["phantom"] is False


def test_slice_then_frozen_then_joint(prepared: Path, tmp_path: Path) -> None:
    out = tmp_path / "stages"
    first = train_stage(tiny("slice", "train.epochs=1"), "slice", data=prepared, fold=0, out=out, progress=False)
    second = train_stage(tiny("frozen"), "frozen", data=prepared, fold=0, out=out, init=first, progress=False)
    one, two = Model.load(first).state_dict(), Model.load(second).state_dict()
    assert all(torch.equal(one[key], two[key]) for key in one if key.startswith("backbone."))
    assert not torch.equal(one["sequence.head.weight"], two["sequence.head.weight"])
    third = train_stage(tiny("joint"), "joint", data=prepared, fold=0, out=out, init=second, progress=False)
    three = Model.load(third)
    assert three.config.freeze_bn is True  # auto: it starts from trained weights
    means = [key for key in two if key.endswith("running_mean")]
    assert all(torch.equal(two[key], three.state_dict()[key]) for key in means)
    assert any(not torch.equal(two[key], tensor) for key, tensor in three.state_dict().items())


def test_slice_then_frozen_then_joint_with_neighbours(prepared: Path, tmp_path: Path) -> None:
    """The first start knows none."""
    out, plain = tmp_path / "neighbours", tmp_path / "plain"
    start = train_stage(tiny("slice", "train.epochs=1"), "slice", data=prepared, fold=0, out=plain, progress=False)
    for stage in ("slice", "frozen", "joint"):
        config = tiny(stage, "train.epochs=1", "model.neighbours=1")
        start = train_stage(config, stage, data=prepared, fold=0, out=out, init=start, progress=False)
        assert ("extended to 9 channels" in (start / "log.txt").read_text()) == (stage == "slice")
        assert Model.load(start).config.neighbours == 1
    assert np.isfinite(pd.read_csv(start / "history.csv")["valid_loss"]).all()
    with pytest.raises(RunError, match=r"its model.neighbours is 1, this run's 0"):
        train_stage(tiny("joint"), "joint", data=prepared, fold=0, out=tmp_path / "r", init=start, progress=False)


def test_weights_that_saw_the_fold_are_refused(prepared: Path, run: Path, tmp_path: Path) -> None:
    leaf = leaf_of(run, "joint", 0)
    with pytest.raises(RunError, match="trained on 2 of the 2 patients"):
        train_stage(tiny(), "joint", data=prepared, fold=1, out=tmp_path / "r", init=leaf, progress=False)
    config = tiny("joint", f"model.pretrained={leaf / 'weights.safetensors'}")
    with pytest.raises(RunError, match="trained on 2 of the 2 patients"):
        train_stage(config, "joint", data=prepared, fold=1, out=tmp_path / "r2", progress=False)


def test_refusals(prepared: Path, run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is a run here already"):
        train_stage(tiny(), "joint", data=prepared, fold=0, out=run, progress=False)
    with pytest.raises(RunError, match="nothing to resume"):
        train_stage(tiny(), "joint", data=prepared, fold=0, out=tmp_path / "none", resume=True, progress=False)
    config = tiny("joint", "model.hidden_size=16")
    with pytest.raises(RunError, match=r"model.hidden_size was 8 and is now 16"):
        train_stage(config, "joint", data=prepared, fold=0, out=run, resume=True, progress=False)
    with pytest.raises(ConfigError, match="fp16, which needs a GPU"):
        train_stage(
            tiny("joint", "train.precision=fp16"), "joint", data=prepared, fold=0, out=tmp_path / "r", progress=False
        )
    with pytest.raises(ConfigError, match="fold 7"):
        train_stage(tiny(), "joint", data=prepared, fold=7, out=tmp_path / "r", progress=False)
    with pytest.raises(DataError):
        train_stage(tiny(), "joint", data=tmp_path / "nothing", fold=0, out=tmp_path / "r", progress=False)


def test_bone_is_trained_on_in_a_set_that_keeps_it_and_refused_in_another(
    prepared: Path, phantoms: Path, tmp_path: Path
) -> None:
    bone = ("model.windows=[brain, bone]", "model.normalise=false", "train.epochs=1")
    for stage in ("slice", "joint"):
        with pytest.raises(ConfigError, match=r"keeps -200 to 823 HU, and model\.windows has bone, -800 to 2000 HU"):
            train_stage(tiny(stage, *bone), stage, data=prepared, fold=0, out=tmp_path / "no", progress=False)
    assert not (tmp_path / "no").exists()
    wide = prepare(phantoms, tmp_path / "wide", workers=1, hu_range=BONE_RANGE).index.folder
    start = None
    for stage in ("slice", "frozen"):
        config = tiny(stage, *bone)
        start = train_stage(config, stage, data=wide, fold=0, out=tmp_path / "r", init=start, progress=False)
    assert start is not None
    metrics = evaluate_fold(start, Index.load(wide)).metrics
    best = pd.read_csv(start / "history.csv")["valid_weighted_log_loss"].min()
    assert metrics["weighted_log_loss"] == pytest.approx(best, abs=1e-6)
    with pytest.raises(ConfigError, match=f"{prepared}: keeps -200 to 823 HU"):
        evaluate_fold(start, Index.load(prepared))


def test_a_loss_not_finite_stops_and_keeps_the_last_checkpoint(prepared: Path, tmp_path: Path) -> None:
    config = tiny("joint", "train.backbone_lr=1e30", "train.clip_norm=null", "train.warmup_steps=0")
    with pytest.raises(RunError, match=r"the loss is (nan|inf) on the series .*\.b2nd"):
        train_stage(config, "joint", data=prepared, fold=0, out=tmp_path / "r", progress=False)
    state = last_weights(leaf_of(tmp_path / "r", "joint", 0))
    assert all(tensor.isfinite().all() for tensor in state.values() if tensor.is_floating_point())


def test_a_damaged_store_file_is_named(prepared: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(prepared, tmp_path / "set"))
    index = Index.load(broken)
    path = index.store_path(int(index.training_series(0)[0]))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=path.name):
        train_stage(tiny(), "joint", data=broken, fold=0, out=tmp_path / "r", progress=False)


def test_runs_of_different_precision_follow_each_other(prepared: Path, tmp_path: Path) -> None:
    for number, precision in enumerate(("no", "bf16", "no")):
        config = tiny("slice", f"train.precision={precision}", "train.epochs=1")
        leaf = train_stage(config, "slice", data=prepared, fold=0, out=tmp_path / str(number), progress=False)
        assert np.isfinite(pd.read_csv(leaf / "history.csv")["train_loss"]).all()


def test_a_run_that_ended_before_its_first_checkpoint_is_begun_anew(prepared: Path, tmp_path: Path) -> None:
    leaf = leaf_of(tmp_path / "r", "slice", 0)
    (leaf / "last" / ".step-00000000.part").mkdir(parents=True)
    (leaf / "run.json").write_text("{}")
    (leaf / "config.yaml").write_text("")
    train_stage(tiny("slice", "train.epochs=1"), "slice", data=prepared, fold=0, out=tmp_path / "r", progress=False)
    assert json.loads((leaf / "run.json").read_text())["finished"] is True
    other = leaf_of(tmp_path / "r", "slice", 1)
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="holds files that are no run's"):
        train_stage(tiny("slice"), "slice", data=prepared, fold=1, out=tmp_path / "r", progress=False)
    assert [path.name for path in other.iterdir()] == ["notes.txt"]


def test_a_first_checkpoint_that_cannot_be_written_leaves_nothing(prepared: Path, tmp_path: Path) -> None:
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from conftest import tiny; from ichseq.training.train import train_stage; from ichseq.errors import RunError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # as a full disk: a file can't grow further\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"try: train_stage(tiny(), 'joint', data=Path({str(prepared)!r}), fold=0, out=Path({str(tmp_path / 'r')!r}),"
        " progress=False)\n"
        "except RunError as error: print(error)"
    )
    folder = str(Path(__file__).parent)
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=200)
    assert "the checkpoint can't be written" in done.stdout, done.stderr
    assert not (tmp_path / "r").exists()


def test_a_model_that_cannot_be_made_leaves_no_folder(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no_such_net"):
        train_stage(
            tiny("joint", "model.backbone=no_such_net"),
            "joint",
            data=prepared,
            fold=0,
            out=tmp_path / "r",
            progress=False,
        )
    assert not any(tmp_path.iterdir())
