"""The library in Python: a few names, each with an example that runs, and the same answers as the commands."""

import doctest
import importlib
import rlcompleter
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner
from conftest import tiny, tiny_sections
from dicom_files import ct_dataset, dicom_bytes

import ichseq
from ichseq.api import Fold, Stage, as_fold, predict_scans
from ichseq.cli import main
from ichseq.config import STAGES
from ichseq.errors import ConfigError, DataError, RunError, ScanError
from ichseq.labels import LABELS
from ichseq.model import Model
from ichseq.runs.folders import leaf_of

NAMES = ["Model", "Series", "add_network", "calibrate", "evaluate", "export", "heatmap", "load_series", "predict",
         "prepare", "publish", "report", "train"]  # fmt: skip


def test_completion_shows_the_public_names() -> None:
    public = [name for name in dir(ichseq) if not name.startswith("_")]
    assert public == NAMES
    assert "__version__" in dir(ichseq)
    completer = rlcompleter.Completer({"ichseq": ichseq})
    found = []
    while (match := completer.complete("ichseq.", len(found))) is not None:
        found.append(match.partition(".")[2].rstrip("()"))
    assert sorted(found) == NAMES
    assert all(getattr(ichseq, name).__doc__ for name in NAMES)
    with pytest.raises(AttributeError, match="no attribute 'import_modules'"):
        _ = ichseq.import_modules


def test_the_stages_are_those_of_the_settings() -> None:
    assert get_args(Stage) == STAGES


def test_importing_it_is_light() -> None:
    code = (
        "import sys, ichseq; dir(ichseq)\n"
        "heavy = {'torch', 'timm', 'numpy', 'pandas', 'pydicom'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "ichseq.prepare, ichseq.train, ichseq.load_series\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.filterwarnings("ignore:these weights")
def test_every_example_runs(phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the road, in one folder: each goes on with what the ones before have left."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scans").symlink_to(phantoms)
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(tiny_sections()))
    dataset = importlib.import_module("ichseq.data.dataset").SeriesDataset
    places = [ichseq.prepare, dataset, ichseq.load_series, ichseq.Series, ichseq.Series.plot]
    places += [ichseq.train, ichseq.Model, ichseq.evaluate, ichseq.calibrate, ichseq.predict]
    places += [ichseq.heatmap, ichseq.report, ichseq.add_network, ichseq.publish, ichseq.export]
    assert {place.__name__ for place in places} >= set(NAMES)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for place in places:
        (examples,) = doctest.DocTestFinder(recurse=False).find(place, place.__qualname__)
        assert examples.examples, f"{place.__qualname__} has no example"
        shown: list[str] = []
        runner.run(examples, out=shown.append)
        assert runner.failures == 0, "".join(shown)
    assert (tmp_path / "series.png").stat().st_size > 0


@pytest.mark.parametrize("in_file", [True, False])
def test_a_run_has_the_settings_that_it_was_given(prepared: Path, tmp_path: Path, in_file: bool) -> None:
    """From a file or a dict, a stage's own section over train, single settings over both."""
    given = tiny_sections() | {"slice": {"epochs": 3, "warmup_steps": 1}, "joint": {"epochs": 7}}
    given["model"]["sequence_inputs"] = ["position"]
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(given))
    config = tmp_path / "settings.yaml" if in_file else given
    out = tmp_path / "run"
    settings = {"train.epochs": 1, "train.seed": 5, "model.pretrained": False}
    run = ichseq.train("slice", 1, config=config, data=prepared, out=out, settings=settings, progress=False)
    assert run == out
    written = yaml.safe_load((leaf_of(run, "slice", 1) / "config.yaml").read_text())
    assert written["model"]["sequence_inputs"] == ["position"]
    assert [written["train"][key] for key in ("epochs", "warmup_steps", "seed", "backbone_lr")] == [1, 1, 5, 1e-3]
    expected = tiny(
        "slice", "train.epochs=1", "train.warmup_steps=1", "train.seed=5", "model.sequence_inputs=[position]"
    )
    assert written == yaml.safe_load(yaml.safe_dump(expected.to_dict()))


def test_evaluate_says_what_the_command_says(run: Path, run_copy: Path, prepared: Path) -> None:
    scored = ichseq.evaluate(run_copy, data=prepared, progress=False)
    assert scored.folder == leaf_of(run_copy, "joint", 0)
    assert pd.read_parquet(scored.folder / "predictions.parquet").equals(scored.table)
    result = CliRunner().invoke(main, ["evaluate", "--run", str(run_copy), "--data", str(prepared)])
    assert result.exit_code == 0, result.output
    assert scored.text() in result.stdout
    assert f"{scored.metrics['weighted_log_loss']:.4f}" in repr(scored)


@pytest.mark.filterwarnings("ignore:these weights")
def test_one_answer_for_paths_series_runs_and_models(run: Path, phantoms: Path, tmp_path: Path) -> None:
    scans = phantoms / "stage_2_test"
    leaf = leaf_of(run, "joint", 0)
    model, found = ichseq.Model.load(leaf), ichseq.load_series(scans)
    expected = ichseq.predict(run, scans, progress=False)
    answers = {
        "leaf": ichseq.predict(str(leaf), str(scans), progress=False),
        "model": ichseq.predict(model, [scans], progress=False),
        "collection": ichseq.predict(run, found, progress=False),
        "series": ichseq.predict([model, model], found[0], progress=False),
        "list": ichseq.predict([run, leaf], list(found), progress=False),
    }
    for name, table in answers.items():
        pd.testing.assert_frame_equal(table, expected, check_exact=False, rtol=1e-6, obj=name)
    done = CliRunner().invoke(main, ["predict", str(scans), "--run", str(run), "-o", str(tmp_path / "p.csv")])
    assert done.exit_code == 0, done.output
    assert np.allclose(pd.read_csv(tmp_path / "p.csv")[list(LABELS)], expected[list(LABELS)], rtol=1e-6)
    outcome = predict_scans(run, found, out=tmp_path / "again.csv", progress=False)
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "p.csv").read_bytes()
    assert len(outcome.exams) == len(pd.read_csv(tmp_path / "again-exams.csv")) == 1


@pytest.mark.filterwarnings("ignore:these weights")
def test_no_slice_is_missing_without_a_word(run: Path, tmp_path: Path) -> None:
    for number in range(1, 5):
        blob = dicom_bytes(ct_dataset(np.full((64, 64), 1024 + number, np.int16), number=number))
        (tmp_path / f"{number}.dcm").write_bytes(blob if number != 3 else blob[:-2000])
    with pytest.raises(ScanError, match=r"3\.dcm"):
        ichseq.predict(run, tmp_path, progress=False)
    outcome = predict_scans(run, tmp_path, progress=False)
    assert len(outcome.slices) == 3
    assert [Path(item.file).name for item in outcome.failed] == ["3.dcm"]


def _models_apart() -> list[Model]:
    models = [Model("resnet10t", image_size=32, hidden_size=8) for _ in range(2)]
    return [models[0], models[1].to("meta")]


def test_a_fold_may_be_a_number_of_numpy() -> None:
    assert as_fold(np.int64(3)) == 3
    assert type(as_fold(np.int64(3))) is int
    with pytest.raises(ConfigError, match="no fold"):
        as_fold(np.float64(3))


@pytest.mark.parametrize(
    ("name", "arguments", "error", "words"),
    [
        ("train", {"fold": "none"}, ConfigError, "'none' is no fold; give a number, all or all-patients"),
        ("train", {"fold": 9}, ConfigError, "fold 9 does not exist"),
        ("train", {"stage": "jiont"}, ConfigError, "'jiont'"),
        ("train", {"settings": {"train.epoch": 3}}, ConfigError, "did you mean 'epochs'"),
        ("train", {"settings": {"epochs": 3}}, ConfigError, "settings: 'epochs' is no section.key"),
        ("train", {"config": {"train": {"epochs": 0}}}, ConfigError, "config: train.epochs is 0"),
        ("train", {"config": {"modle": {"pool": "max"}}}, ConfigError, "modle"),
        ("train", {"data": "absent"}, DataError, "absent"),
        ("train", {"resume": True, "out": "absent"}, RunError, "nothing to resume"),
        ("evaluate", {"run": "absent"}, RunError, "absent: no such run"),
        ("evaluate", {"fold": 9}, ConfigError, "fold 9 does not exist"),
        ("calibrate", {"run": "absent"}, RunError, "absent: no such run"),
        ("calibrate", {}, RunError, "run `ichseq evaluate --fold 0 --run .*fold0` first"),
        ("calibrate", {"fold": 1}, RunError, "no trained model for fold 1"),
        ("predict", {"calibrated": True}, RunError, "has no calibration; fit one .*`ichseq calibrate --run"),
        ("predict", {"calibrated": True, "point": "best"}, ConfigError, "no operating point 'best'"),
        ("predict", {"calibrated": True, "model": _models_apart()}, ConfigError, "a calibration is that of one run"),
        ("predict", {"model": "absent"}, RunError, "absent: no such run"),
        ("predict", {"model": []}, ConfigError, "no model to predict with"),
        ("predict", {"scans": []}, ConfigError, "scans are paths, or series"),
        ("predict", {"scans": "absent"}, ScanError, "absent"),
        ("predict", {"tta": ["flop"]}, ConfigError, "flop"),
        ("predict", {"bag": -1}, ConfigError, "bag is -1"),
        ("predict", {"device": "gpu"}, ConfigError, "device 'gpu' does not exist"),
        ("predict", {"model": _models_apart()}, ConfigError, "on different devices"),
    ],
)
def test_a_mistake_is_one_of_our_errors(
    name: str, arguments: dict[str, Fold], error: type, words: str, run: Path, prepared: Path, phantoms: Path,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    sound = {
        "train": {"config": tiny_sections(), "data": prepared, "progress": False},
        "evaluate": {"run": run, "data": prepared, "progress": False},
        "calibrate": {"run": run},
        "predict": {"model": run, "scans": phantoms / "stage_2_test", "progress": False},
    }
    with pytest.raises(error, match=words):
        getattr(ichseq, name)(**sound[name] | arguments)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
