"""What `ichseq.ct.plausible` sees of a series."""

from pathlib import Path

from ichseq.ct.plausible import Plausibility
from ichseq.ct.series import load_series


def looked_at(source: Path) -> Plausibility:
    (series,) = load_series(source)
    looks = Plausibility(series)
    for one in series.hu:
        looks.add(one)
    return looks
