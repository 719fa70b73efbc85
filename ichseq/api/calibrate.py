"""calibrate: probabilities and operating points of a run, fitted on patients that it did not train on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ichseq.api.fold import Fold, fold_number

if TYPE_CHECKING:
    from ichseq.predictions.calibration import Calibration


def calibrate(
    run: str | Path,
    fold: Fold = "all",
    *,
    data: str | Path | None = None,
    method: Literal["platt", "temperature"] = "platt",
) -> Calibration:
    """Fit calibration and operating points of each label to what `evaluate` has written; saved with the run.

    `ichseq.predict` applies it where `calibrated` is asked for, and `evaluate` scores at its points.

    Args:
        run: runs/NAME, a leaf of it, or with `data` an experiment's result or the name of a network (see `predict`),
            of which the calibration goes to runs/NAME.
        fold: a fold's number; "all": every fold that the run has. Each must have been evaluated.
        data: a prepared set that the run never saw and was evaluated on, instead of its folds.
        method: "platt": slope and intercept of the log odds, by label; "temperature": the slope alone.

    Returns:
        What calibration.json holds. A label with too few positives or negatives keeps its scores, and says so.

    Raises:
        RunError: no such run, or it was not evaluated, or its folds were evaluated in different ways.
        DataError: a table is damaged.

    Example:
        >>> import ichseq
        >>> fitted = ichseq.calibrate("runs/first", 0)
        >>> fitted.exams["any"].unchanged
        '1 positive exam; 10 are needed'
    """
    from ichseq.data.index import Index
    from ichseq.evaluation.calibrate import calibrate_folds, calibrate_set
    from ichseq.runs.calibration import write_calibration

    run = Path(run)
    if data is not None:
        fitted = calibrate_set(run, Index.load(data), method)
    else:
        fitted = calibrate_folds(run, fold_number(fold), method)
    write_calibration(run, fitted)
    return fitted
