"""ichseq: one end-to-end network that finds bleeding in head CT.

Research software, not a medical device.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Model", "__version__", "load_series", "predict"]

if TYPE_CHECKING:
    from ichseq.ct.series import load_series
    from ichseq.inference.predict import predict
    from ichseq.model import Model

_HOMES = {"Model": "ichseq.model", "load_series": "ichseq.ct.series", "predict": "ichseq.inference.predict"}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that `import ichseq` and `ichseq --help` stay quick."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'ichseq' has no attribute {name!r}")
