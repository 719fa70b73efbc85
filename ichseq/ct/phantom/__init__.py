"""Made-up head CT: seeded, labelled, with bleeding of five kinds, as DICOM in the layout of the RSNA 2019 set."""

from ichseq.ct.phantom.write import MARKER, write_phantoms

__all__ = ["MARKER", "write_phantoms"]
