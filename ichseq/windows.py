"""Hounsfield units: the range that is kept, air, and the windows with their normalisation."""

import math
from collections.abc import Sequence
from typing import Final

HU_RANGE: Final = (-200, 823)
"""Range in HU that the store keeps and a network reads, both at least; what lies outside is clipped. Covers every
default window."""

BONE_RANGE: Final = (-1024, 3071)
"""What 12 bits of a scanner hold: a range for the store that covers every window."""

AIR_HU: Final = -1024
"""Hounsfield units of air: what stands where a scanner measured nothing."""

WINDOWS: Final = {
    "brain": (40.0, 80.0),
    "subdural": (80.0, 200.0),
    "soft_tissue": (40.0, 380.0),
    "bone": (600.0, 2800.0),
}
"""Name -> (centre, width) in HU. One input channel of the network each, in the order in which they are asked for."""

DEFAULT_WINDOWS: Final = ("brain", "subdural", "soft_tissue")

CHANNEL_MEAN: Final = {"brain": 0.22363983, "subdural": 0.18190407, "soft_tissue": 0.2523437}
CHANNEL_STD: Final = {"brain": 0.32451536, "subdural": 0.2956294, "soft_tissue": 0.31335256}
"""Mean and standard deviation of each windowed channel scaled to 0..1, over the RSNA 2019 training slices (published
settings of the competition's 2nd place); of bone none are published."""


def range_read(windows: Sequence[str]) -> tuple[int, int]:
    """Range in HU that a network with these windows reads: `HU_RANGE`, or as much more as they show."""
    spans = [
        HU_RANGE,
        *((centre - width / 2, centre + width / 2) for centre, width in map(WINDOWS.__getitem__, windows)),
    ]
    return math.floor(min(low for low, _ in spans)), math.ceil(max(high for _, high in spans))
