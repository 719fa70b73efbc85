"""Predictions with what the run's calibration makes of them."""

from collections.abc import Sequence
from dataclasses import replace

from ichseq.inference.predict import Predictions
from ichseq.predictions.calibration import Calibration, none_known, with_calibration


def with_calibrated(
    outcome: Predictions, calibration: Calibration, point: str, *, bag: int, tta: Sequence[str]
) -> Predictions:
    """The same predictions with calibrated and flagged columns in both tables, and notes on what these stand on.

    Args:
        outcome: raw predictions of the run.
        calibration: of the run.
        point: name of the operating point that flags.
        bag: how the models were asked.
        tta: how the models were asked.

    Raises:
        ConfigError: there is no such point.
    """
    of = calibration.fitted_on
    notes = [f"calibrated, and flagged at {point}, as fitted on {of.words()}"]
    views = [tta] if isinstance(tta, str) else list(tta)
    if (of.bag, sorted(of.tta)) != (bag, sorted(views)):
        was = f"bag {of.bag}, tta {','.join(of.tta) or 'none'}"
        notes.append(f"the calibration was fitted on predictions with {was}; evaluate and calibrate as you predict")
    for unit, labels in (("exams", calibration.exams), ("slices", calibration.slices)):
        left = [f"{label} ({fitted.unchanged})" for label, fitted in labels.items() if fitted.unchanged]
        if none_known(labels):
            notes.append(f"not calibrated for {unit}: none had a known label")
        elif left:
            notes.append(f"not calibrated for {unit}: {', '.join(left)}")
    return replace(
        outcome,
        slices=with_calibration(outcome.slices, calibration.slices, point),
        exams=with_calibration(outcome.exams, calibration.exams, point),
        calibration_notes=notes,
    )
