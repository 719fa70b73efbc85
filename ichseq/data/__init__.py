"""The prepared set: from scans and labels to batches. torch comes in with batches, feed, augment and dataset alone."""

from typing import Final

DEFAULT_SET: Final = "data/prepared"
"""The folder of the prepared set where none is named."""

DEFAULT_FOLDS: Final = 5
"""Into how many folds the patients are dealt where no number is given."""
