"""A run is calibrated on what it predicted of others, judged on a set that it never saw, and asked with both."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from test_judge import exams_of
from test_metrics import make_table

import ichseq
from ichseq.api import predict_scans
from ichseq.cli import main
from ichseq.data.index import Index
from ichseq.data.prepare import prepare
from ichseq.errors import RunError
from ichseq.evaluation.evaluate import evaluate_set
from ichseq.labels import LABELS
from ichseq.phantom import write_phantoms
from ichseq.predictions.calibration import CALIBRATED, FLAGGED
from ichseq.predictions.read import read_exams, read_table
from ichseq.predictions.schema import TRUTH
from ichseq.pseudonyms import SALT, read_salts
from ichseq.runs.folders import leaf_of
from ichseq.runs.records import read_run, write_json, write_scored

pytestmark = pytest.mark.filterwarnings("ignore:these weights")


def invoke(*command: object) -> Result:
    return CliRunner().invoke(main, [str(part) for part in command])


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Four made-up patients that no run has seen, as DICOM and prepared; not to be changed."""
    folder = tmp_path_factory.mktemp("others")
    write_phantoms(folder / "raw", patients=4, test_patients=0, size=64, seed=7, workers=1)
    prepare(folder / "raw", folder / "set", folds=2, workers=1)
    return folder / "raw", folder / "set"


@pytest.fixture
def predicted(run_copy: Path) -> Path:
    """A run whose fold 0 has the predictions of 150 patients, so that there is something to fit."""
    table = make_table(150, 6)
    metrics = {"data_key": "0123456789abcdef", "phantom": True, "bag": 0, "tta": []}
    write_scored(leaf_of(run_copy, "joint", 0), table, metrics, exams_of(table))
    return run_copy


def test_a_run_is_calibrated_on_its_evaluated_folds(predicted: Path) -> None:
    fitted = ichseq.calibrate(predicted)
    assert (fitted.fitted_on.exams, fitted.fitted_on.patients, fitted.fitted_on.slices) == (150, 150, 900)
    assert (fitted.fitted_on.folds, fitted.fitted_on.data_key) == ([0], "0123456789abcdef")
    exams = read_exams(leaf_of(predicted, "joint", 0) / "exams.parquet")
    point = fitted.exams["any"].points["sensitivity-0.95"]
    assert (exams["any"] >= point.threshold)[exams["true_any"] == 1].mean() == point.sensitivity >= 0.95
    result = invoke("calibrate", "--run", predicted, "--method", "temperature")
    assert result.exit_code == 0, result.output
    assert "fitted on 150 exams of 150 patients, fold 0 of set 0123456789ab, made-up scans (phantoms)" in result.stdout
    written = json.loads((predicted / "joint" / "calibration.json").read_text())
    assert written["method"] == "temperature"
    assert all(of["intercept"] == 0 for of in written["slices"].values())


def test_predictions_get_columns_of_their_own_and_say_what_these_stand_on(
    predicted: Path, phantoms: Path, tmp_path: Path
) -> None:
    fitted = ichseq.calibrate(predicted)
    scans = phantoms / "stage_2_test"
    plain = predict_scans(predicted, scans, progress=False)
    result = invoke("predict", scans, "--run", predicted, "-o", tmp_path / "p.csv", "--calibrated", "--point", "youden")
    assert result.exit_code == 0, result.output
    assert "Note: calibrated, and flagged at youden, as fitted on 150 exams of 150 patients" in result.stderr
    for name, raw, labels in (("p.csv", plain.slices, fitted.slices), ("p-exams.csv", plain.exams, fitted.exams)):
        table = pd.read_csv(tmp_path / name)
        assert list(table.columns) == [*raw.columns, *sum(zip(CALIBRATED, FLAGGED, strict=True), ())]
        for label in LABELS:
            score = raw[label].to_numpy()
            assert np.allclose(table[label], score, rtol=1e-6)
            assert np.allclose(table[f"calibrated_{label}"], labels[label].probabilities(score), rtol=1e-6)
            flagged = score >= labels[label].points["youden"].threshold
            assert np.array_equal(table[f"flagged_{label}"], flagged.astype(int))
    again = ichseq.predict(predicted, scans, calibrated=True, point="youden", progress=False)
    assert np.allclose(again["calibrated_any"], pd.read_csv(tmp_path / "p.csv")["calibrated_any"], rtol=1e-6)
    turned = predict_scans(predicted, scans, calibrated=True, tta=["flip"], progress=False)
    assert any("was fitted on predictions with bag 0, tta none" in line for line in turned.remarks())


def test_of_too_few_exams_nothing_changes_and_a_note_says_so(scored: Path, phantoms: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(scored, tmp_path / "run"))
    fitted = ichseq.calibrate(run)
    assert (fitted.fitted_on.folds, fitted.fitted_on.exams) == ([0, 1], 4)
    assert "exams are needed" in str(fitted.exams["any"].unchanged) or "10 are needed" in str(
        fitted.exams["any"].unchanged
    )
    outcome = predict_scans(run, phantoms / "stage_2_test", calibrated=True, progress=False)
    assert np.array_equal(outcome.exams["calibrated_any"], outcome.exams["any"])
    assert outcome.exams["flagged_any"].isna().all()
    assert any(line.startswith("Note: not calibrated for exams: epidural (") for line in outcome.remarks())


def test_with_labels_of_some_exams_alone_these_are_counted_and_slices_are_left(predicted: Path, phantoms: Path) -> None:
    leaf = leaf_of(predicted, "joint", 0)
    slices, exams = read_table(leaf / "predictions.parquet"), read_exams(leaf / "exams.parquet")
    exams.loc[100:, list(TRUTH)] = np.nan
    metrics = json.loads((leaf / "metrics.json").read_text())
    write_scored(leaf, slices.assign(**dict.fromkeys(TRUTH, np.nan)), metrics, exams)
    result = invoke("calibrate", "--run", predicted)
    assert result.exit_code == 0, result.output
    assert "fitted on 100 exams of 100 patients" in result.stdout
    assert "Slices: none has a known label; their scores are left as they are" in result.stdout
    outcome = predict_scans(predicted, phantoms / "stage_2_test", calibrated=True, progress=False)
    assert "Note: not calibrated for slices: none had a known label" in outcome.remarks()
    assert np.array_equal(outcome.slices["calibrated_any"], outcome.slices["any"])


def test_folds_that_were_evaluated_in_different_ways_are_not_put_together(scored: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(scored, tmp_path / "run"))
    file = leaf_of(run, "joint", 1) / "metrics.json"
    content = json.loads(file.read_text())
    for change, words in (
        ({"bag": 2}, "another bag"),
        ({"data_key": "x", "tta": ["flip"]}, "another data_key and tta"),
    ):
        write_json(file, content | change)
        with pytest.raises(RunError, match=f"fold0 and .*fold1 were evaluated with {words}; evaluate them alike"):
            ichseq.calibrate(run)
    assert ichseq.calibrate(run, 0).fitted_on.folds == [0]
    write_json(file, {})
    with pytest.raises(RunError, match="it names no data_key"):
        ichseq.calibrate(run, 1)


def test_a_set_that_the_run_never_saw_is_scored_whole(
    predicted: Path, others: tuple[Path, Path], prepared: Path
) -> None:
    raw, data = others
    index, leaf = Index.load(data), leaf_of(predicted, "joint", 0)
    before = (leaf / "predictions.parquet").read_bytes()
    ichseq.calibrate(predicted)
    command = ("evaluate", "--run", predicted, "--data", data, "--bleeds", raw / "truth" / "bleeds.csv")
    result = invoke(*command)
    assert result.exit_code == 0, result.output
    folder = predicted / "joint" / "sets" / f"set-{index.key[:8]}"
    assert {path.name for path in folder.iterdir()} == {
        "predictions.parquet", "exams.parquet", "metrics.json", "curves.csv", "evaluation.html", "evaluation.png"
    }  # fmt: skip
    assert (leaf / "predictions.parquet").read_bytes() == before
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["n_exams"], metrics["fold"], metrics["data_key"]) == (4, None, index.key)
    assert metrics["calibration"]["data_key"] == "0123456789abcdef"
    exams = read_exams(folder / "exams.parquet")
    assert np.array_equal(exams["true_any"], index.exam_labels[:, -1])
    for name in ("slice_spacing", "pixel_size", "slices"):
        assert sum(of["exams"] for of in metrics["subgroups"][name]) == 4
    bleeding = int((exams["true_any"] == 1).sum())
    assert sum(of["bleeding"] for of in metrics["subgroups"]["bleed_volume"]) == bleeding
    alone = ichseq.predict(predicted, raw, progress=False).set_index("sop_uid")["any"]
    table = pd.read_parquet(folder / "predictions.parquet").set_index("sop_uid")["any"]
    assert np.allclose(table, alone[table.index], atol=1e-5)
    fitted = ichseq.calibrate(predicted, data=data)
    assert (fitted.fitted_on.data_key, fitted.fitted_on.folds, fitted.fitted_on.exams) == (index.key, [], 4)
    result = invoke("evaluate", "--run", predicted, "--data", data, "--bleeds", data / "index.json")
    assert result.exit_code == 1
    assert "index.json: can't be read as a table of bleeds" in result.stderr


def test_a_set_with_a_patient_of_the_training_is_refused(run_copy: Path, others: tuple[Path, Path]) -> None:
    leaf, index = leaf_of(run_copy, "joint", 0), Index.load(others[1])
    content = read_run(leaf)
    (salt,) = read_salts(leaf / SALT)
    seen = [*content["patients"], salt.patient(index.patients()[0])]
    write_json(leaf / "run.json", content | {"patients": seen}, sealed=True)
    with pytest.raises(RunError, match=r"fold0: was trained on 1 of the 4 patients of .*set, and figures .*--fold"):
        evaluate_set(run_copy, index)
    result = invoke("calibrate", "--run", run_copy, "--data", others[1])
    assert result.exit_code == 1
    assert f"{run_copy}: was not evaluated on {others[1]}; run `ichseq evaluate --run {run_copy}" in result.stderr


def test_by_default_a_runs_own_set_is_scored_by_its_fold(run_copy: Path, prepared: Path) -> None:
    for run in (run_copy, leaf_of(run_copy, "joint", 0)):
        scored = ichseq.evaluate(run, data=prepared, progress=False)
        assert (scored.metrics["fold"], scored.folder) == (0, leaf_of(run_copy, "joint", 0))
    assert len(scored.exams) == scored.metrics["n_exams"] == 2
