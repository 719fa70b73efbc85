"""The pictures of one exam, written as they are read: no more of a long scan is in memory than of a short one."""

from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ichseq.ct.left_out import SliceError
from ichseq.ct.series import Series
from ichseq.html_report.pictures import heat_picture, key_picture, slice_picture
from ichseq.html_report.view import Pictures
from ichseq.inference.model_ensemble import ModelEnsemble
from ichseq.predictions.findings import ExamFindings

HEAT_MAPS: Final = 150
"""Heat maps of an exam at most, those of the highest scores: of 512 x 512 pixels they take 160 MB of memory."""

_THREADS: Final = 2
_AHEAD: Final = 4  # pictures that wait to be encoded


def draw_slices(series: Series, findings: ExamFindings, folder: Path) -> dict[int, str]:
    """Write a picture of each slice, and a small one of each key slice.

    Returns:
        The slices that can't be read again, with reasons; a picture file of theirs is not there.

    Raises:
        OSError: a picture can't be written.
    """
    missing: dict[int, str] = {}
    waiting: deque[Future[None]] = deque()
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="picture") as threads:
        for number in range(len(series)):
            try:
                (hu,) = series.read(number, number + 1)
            except SliceError as error:
                missing[number] = error.reason.partition(":")[0]
                continue
            waiting.append(threads.submit(_write, folder / f"s{number:04d}.webp", slice_picture, hu))
            if number in findings.key_slices or number == findings.key_slice:
                waiting.append(threads.submit(_write, folder / f"k{number:04d}.webp", key_picture, hu))
            while len(waiting) > _AHEAD:
                waiting.popleft().result()
        for one in waiting:
            one.result()
    return missing


def _write(path: Path, draw: Callable[[NDArray[np.int16]], bytes], hu: NDArray[np.int16]) -> None:
    path.write_bytes(draw(hu))


def draw_heat(
    ensemble: ModelEnsemble, series: Series, findings: ExamFindings, folder: Path, pictures: Pictures
) -> None:
    """Write the heat maps of what is flagged, a file a slice, and note them in `pictures`.

    Full colour is the strongest place of a label in the exam, so that its slices compare.

    Raises:
        ScanError: a slice can't be read.
        OSError: a picture can't be written.
    """
    from ichseq.inference.heatmap import ensemble_heatmaps

    wanted, pictures.left = heat_wanted(findings)
    if not wanted:
        return
    maps = ensemble_heatmaps(ensemble, series, wanted)
    scales = {label: float(of_label.max()) or 1.0 for label, of_label in maps.items()}
    for number in sorted({number for numbers in wanted.values() for number in numbers}):
        labels = [label for label, numbers in wanted.items() if number in numbers]
        tiles = [maps[label][list(wanted[label]).index(number)] / scales[label] for label in labels]
        (folder / f"h{number:04d}.webp").write_bytes(heat_picture(tiles))
        pictures.heat[number] = labels


def heat_wanted(findings: ExamFindings) -> tuple[Mapping[str, list[int]], int]:
    """For each flagged label the slices whose heat map is drawn, and how many more are flagged."""
    flagged = [one for one in findings.labels.values() if one.flagged]
    wanted: dict[str, list[int]] = {}
    left = 0
    for one in flagged:
        numbers = sorted({one.key_slice, *one.flagged_slices}, key=lambda k: -one.slices[k])
        most = HEAT_MAPS // len(flagged)
        wanted[one.label] = sorted(numbers[:most])
        left += len(numbers[most:])
    return wanted, left
