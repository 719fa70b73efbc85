"""The pictures of one exam, written as they are read: no more of a long scan is in memory than of a short one."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ichseq.ct.left_out import SliceError
from ichseq.ct.series import Series
from ichseq.html_report.pictures import heat_picture, key_picture, slice_picture, small_heat
from ichseq.html_report.view import Pictures
from ichseq.inference.heatmap import heatmaps_in_turn
from ichseq.inference.model_ensemble import ModelEnsemble
from ichseq.predictions.findings import ExamFindings

HEAT_MAPS: Final = 600
"""Heat maps of an exam at most, those of the slices with the highest scores, so that a long scan takes minutes."""

_THREADS: Final = 2
_AHEAD: Final = 4  # pictures that wait to be encoded


def draw_slices(series: Series, sop_uids: Sequence[str], findings: ExamFindings, folder: Path) -> dict[int, str]:
    """Write a picture of each slice, and a small one of each key slice.

    Args:
        series: where the pixels are; it may lack some of the slices.
        sop_uids: of the exam's slices.
        findings: which slices are key slices.
        folder: where the pictures go.

    Returns:
        The slices that are not there or can't be read again, with reasons; they have no picture.

    Raises:
        OSError: a picture can't be written.
    """
    missing: dict[int, str] = {}
    waiting: deque[Future[None]] = deque()
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="picture") as threads:
        for number, place in enumerate(_places(series, sop_uids)):
            if place is None:
                missing[number] = "not among the scans"
                continue
            try:
                (hu,) = series.read(place, place + 1)
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


def _places(series: Series, sop_uids: Sequence[str]) -> list[int | None]:
    """Where each slice of an exam lies in a series; a series with a UID twice is known by its order."""
    if list(sop_uids) == series.sop_uids:
        return list(range(len(series)))
    there = {uid: place for place, uid in enumerate(series.sop_uids)}
    return [there.get(uid) for uid in sop_uids]


def _write(path: Path, draw: Callable[[NDArray[np.int16]], bytes], hu: NDArray[np.int16]) -> None:
    path.write_bytes(draw(hu))


def draw_heat(
    ensemble: ModelEnsemble, series: Series, findings: ExamFindings, folder: Path, pictures: Pictures
) -> None:
    """Write the heat maps of what is flagged, a file a slice, and note them in `pictures`.

    Full colour is the strongest place of a label in the slice: where, and not how sure, which the scores say.

    Raises:
        ScanError: a slice can't be read.
        ConfigError: the models have no heat maps.
        OSError: a picture can't be written.
    """
    wanted, pictures.left = heat_wanted(findings)
    number, tiles = -1, dict[str, NDArray[np.float32]]()
    for one in heatmaps_in_turn(ensemble, series, wanted):
        if one.slice != number:
            _write_heat(folder, number, tiles, pictures)
            number, tiles = one.slice, {}
        tiles[one.label] = small_heat(one.values)
    _write_heat(folder, number, tiles, pictures)


def _write_heat(folder: Path, number: int, tiles: dict[str, NDArray[np.float32]], pictures: Pictures) -> None:
    """The heat maps of one slice, if there are any."""
    if tiles:
        scaled = [values / (float(values.max()) or 1) for values in tiles.values()]
        (folder / f"h{number:04d}.webp").write_bytes(heat_picture(scaled))
        pictures.heat[number] = list(tiles)


def heat_wanted(findings: ExamFindings) -> tuple[dict[str, list[int]], int]:
    """For each flagged label the slices whose heat map is drawn, and how many more are flagged for it."""
    flagged = [one for one in findings.labels.values() if one.flagged]
    wanted: dict[str, list[int]] = {}
    left = 0
    for one in flagged:
        numbers = sorted({one.key_slice, *one.flagged_slices}, key=lambda k: -one.slices[k])
        most = HEAT_MAPS // len(flagged)
        wanted[one.label] = sorted(numbers[:most])
        left += len(numbers[most:])
    return wanted, left
