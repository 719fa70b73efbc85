"""Predicting on the workers of a cluster (or in processes of this machine), through joblib."""

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import joblib

from ichseq.ct.series import Series
from ichseq.inference.predict import Predicting, SeriesPrediction, predict_series
from ichseq.model import Model


def predict_there(leaves: Sequence[Path]) -> Predicting:
    """Predicting where `joblib.parallel_config` says; each worker loads the models once.

    Args:
        leaves: folders of trained models, which the workers see under the same paths.
    """
    paths = tuple(str(leaf.resolve()) for leaf in leaves)

    def predicting(found: Sequence[Series]) -> Iterator[SeriesPrediction]:
        parallel = joblib.Parallel(return_as="generator")
        return parallel(joblib.delayed(_predict)(paths, series) for series in found)

    return predicting


def _predict(paths: tuple[str, ...], series: Series) -> SeriesPrediction:
    return predict_series(_models(paths), series)


@cache
def _models(paths: tuple[str, ...]) -> list[Model]:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return [Model.load(path).to(device) for path in paths]
