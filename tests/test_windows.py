"""What networks with these windows read, and what of it a store keeps."""

import pytest

from ichseq.data.store import is_range
from ichseq.windows import BONE_RANGE, CHANNEL_MEAN, CHANNEL_STD, DEFAULT_WINDOWS, HU_RANGE, WINDOWS, range_read


def test_the_default_windows_need_no_more_than_is_always_kept() -> None:
    assert range_read(DEFAULT_WINDOWS) == range_read([]) == HU_RANGE
    assert set(DEFAULT_WINDOWS) <= CHANNEL_MEAN.keys() == CHANNEL_STD.keys()


@pytest.mark.parametrize("name", WINDOWS)
def test_what_is_read_holds_the_windows_and_what_is_always_kept(name: str) -> None:
    centre, width = WINDOWS[name]
    for windows in ([name], ["brain", name]):
        low, high = range_read(windows)
        assert low <= min(HU_RANGE[0], centre - width / 2) < low + 1
        assert high - 1 < max(HU_RANGE[1], centre + width / 2) <= high
        assert BONE_RANGE[0] <= low < high <= BONE_RANGE[1]


def test_a_store_keeps_what_every_network_reads_or_more() -> None:
    assert all(is_range(*one) for one in (HU_RANGE, BONE_RANGE, range_read(WINDOWS.keys()), (-32767, 32767)))
    for refused in [(-199, 823), (-200, 822), (823, -200), (-32768, 823), (-200, 32768)]:
        assert not is_range(*refused)
