"""The network: Hounsfield units in, six logits a slice out. The files are the way through it; `Model` joins them.

input -> backbone (in chunks, with cross_slice within) -> sequence
"""

from ichseq.model.model import Model

__all__ = ["Model"]
