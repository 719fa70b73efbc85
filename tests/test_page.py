"""The page of an evaluation shows its figures, with and without a calibration."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_calibration import FITTED_ON
from test_judge import tables
from test_metrics import PRIOR

from ichseq.evaluation.calibration import fit_calibration
from ichseq.evaluation.judge import curves, judge
from ichseq.evaluation.metrics import evaluate_table
from ichseq.evaluation.page import notes, write_evaluation_page
from ichseq.evaluation.report import metrics_text, rate_text


def metrics_of(calibrated: bool, **identity: object) -> tuple[dict, object]:
    slices, exams, scans = tables(80)
    slices["true_epidural"] = exams["true_epidural"] = 0.0
    calibration = fit_calibration(slices, exams, FITTED_ON) if calibrated else None
    metrics = evaluate_table(slices, PRIOR, exams=exams, draws=20)
    judged = judge(slices, exams, scans, calibration, draws=20)
    for label, of in metrics["by_exam"].items():
        judged["by_exam"][label] |= of
    undefined = metrics["undefined"] | judged["undefined"]
    whose = {"run": "runs/<x>", "fold": 0, "data_key": FITTED_ON.data_key, "phantom": False} | identity
    return metrics | judged | whose | {"undefined": undefined}, curves(slices, exams)


@pytest.mark.parametrize("calibrated", [True, False])
def test_the_page_shows_its_figures_and_needs_nothing_from_outside(tmp_path: Path, calibrated: bool) -> None:
    metrics, drawn = metrics_of(calibrated)
    write_evaluation_page(tmp_path / "new", metrics, drawn)
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"evaluation.html", "evaluation.png"}
    text = (tmp_path / "new" / "evaluation.html").read_text()
    for name in re.findall(r'(?:src|href)="([^"]*)"', text):
        assert (tmp_path / "new" / name).is_file()
    assert "runs/&lt;x&gt;" in text
    assert f"{metrics['weighted_log_loss']:.4f}" in text
    assert f"{metrics['by_exam']['subdural']['auc']:.4f}" in text
    assert "no positive exam" in text
    assert "None" not in text.replace("None is defined", "")
    assert "nan" not in text
    assert ("None is defined" in text) != calibrated
    assert text.count("<th>calibrated</th>") == (4 if calibrated else 0)
    if calibrated:
        of = metrics["by_exam"]["any"]["points"]["sensitivity-0.95"]
        assert rate_text(of["sensitivity"]) in text
        assert rate_text(of["false_alarms_per_100"], 1) in text
    with Image.open(tmp_path / "new" / "evaluation.png") as picture:
        assert np.asarray(picture.convert("RGB")).std() > 5


def test_a_calibration_that_is_judged_on_its_own_exams_is_noted() -> None:
    words = "which are these exams or a part of them"
    for identity, same in (({}, True), ({"fold": "all"}, True), ({"fold": 3}, False), ({"data_key": "other"}, False),
                           ({"fold": None, "data_key": "other"}, False)):  # fmt: skip
        found = notes(metrics_of(True, **identity)[0])
        assert (words in found[-1]) == same, identity
    assert notes(metrics_of(False)[0])[-1] == "No calibration: operating points are undefined"


def test_the_points_of_any_are_in_the_text_too() -> None:
    metrics, _ = metrics_of(True)
    of = metrics["by_exam"]["any"]["points"]["youden"]
    (line,) = [line for line in metrics_text(metrics).splitlines() if line.startswith("youden")]
    assert rate_text(of["sensitivity"]) in line
    assert rate_text(of["false_alarms_per_100"], 1) in line
    assert "youden" not in metrics_text(metrics_of(False)[0])


def test_a_rate_in_words() -> None:
    assert rate_text({"value": 0.9, "interval": [0.8, 0.95], "cases": 1234}) == "0.900 (0.800 to 0.950), n 1,234"
    assert rate_text({"value": 0.9, "interval": None, "cases": 3}) == "0.900, n 3"
    assert rate_text({"value": None, "interval": None, "cases": 0}) == rate_text(None) == "-"
