"""ichseq: one end-to-end network that finds bleeding in head CT.

    series = ichseq.load_series("my_scan")         # DICOM to ordered slices in Hounsfield units
    ichseq.prepare("scans")                        # a set to train on
    run = ichseq.train("joint", fold=0)            # the network over whole series
    ichseq.evaluate(run, fold=0)                   # scored on patients kept for validation
    ichseq.calibrate(run, fold=0)                  # thresholds, and scores that are probabilities
    table = ichseq.predict(run, "my_scan")         # probabilities, a row a slice
    ichseq.report(table, "my_scan", model=run)     # pages for those who read scans
    maps = ichseq.heatmap(run, series[0], "any")   # where in each slice
    ichseq.export(run, "out/model.onnx")           # for other runtimes
    ichseq.publish(run, "owner/name")              # for others, on the Hugging Face hub

The command line has the same words: `ichseq --help`. Research software, not a medical device.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "Model",
    "Series",
    "__version__",
    "add_network",
    "calibrate",
    "evaluate",
    "export",
    "heatmap",
    "load_series",
    "predict",
    "prepare",
    "publish",
    "report",
    "train",
]

if TYPE_CHECKING:
    # From where they stand: to a type checker, `ichseq.api.train` may be the module of that name.
    from ichseq.api.add import add_network
    from ichseq.api.calibrate import calibrate
    from ichseq.api.evaluate import evaluate
    from ichseq.api.export import export
    from ichseq.api.heatmap import heatmap
    from ichseq.api.predict import predict
    from ichseq.api.prepare import prepare
    from ichseq.api.publish import publish
    from ichseq.api.report import report
    from ichseq.api.train import train
    from ichseq.ct.series import Series, load_series
    from ichseq.model import Model

_HOMES = {
    "Model": "ichseq.model",
    "Series": "ichseq.ct.series",
    "load_series": "ichseq.ct.series",
    "prepare": "ichseq.api",
    "train": "ichseq.api",
    "evaluate": "ichseq.api",
    "calibrate": "ichseq.api",
    "export": "ichseq.api",
    "predict": "ichseq.api",
    "heatmap": "ichseq.api",
    "add_network": "ichseq.api",
    "report": "ichseq.api",
    "publish": "ichseq.api",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that `import ichseq` and `ichseq --help` stay quick."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'ichseq' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names and what Python itself needs, without the parts that happen to be imported already."""
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
