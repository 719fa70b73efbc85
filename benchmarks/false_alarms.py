"""Warnings of each kind for each folder of head CT, and series that would not be predicted: false alarms where all are
plain heads.
"""

import re
from collections import Counter
from pathlib import Path

from common import parser, report

from ichseq.ct.plausible import Plausibility
from ichseq.ct.series import load_series


def main() -> None:
    options = parser(__doc__)
    options.add_argument("folders", nargs="+", type=Path, help="folders or zips of head CT, each a column")
    counts = {folder.name: warned(folder) for folder in options.parse_args().folders}
    kinds = sorted({kind for of in counts.values() for kind in of} - {"series", "slices"})
    rows = [["", *counts]]
    rows += [[kind, *(str(of[kind]) for of in counts.values())] for kind in ("series", "slices", *kinds)]
    report("false-alarms", "Warnings of plain head CT", rows, [
        "A row a kind of warning, in series; 'not predicted': the series is surely no plain picture of a head.",
    ])  # fmt: skip


def warned(folder: Path) -> Counter[str]:
    """How many series have each kind of warning, numbers in it aside; and how many series and slices there are."""
    found: Counter[str] = Counter()
    for series in load_series(folder):
        looks = Plausibility(series)
        whole, left_out = series.readable(looks.add)
        words = [*(series if whole is None else whole).warnings, *looks.warnings()]
        words += ["not predicted"] * bool(looks.no_head()) + ["slices that can't be read"] * bool(left_out)
        found.update({re.sub(r"\d+(\.\d+)?", "N", text) for text in words})
        found.update(series=1, slices=len(series))
    return found


if __name__ == "__main__":
    main()
