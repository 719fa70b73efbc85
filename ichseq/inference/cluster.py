"""Predicting on the workers of a cluster (or in processes of this machine), through joblib."""

import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import joblib

from ichseq.ct.series import Series
from ichseq.exported.description import exported_file, files_of
from ichseq.inference.model_ensemble import ModelEnsemble
from ichseq.inference.one_series import SeriesPrediction, predict_series
from ichseq.inference.predict import Predictor
from ichseq.runs.names import MODEL, WEIGHTS

_Folder = tuple[str, tuple[int, ...]]  # folder of a model, and the state of its files
_Key = tuple[tuple[_Folder, ...], tuple[str, ...], str]  # models, the views that they are asked for, and the device


def predict_distributed(
    folders: Sequence[Path], tta: Sequence[str] = (), device: str = "auto", *, any_series: bool = False
) -> Predictor:
    """Predicting where `joblib.parallel_config` says; each worker loads the models once, and again if they change.

    Args:
        folders: of trained models, which the workers see under the same paths.
        tta: as for `ModelEnsemble`.
        device: of each worker; auto: a GPU if it has one.
        any_series: as for `predict_local`.
    """

    def predictor(found: Sequence[Series]) -> Iterator[SeriesPrediction]:
        key = (tuple(_state(folder.resolve()) for folder in folders), tuple(tta), device)
        parallel = joblib.Parallel(return_as="generator")
        return parallel(joblib.delayed(_predict)(key, series, any_series) for series in found)

    return predictor


def _state(folder: Path) -> _Folder:
    """The folder with age and size of its files: a worker lives long, and may have loaded what stood there before."""
    try:
        exported = exported_file(folder)
        names = [folder / WEIGHTS, folder / MODEL] if exported is None else files_of(exported)
        status = [os.stat(name) for name in names]
    except OSError:  # loading them says what is wrong
        status = []
    return str(folder), tuple(number for one in status for number in (one.st_mtime_ns, one.st_size))


def _predict(key: _Key, series: Series, any_series: bool) -> SeriesPrediction:
    return predict_series(_load(key), series, any_series=any_series)


_loaded: dict[_Key, ModelEnsemble] = {}  # the last ones asked for alone: models are large
_loading = threading.Lock()


def _load(key: _Key) -> ModelEnsemble:
    with _loading:
        if key not in _loaded:
            _loaded.clear()
            folders, tta, device = key
            _loaded[key] = ModelEnsemble.load([Path(path) for path, _ in folders], tta, device)
        return _loaded[key]
