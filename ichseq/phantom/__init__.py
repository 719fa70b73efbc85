"""Made-up head CT: seeded, labelled, with bleeding of five kinds, as DICOM in the layout of the RSNA 2019 set."""

from ichseq.phantom.dicom_file import MARKER
from ichseq.phantom.write import generator_hash, write_phantoms

__all__ = ["MARKER", "generator_hash", "write_phantoms"]
