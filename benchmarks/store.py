"""The store: bytes a slice, exactness, and decoding against the JPEG of the published way, on one thread."""

import tempfile
from pathlib import Path

import cv2
import numpy as np
from common import compare, parser, phantoms, report
from published import QUALITY, windowed

from ichseq.ct.series import load_series
from ichseq.data.store import read_slices, write_series
from ichseq.windows import BONE_RANGE, HU_RANGE


def main() -> None:
    options = parser(__doc__, patients=6)
    options.add_argument("--dicom", type=Path, help="a real scan to measure on too")
    options.add_argument("--rounds", type=int, default=9)
    asked = options.parse_args()
    cv2.setNumThreads(0)
    sources = {"phantom": phantoms(asked.patients, asked.size)} | ({"real scan": asked.dicom} if asked.dicom else {})
    rows = [["slices", "store KB", "JPEG KB", "largest error of the store in its range", "of the JPEG (grey levels)",
             "decode store ms", "decode JPEG ms", "ratio"]]  # fmt: skip
    for name, source in sources.items():
        rows += [[f"{name}, {low} to {high} HU", *measure(source, asked.rounds, (low, high))]
                 for low, high in (HU_RANGE, BONE_RANGE)]  # fmt: skip
    report("store", "The store against JPEG of three windows, a slice of 512 x 512", rows, [
        f"JPEG quality {QUALITY}; its error is of the brain window, in 0..255. Median of {asked.rounds} rounds in "
        "turns, one thread, checksums of the store included.",
    ])  # fmt: skip


def measure(source: Path, rounds: int, hu_range: tuple[int, int]) -> list[str]:
    series = [one.hu for one in load_series(source)]
    slices = sum(len(hu) for hu in series)
    with tempfile.TemporaryDirectory() as folder:
        stored, jpegs, wrong, grey = [], [], 0, 0
        for number, hu in enumerate(series):
            path = Path(folder) / f"{number}.b2nd"
            write_series(path, hu, hu_range=hu_range)
            stored.append(path)
            wrong = max(wrong, int(np.abs(read_slices(path) - np.clip(hu, *hu_range)).max()))
            for one in hu:
                image = windowed(one)
                jpegs.append(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1])
                back = cv2.imdecode(jpegs[-1], cv2.IMREAD_COLOR)
                grey = max(grey, int(np.abs(back[..., 0].astype(int) - image[..., 0]).max()))
        seconds = compare(
            {
                "store": lambda: [read_slices(path) for path in stored],
                "jpeg": lambda: [cv2.imdecode(jpeg, cv2.IMREAD_COLOR) for jpeg in jpegs],
            },
            rounds,
        )
        store_bytes = sum(path.stat().st_size for path in stored)
    one, other = seconds["store"] / slices * 1e3, seconds["jpeg"] / slices * 1e3
    kilobytes = [f"{size / slices / 1000:.1f}" for size in (store_bytes, sum(map(len, jpegs)))]
    return [*kilobytes, f"{wrong} HU", f"{grey}", f"{one:.3f}", f"{other:.3f}", f"{other / one:.1f}"]


if __name__ == "__main__":
    main()
