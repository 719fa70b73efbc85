"""Where blood lies in each made-up slice, pixel by pixel: truth/places.csv, written and read."""

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ichseq.errors import DataError

PLACE_COLUMNS = ("sop_uid", "kind", "bleed", "area_mm2", "runs")


def to_runs(inside: NDArray[np.bool_]) -> str:
    """The true pixels of an image as "start length start length ...", counted along its rows from 0."""
    padded = np.concatenate([[False], inside.ravel(), [False]])
    ends = np.flatnonzero(padded[1:] != padded[:-1])
    ends[1::2] -= ends[::2]
    return " ".join(map(str, ends))


def from_runs(runs: str, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The image that `to_runs` was given, of that shape.

    Raises:
        ValueError: no runs of such an image.
    """
    numbers = np.array(runs.split(), np.int64)
    starts, lengths = numbers[::2], numbers[1::2]
    if len(starts) != len(lengths) or (numbers < 0).any() or (starts + lengths > shape[0] * shape[1]).any():
        raise ValueError(f"these are no runs of {shape[0]} x {shape[1]} pixels")
    flat = np.zeros(shape[0] * shape[1], bool)
    for start, length in zip(starts, lengths, strict=True):
        flat[start : start + length] = True
    return flat.reshape(shape)


def read_places(path: Path, shape: tuple[int, int]) -> dict[tuple[str, str], NDArray[np.bool_]]:
    """Bool (rows, columns) for each slice and kind: where blood of that kind fills a third of a pixel or more.

    Args:
        path: truth/places.csv of a set of phantoms.
        shape: rows and columns of its slices.

    Raises:
        DataError: it is missing, or no such table, or one of slices of another size.
    """
    found: dict[tuple[str, str], NDArray[np.bool_]] = {}
    try:
        with open(path, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                key = row["sop_uid"], row["kind"]
                inside = from_runs(row["runs"], shape)
                found[key] = found[key] | inside if key in found else inside
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror}); `ichseq phantom` writes it") from None
    except (KeyError, ValueError) as error:
        raise DataError(f"{path}: is no table of places of such phantoms ({error}); make them again") from None
    return found
