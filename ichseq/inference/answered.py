"""Everything that is at hand once scans are predicted, for those who write more of it than tables."""

from dataclasses import dataclass

from ichseq.inference.model_ensemble import ModelEnsemble
from ichseq.inference.predict import Predictions


@dataclass(frozen=True)
class Answered:
    """Predictions of scans, with what answered.

    Attributes:
        predictions: the tables, and the series of each exam (`Predictions.series`).
        ensemble: the models; None: they are not known, as where only a table is there. Where workers of a cluster
            have predicted, the same models on this machine's CPU.
    """

    predictions: Predictions
    ensemble: ModelEnsemble | None
