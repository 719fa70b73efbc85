"""Augmentation A of the published pipeline: probabilities and ranges."""

from typing import Literal

from pydantic.dataclasses import dataclass

from ichseq.config.fields import STRICT, Rate, Share


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AugmentConfig:
    """What is drawn for a series, or for a slice, each time that it is read for training."""

    flip: Share = 0.5
    """Probability of a flip from left to right."""

    transpose: Share = 0.5
    """Probability of exchanging rows and columns."""

    affine: Share = 0.3
    """Probability of shift, scale and rotation together."""

    shift: Rate = 0.05
    """Largest shift in both directions, as a part of the image's side."""

    scale: Rate = 0.05
    """Largest change of scale."""

    rotate: Rate = 20.0
    """Largest rotation in degrees, both ways."""

    per: Literal["series", "slice"] = "series"
    """One draw for all slices of a series; or one for each slice, as the published pipeline did."""
