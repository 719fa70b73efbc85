"""How often the peak of a heat map lies in the bleeding, on phantoms whose bleeding is known pixel by pixel.

A slice counts for a label where it bleeds so (20 mm2 of it or more) and its score is above --above. A hit is a peak in
the bleed or within 5 mm of it. Chance: a peak drawn from the head's pixels, or from the brain's.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from common import DATA, parser, report
from scipy import ndimage

from ichseq.api import as_ensemble
from ichseq.ct.series import Series, load_series
from ichseq.inference.heatmap import Depth, heatmaps_in_turn
from ichseq.inference.predict import predict_series
from ichseq.labels import LABELS
from ichseq.networks.shipped import DEFAULT
from ichseq.phantom import write_phantoms
from ichseq.phantom.places import read_places

WITHIN_MM, LEAST_MM2 = 5.0, 20.0
SIZES = ((LEAST_MM2, 150.0), (150.0, 600.0), (600.0, np.inf))
CHANCES = ("head", "brain")


class Slice(NamedTuple):
    """One slice and label: the area of the bleed in mm2, and by name of a map or a chance, whether it hits."""

    label: str
    area: float
    hits: dict[str, float]


def main() -> None:
    options = parser(__doc__ or "", patients=120, size=256)
    options.add_argument("--run", default=DEFAULT, help="a run, or the name of a network that ships")
    options.add_argument("--seed", type=int, default=502, help="of the phantoms")
    options.add_argument("--above", type=float, default=0.5, help="score from which a slice counts")
    options.add_argument("--depth", nargs="+", default=["fine"], choices=["fine", "last"], help="which maps")
    options.add_argument("--tta", default="", help="views, with a comma")
    asked = options.parse_args()
    folder = DATA / f"drawn-{asked.patients}-{asked.size}-{asked.seed}"
    if not folder.is_dir():
        print(f"making {asked.patients} phantoms ...", file=sys.stderr)
        write_phantoms(folder, patients=asked.patients, test_patients=0, size=asked.size, seed=asked.seed,
                       heads="drawn")  # fmt: skip
    tta = [one for one in asked.tta.split(",") if one]
    found = list(measured(folder, asked.run, above=asked.above, tta=tta, depths=asked.depth))
    names = [*(f"chance, {one}" for one in CHANCES), *(f"heat map, {one}" for one in asked.depth)]
    rows: list[list[object]] = [["label", "mm2 of the bleed in the slice", "slices", *names]]
    for label in LABELS:
        of_label = [one for one in found if one.label == label]
        rows.append([label, "all", *shares(of_label, asked.depth)])
        for low, high in SIZES:
            name = f"{low:.0f} to {high:.0f}" if high < np.inf else f"{low:.0f} and more"
            rows.append([label, name, *shares([one for one in of_label if low <= one.area < high], asked.depth)])
    report("heatmap", f"Peaks of the heat maps of {asked.run} that lie in the bleeding", rows, [
        f"{asked.patients} phantoms (drawn heads, {asked.size} pixels, seed {asked.seed}); slices that bleed and score "
        f"above {asked.above}; a hit is a peak in the bleed or within {WITHIN_MM:.0f} mm of it, shares of slices. "
        "Chance: a peak drawn from the pixels of the head, or of the brain. "
        f"Load of the machine in the last minute: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.",
    ])  # fmt: skip


def shares(slices: list[Slice], depths: list[str]) -> list[str]:
    """How many slices, and the share of hits by chance and by each map."""
    every = [f"{np.mean([one.hits[name] for one in slices]):.2f}" if slices else "-" for name in (*CHANCES, *depths)]
    return [str(len(slices)), *every]


def measured(folder: Path, run: str, *, above: float, tta: list[str], depths: list[Depth]) -> Iterator[Slice]:
    """The slices that count, of the series that bleed."""
    ensemble = as_ensemble(run, tta=tta)
    found = load_series(folder / "stage_2_train")
    places = read_places(folder / "truth" / "places.csv", found[0].shape[1:])
    bleeding = {sop for sop, _ in places}
    for number, series in enumerate(found):
        if bleeding.isdisjoint(series.sop_uids):
            continue
        print(f"series {number + 1} of {len(found)}", file=sys.stderr)
        table = predict_series(ensemble, series).table
        assert table is not None
        truth = truth_of(series, places)
        wanted = {label: [k for k, one in masks.items() if table[label].iloc[k] > above]
                  for label, masks in truth.items()}  # fmt: skip
        peaks: dict[tuple[str, int], dict[str, tuple[int, int]]] = {}
        for depth in depths:
            for one in heatmaps_in_turn(ensemble, series, wanted, depth=depth):
                place = np.unravel_index(int(one.values.argmax()), one.values.shape)
                peaks.setdefault((one.label, one.slice), {})[depth] = (int(place[0]), int(place[1]))
        for (label, k), of_depths in peaks.items():
            mask = truth[label][k]
            near = ndimage.distance_transform_edt(~mask, sampling=series.spacing_mm) <= WITHIN_MM
            head, brain = head_and_brain(series.read(k, k + 1)[0])
            chance = {"head": near[head].mean(), "brain": near[brain].mean() if brain.any() else 0.0}
            hits = chance | {depth: float(near[place]) for depth, place in of_depths.items()}
            yield Slice(label, mask.sum() * np.prod(series.spacing_mm), hits)


def truth_of(series: Series, places: dict[tuple[str, str], np.ndarray]) -> dict[str, dict[int, np.ndarray]]:
    """For each label the slices that bleed so, with the pixels."""
    found: dict[str, dict[int, np.ndarray]] = {label: {} for label in LABELS}
    for k, sop in enumerate(series.sop_uids):
        masks = {kind: places[sop, kind] for kind in LABELS[:5] if (sop, kind) in places}
        if masks:
            masks["any"] = np.any(list(masks.values()), axis=0)
        for label, mask in masks.items():
            if mask.sum() * np.prod(series.spacing_mm) >= LEAST_MM2:
                found[label][k] = mask
    return found


def head_and_brain(hu: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bool (rows, columns): the largest body in the slice, filled; and in it what bone encloses and is no bone."""
    parts, _ = ndimage.label(ndimage.binary_opening(hu > -100, iterations=2))
    head = ndimage.binary_fill_holes(parts == np.bincount(parts.ravel())[1:].argmax() + 1)
    inside = ndimage.binary_fill_holes(hu > 300) & (hu < 300) & (hu > -50)
    return head, head & ndimage.binary_opening(inside, iterations=2)


if __name__ == "__main__":
    main()
