"""Augmentation A of the published pipeline, and what a scanner may show differently: probabilities and ranges."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from ichseq.config.fields import STRICT, Rate, Share, ShareBelow1


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AugmentConfig:
    """What is drawn for a series, or for a slice, each time that it is read for training."""

    flip: Share = 0.5
    """Probability of a flip from left to right."""

    flip_vertical: Share = 0.0
    """Probability of a flip from top to bottom."""

    transpose: Share = 0.5
    """Probability of exchanging rows and columns."""

    affine: Share = 0.3
    """Probability of shift, scale, stretch and rotation together."""

    shift: Rate = 0.05
    """Largest shift in both directions, as a part of the image's side."""

    scale: Rate = 0.05
    """Largest change of scale."""

    stretch: ShareBelow1 = 0.0
    """Largest change of scale along one axis, with the reverse along the other."""

    rotate: Rate = 20.0
    """Largest rotation in degrees, both ways."""

    tissue_shift: Rate = 0.0
    """Largest shift of soft tissue in HU, both ways, as between scanners; air and bone stay."""

    tissue_contrast: ShareBelow1 = 0.0
    """Largest change of soft tissue's contrast about 35 HU; 0.1: between 0.9 and 1.1 times as much. Air and bone
    stay."""

    shading: Rate = 0.0
    """Largest height in HU of a slow wave across soft tissue, half of it on the image, in any direction, as beam
    hardening leaves it."""

    blur: Annotated[float, Field(ge=0, le=4)] = 0.0
    """Largest standard deviation of a Gaussian blur, as of a smooth kernel, in pixels of what the network sees (with
    model.window_first, of the scan). A draw blurs or sharpens, each half of the time."""

    sharpen: Rate = 0.0
    """Largest sharpening, as of a sharp kernel: so many times the difference from the same image blurred by a pixel is
    added to it."""

    noise: Rate = 0.0
    """Largest standard deviation in HU of noise that is drawn for each pixel by itself; what is air in the store stays
    so. Every slice has noise of its own."""

    correlated_noise: Rate = 0.0
    """The same of noise that neighbouring pixels share, white noise blurred by 1 to 2 pixels."""

    per: Literal["series", "slice"] = "series"
    """One draw for all slices of a series; or one for each slice, as the published pipeline did."""
