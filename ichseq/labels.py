"""The six labels, their order and weights: stated once, used everywhere."""

from typing import Final

LABELS: Final = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural", "any")
"""Label names in the order of every array whose last axis is 6."""

LABEL_WEIGHTS: Final = (1.0, 1.0, 1.0, 1.0, 1.0, 2.0)
"""Weight of each label in the loss and in the metric; the mean divides by their sum (RSNA 2019: any counts twice)."""

CLIP_PROBABILITY: Final = 1e-5
"""Probabilities are clipped to [1e-5, 1 - 1e-5] before the log loss (the competition's metric)."""
