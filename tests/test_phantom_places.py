"""The table of places: pixels of blood, slice by slice, that agree with the table of bleeds and with the labels."""

import csv
from pathlib import Path

import numpy as np
import pytest

from ichseq.errors import DataError
from ichseq.labels import LABELS
from ichseq.phantom import write_phantoms
from ichseq.phantom.places import from_runs, read_places, to_runs


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (16, 3)])
def test_runs_give_the_image_back(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for share in (0, 0.2, 0.7, 1):
        image = rng.random(shape) < share
        assert np.array_equal(from_runs(to_runs(image), shape), image)
    assert to_runs(np.array([[False, True], [True, False]])) == "1 2"


def test_runs_of_another_image_are_refused() -> None:
    for runs in ("3", "3 2 1", "20 8", "-1 2", "a b"):
        with pytest.raises(ValueError):
            from_runs(runs, (5, 5))


@pytest.mark.parametrize("heads", ["analytic", "drawn"])
def test_places_are_those_of_the_bleeds(heads: str, tmp_path: Path) -> None:
    write_phantoms(tmp_path / "set", patients=6, test_patients=2, size=64, seed=3, heads=heads, workers=1)
    truth = tmp_path / "set" / "truth"
    with open(truth / "bleeds.csv", newline="") as file:
        bleeds = [row for row in csv.DictReader(file) if row["min_row"]]
    with open(truth / "places.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    slices, places = {row["sop_uid"] for row in rows}, read_places(truth / "places.csv", (64, 64))
    assert bleeds
    assert slices == {sop for sop, _ in places}
    # Each bleed's extent is that of its pixels in the slices that show enough of it.
    for bleed in bleeds:
        reach = [int(bleed[key]) for key in ("min_row", "max_row", "min_column", "max_column")]
        inside = np.zeros((64, 64), bool)
        inside[reach[0] : reach[1] + 1, reach[2] : reach[3] + 1] = True
        assert any(kind == bleed["kind"] and (mask & inside).any() for (_, kind), mask in places.items())
    areas = {(row["sop_uid"], row["kind"]): 0.0 for row in rows}
    for row in rows:
        areas[row["sop_uid"], row["kind"]] += float(row["area_mm2"])
    positive = set()
    for name in ("stage_2_train.csv", "truth/stage_2_test.csv"):
        with open(tmp_path / "set" / name, newline="") as file:
            for row in csv.DictReader(file):
                sop, _, label = row["ID"].rpartition("_")
                if row["Label"] == "1" and label != "any":
                    positive.add((sop, label))
    assert positive
    assert all(key[1] in LABELS for key in places)
    assert positive <= set(places), "a slice that is positive for a kind shows pixels of it"
    assert all(areas[key] >= 20 for key in positive)


def test_a_table_of_other_slices_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="ichseq phantom"):
        read_places(tmp_path / "places.csv", (64, 64))
    (tmp_path / "places.csv").write_text("sop_uid,kind,bleed,area_mm2,runs\na,subdural,0,3.0,4000 200\n")
    with pytest.raises(DataError, match="no runs of 64 x 64"):
        read_places(tmp_path / "places.csv", (64, 64))
