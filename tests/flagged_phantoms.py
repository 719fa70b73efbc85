"""Predictions of phantoms of which a part is flagged, by thresholds within the scores of an untrained network."""

from dataclasses import replace
from pathlib import Path

import pandas as pd

from ichseq.inference.answered import Answered
from ichseq.inference.model_ensemble import ModelEnsemble
from ichseq.inference.predict import predict_sources
from ichseq.labels import LABELS
from ichseq.model import Model
from ichseq.predictions.calibration import POINTS, LabelCalibration, OperatingPoint, with_calibration


def flagged_answer(model: Model, scans: Path) -> Answered:
    """What `predict_scans` leaves at hand with a calibration: two exams of ten are flagged for each label."""
    ensemble = ModelEnsemble(model)
    outcome = predict_sources(ensemble, [scans])
    tables = [
        with_calibration(table, thresholds(outcome.exams), POINTS[0]) for table in (outcome.slices, outcome.exams)
    ]
    slices, exams = tables
    return Answered(replace(outcome, slices=slices, exams=exams, calibration_notes=["calibrated in a test"]), ensemble)


def thresholds(exams: pd.DataFrame) -> dict[str, LabelCalibration]:
    """For each label a high score among the exams, and probabilities with a slope of 2."""
    found = {}
    for label in LABELS:
        point = OperatingPoint(threshold=float(exams[label].quantile(0.8)))
        found[label] = LabelCalibration(slope=2.0, positives=10, negatives=10, points=dict.fromkeys(POINTS, point))
    return found
