"""A head as a volume: what follows from its fields, and that they must fit together."""

import numpy as np
import pytest

from ichseq.phantom.volume import HeadVolume


def ball(radius: float = 60, pixel: float = 4.0, positions: np.ndarray | None = None) -> HeadVolume:
    """A round head of one density, its midline at x = 0, with a round ventricle of 15 mm in its middle."""
    heights = np.arange(-72.0, 73, 6) if positions is None else positions
    across = (np.arange(40) - 19.5) * pixel
    z, y, x = np.meshgrid(heights, across, across, indexing="ij")
    gap = np.sqrt(x * x + y * y + z * z)
    fields = [
        np.asarray(field, np.float32) for field in (radius - gap, x, gap * 0, gap < 15, abs(gap - radius - 4) < 4)
    ]
    return HeadVolume(
        np.where(gap < radius, 35, -1000).astype(np.float32), heights, pixel, np.float32([x, y, z]), *fields
    )


def test_volumes_follow_from_spacing_even_where_it_changes() -> None:
    for positions in (None, np.concatenate([np.arange(-72.0, 0, 4), np.arange(0.0, 73, 7)])):
        head = ball(positions=positions)
        millilitres = (head.intracranial * head.voxel_ml).sum()
        assert millilitres == pytest.approx(4 / 3 * np.pi * 6.0**3, rel=0.03)
        assert (head.ventricles * head.voxel_ml).sum() == pytest.approx(4 / 3 * np.pi * 1.5**3, rel=0.25)


def test_brain_is_what_is_neither_fluid_nor_outside() -> None:
    head = ball()
    assert head.brain[head.depth_mm < -2].max() == 0
    assert head.brain[head.ventricles == 1].max() == 0
    assert head.brain[(head.depth_mm > 2) & (head.ventricles == 0)].min() == 1


def test_falx_and_tentorium_part_the_spaces() -> None:
    head = ball()
    x, y, z = head.place
    falx = (head.falx_mm < 3) & (head.depth_mm > 0)
    assert falx.any()
    assert np.abs(x[falx]).max() < 3
    assert z[falx].min() > -25, "none in the posterior fossa"
    deep = (np.abs(y - 4) < 20) & (np.abs(z - 8) < 10)
    assert not (falx & deep).any(), "none where the callosum and the thalami lie"
    tent = (head.tentorium_mm < 4) & (head.depth_mm > 0)
    assert tent.any()
    assert y[tent].min() > -10, "behind the petrous ridges"
    assert (np.hypot(x, y - 4)[tent] > 8).all(), "the notch is open"
    assert (head.above_tentorium_mm[z > 20] > 0).all()


def test_gravity_falls_to_the_back() -> None:
    head = ball()
    assert head.height_along_gravity_mm[12, 5, 20] > head.height_along_gravity_mm[12, 30, 20]


def test_fields_on_another_grid_are_refused() -> None:
    head = ball()
    kept = {name: getattr(head, name) for name in ("hu", "positions_mm", "pixel_mm", "place", "depth_mm", "midline_mm")}
    kept |= {"ventricles": head.ventricles, "skull": head.skull}
    with pytest.raises(ValueError, match="csf"):
        HeadVolume(csf=head.csf[1:], **kept)
    kept["positions_mm"] = kept["positions_mm"][::-1]
    with pytest.raises(ValueError, match="in order"):
        HeadVolume(csf=head.csf, **kept)
