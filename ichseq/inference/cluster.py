"""Predicting on the workers of a cluster (or in processes of this machine), through joblib."""

import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import joblib

from ichseq.ct.series import Series
from ichseq.inference.panel import Panel
from ichseq.inference.predict import Predicting, SeriesPrediction, predict_series

_Leaf = tuple[str, tuple[int, ...]]  # folder of a model, and the state of its files


def predict_there(leaves: Sequence[Path], tta: Sequence[str] = ()) -> Predicting:
    """Predicting where `joblib.parallel_config` says; each worker loads the models once, and again if they change.

    Args:
        leaves: folders of trained models, which the workers see under the same paths.
        tta: as for `Panel`.
    """

    def predicting(found: Sequence[Series]) -> Iterator[SeriesPrediction]:
        wanted = tuple(_state(leaf.resolve()) for leaf in leaves)
        parallel = joblib.Parallel(return_as="generator")
        return parallel(joblib.delayed(_predict)(wanted, tuple(tta), series) for series in found)

    return predicting


def _state(leaf: Path) -> _Leaf:
    """The folder with age and size of its files: a worker lives long, and may have loaded what stood there before."""
    try:
        status = [os.stat(leaf / name) for name in ("weights.safetensors", "model.json")]
    except OSError:  # loading them says what is wrong
        status = []
    return str(leaf), tuple(number for one in status for number in (one.st_mtime_ns, one.st_size))


def _predict(wanted: tuple[_Leaf, ...], tta: tuple[str, ...], series: Series) -> SeriesPrediction:
    return predict_series(_panel(wanted, tta), series)


_loaded: dict[
    tuple[tuple[_Leaf, ...], tuple[str, ...]], Panel
] = {}  # of the last run asked for alone: models are large
_loading = threading.Lock()


def _panel(wanted: tuple[_Leaf, ...], tta: tuple[str, ...]) -> Panel:
    with _loading:
        if (wanted, tta) not in _loaded:
            _loaded.clear()
            _loaded[wanted, tta] = Panel.load([Path(path) for path, _ in wanted], tta)
        return _loaded[wanted, tta]
