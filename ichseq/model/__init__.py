"""The network: Hounsfield units in, six logits a slice out. The files are the way through it; `Model` joins them.

input (of a stack) -> backbone (in chunks, with cross_slice within) -> sequence -> output
"""

from ichseq.model.model import Model
from ichseq.model.output import Output

__all__ = ["Model", "Output"]
