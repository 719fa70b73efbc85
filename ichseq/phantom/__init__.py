"""Made-up head CT: seeded, labelled, with bleeding of five kinds, as DICOM in the layout of the RSNA 2019 set."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["MARKER", "generator_hash", "write_phantoms"]

if TYPE_CHECKING:
    from ichseq.phantom.dicom_file import MARKER
    from ichseq.phantom.write import generator_hash, write_phantoms

_HOMES = {"MARKER": "dicom_file", "generator_hash": "write", "write_phantoms": "write"}


def __getattr__(name: str) -> Any:
    """Import a name on first use: the command's options need `choices` alone."""
    if name in _HOMES:
        return getattr(import_module(f"ichseq.phantom.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'ichseq.phantom' has no attribute {name!r}")
