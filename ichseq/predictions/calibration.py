"""A calibration: for each label, what makes a score a probability and the thresholds of its operating points.

`ichseq.evaluation.calibration` fits one on predictions of patients kept for validation. Here stand its content, and
what it makes of a table.
"""

from typing import Annotated, Final, Literal, get_args

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, model_validator
from scipy.special import expit, logit

from ichseq.errors import ConfigError
from ichseq.labels import CLIP_PROBABILITY, LABELS
from ichseq.predictions.schema import Floats

Method = Literal["platt", "temperature"]
PointName = Literal["sensitivity-0.95", "sensitivity-0.9", "specificity-0.9", "youden"]

POINTS: Final[tuple[PointName, ...]] = get_args(PointName)
"""Operating points by name: the highest threshold that reaches a sensitivity, the lowest that reaches a specificity,
and that of the largest sum of both (Youden's J)."""

CALIBRATED: Final = tuple(f"calibrated_{label}" for label in LABELS)
"""Columns of the calibrated probabilities."""

FLAGGED: Final = tuple(f"flagged_{label}" for label in LABELS)
"""Columns that say whether a score reaches the threshold of a point: 1, 0, or empty where the point is undefined."""

VERSION: Final = 1
Share = Annotated[float, Field(ge=0, le=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class OperatingPoint(_Strict):
    """A threshold on a label's raw score, and what it reached on the set that it was found on.

    Attributes:
        threshold: a score of at least so much is flagged; None: undefined.
        sensitivity: share of the positives that are flagged.
        specificity: share of the negatives that are not.
        undefined: why there is none.
    """

    threshold: Share | None
    sensitivity: Share | None = None
    specificity: Share | None = None
    undefined: str | None = None


class LabelCalibration(_Strict):
    """Of one label: calibrated log odds = slope x raw log odds + intercept.

    Attributes:
        slope: above 0, so that the order stays; one over the temperature.
        intercept: 0 with a temperature alone.
        positives: on which it was fitted.
        negatives: on which it was fitted.
        unchanged: why it is the identity, if nothing was fitted.
        points: operating points by name, all of `POINTS`.
    """

    slope: Annotated[float, Field(gt=0)] = 1.0
    intercept: float = 0.0
    positives: int
    negatives: int
    unchanged: str | None = None
    points: dict[PointName, OperatingPoint]

    @model_validator(mode="after")
    def _every_point(self) -> "LabelCalibration":
        if set(self.points) != set(POINTS):
            raise ValueError(f"points are {', '.join(POINTS)}")
        return self

    def probabilities(self, raw: Floats) -> Floats:
        """Raw scores as calibrated probabilities; exactly the same where nothing was fitted."""
        if self.slope == 1 and self.intercept == 0:
            return raw
        return expit(self.slope * log_odds(raw) + self.intercept)

    def flags(self, raw: Floats, point: PointName) -> Floats:
        """1 where a raw score reaches the point's threshold, else 0; NaN where the point is undefined."""
        threshold = self.points[point].threshold
        return np.full(len(raw), np.nan) if threshold is None else (raw >= threshold).astype(np.float64)


class FittedOn(_Strict):
    """What a calibration was fitted on.

    Attributes:
        data_key: of the prepared set.
        phantom: whether any series of it is made up.
        folds: whose validation parts they were; empty: the whole of a set that the run never saw.
        slices: how many with a known label.
        exams: how many with a known label.
        patients: whose exams these are.
        bag: of the predictions, as `ichseq evaluate` was asked.
        tta: of the predictions.
    """

    data_key: str
    phantom: bool
    folds: list[int]
    slices: int
    exams: int
    patients: int
    bag: int
    tta: list[str]

    def words(self) -> str:
        """For a person to read."""
        of = f"fold{'s' * (len(self.folds) > 1)} {', '.join(map(str, self.folds))} of set" if self.folds else "set"
        made_up = ", made-up scans (phantoms)" if self.phantom else ""
        return f"{self.exams:,} exams of {self.patients:,} patients, {of} {self.data_key[:12]}{made_up}"


class Calibration(_Strict):
    """Everything that calibration.json holds.

    Attributes:
        version: of this layout.
        method: that was asked for.
        fitted_on: the predictions that it was fitted on.
        slices: by label, of the scores of slices.
        exams: by label, of the scores of exams.
    """

    version: Literal[1] = VERSION
    method: Method
    fitted_on: FittedOn
    slices: dict[str, LabelCalibration]
    exams: dict[str, LabelCalibration]

    @model_validator(mode="after")
    def _every_label(self) -> "Calibration":
        if set(self.slices) != set(LABELS) or set(self.exams) != set(LABELS):
            raise ValueError(f"the labels of slices and of exams are {', '.join(LABELS)}")
        return self


def none_known(labels: dict[str, LabelCalibration]) -> bool:
    """Whether no case had a known label, of slices or of exams."""
    return not any(of.positives or of.negatives for of in labels.values())


def with_calibration(table: pd.DataFrame, labels: dict[str, LabelCalibration], point: str) -> pd.DataFrame:
    """A table of slices or of exams with the columns of `CALIBRATED` and `FLAGGED` after its own.

    Args:
        table: with raw scores under `LABELS`; they stay.
        labels: the calibration of slices or that of exams.
        point: name of the operating point that flags.

    Raises:
        ConfigError: there is no such point.
    """
    name = point_name(point)
    result = table.copy()
    for label, calibrated, flagged in zip(LABELS, CALIBRATED, FLAGGED, strict=True):
        raw = table[label].to_numpy(dtype=np.float64)
        result[calibrated] = labels[label].probabilities(raw)
        flags = labels[label].flags(raw, name)
        result[flagged] = pd.array(np.where(np.isnan(flags), 0, flags).astype(np.int8), dtype="Int8")
        result.loc[np.isnan(flags), flagged] = pd.NA
    return result


def point_name(point: str) -> PointName:
    """The operating point that a text names.

    Raises:
        ConfigError: there is none.
    """
    for name in POINTS:
        if name == point:
            return name
    raise ConfigError(f"no operating point {point!r}; there are {', '.join(POINTS)}")


def log_odds(probability: Floats) -> Floats:
    """Log odds of probabilities, clipped as for the metric."""
    return logit(np.clip(probability, CLIP_PROBABILITY, 1 - CLIP_PROBABILITY))
