"""A figure that a notebook shows without pyplot."""

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


class NotebookFigure(Figure):
    """A figure outside pyplot, which would keep every figure until it is closed."""

    def _repr_png_(self) -> bytes:
        """What IPython shows as a cell's result."""
        stream = io.BytesIO()
        FigureCanvasAgg(self).print_png(stream)
        return stream.getvalue()
