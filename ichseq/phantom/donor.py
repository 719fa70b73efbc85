"""Donors: real head CT without bleeding, read once, of which many training exams are made (`donor_exam.py`).

A donor is believed to be free of bleeding, unless a label table in its folder tells otherwise.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ichseq.ct.series import Series, load_series
from ichseq.errors import DataError, ScanError
from ichseq.labels import LABELS
from ichseq.phantom.donor_anatomy import FoundAnatomy, find_anatomy, fluid_share

LABEL_FILE = "stage_2_train.csv"


@dataclass
class Donor:
    """A head that gives its picture to made-up exams.

    Attributes:
        name: the series as messages call it: its folder and first file.
        hu: int16 (Z, Y, X), feet to head, rows to the back, columns to the patient's left.
        fluid: uint8 (Z, Y, X), 255 times the share of fluid.
        positions_mm: (Z,), ascending.
        pixel_mm: distance of rows and columns.
        anatomy: what was found in it.
        labels: (Z, 6), 0 or 1, in the order of `labels.LABELS`.
    """

    name: str
    hu: NDArray[np.int16]
    fluid: NDArray[np.uint8]
    positions_mm: NDArray[np.float64]
    pixel_mm: float
    anatomy: FoundAnatomy
    labels: NDArray[np.int64]

    @property
    def to_place(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Matrix (3, 3) and offset (3,): place in the standard head from z in mm, y and x in mm of the coarse grid."""
        planes, rows, columns = self.anatomy.depth_mm.shape
        ends = self.anatomy.place[:, [0, -1, 0, 0], [0, 0, -1, 0], [0, 0, 0, -1]].astype(np.float64)  # (3, 4)
        lengths = np.array([planes - 1, rows - 1, columns - 1]) * self.anatomy.step
        return (ends[:, 1:] - ends[:, :1]) / lengths, ends[:, 0]


def read_donors(folders: Sequence[Path]) -> list[Donor]:
    """Read every head of the folders (or zips) that can be a donor.

    Args:
        folders: of DICOM files; a label table (`stage_2_train.csv` of a set, by SOPInstanceUID) may lie in each.

    Raises:
        ScanError: a folder without a head CT that can be a donor: no scan, too few slices, no skull found.
        DataError: a label table that can't be read.
    """
    donors = []
    for folder in folders:
        series = load_series(folder)
        labels = _read_labels(Path(folder) / LABEL_FILE)
        found, refused = [], list[ScanError]()
        for one in series:
            try:
                found.append(make_donor(one, labels))
            except ScanError as error:
                refused.append(error)
        if not found:
            more = f" (and {len(refused) - 1} more series)" if len(refused) > 1 else ""
            raise ScanError(refused[0].file, f"{refused[0].reason}{more}")
        donors += found
    return donors


def make_donor(series: Series, labels: dict[str, list[int]] | None = None) -> Donor:
    """Make a donor of a series; labels by SOPInstanceUID, slices that are not among them have none.

    Raises:
        ScanError: the series can't be a donor.
    """
    name = series.files[0]
    rows_mm, columns_mm = series.spacing_mm
    if not (np.isfinite(rows_mm) and abs(rows_mm - columns_mm) < 0.01 * rows_mm):
        raise ScanError(name, "a donor needs square pixels of a known size; leave this series out")
    positions = np.asarray(series.positions_mm, np.float64)
    if not np.isfinite(positions).all() or (np.diff(positions) < 1e-3).any():
        raise ScanError(name, "a donor needs the position of every slice; leave this series out")
    hu = _as_seen_from_below(series)
    anatomy = find_anatomy(hu.astype(np.float32), positions, rows_mm, name)
    fluid = fluid_share(hu.astype(np.float32), anatomy.brain_hu, rows_mm)
    known = labels or {}
    return Donor(
        name=name,
        hu=hu,
        fluid=np.rint(255 * fluid).astype(np.uint8),
        positions_mm=positions,
        pixel_mm=rows_mm,
        anatomy=anatomy,
        labels=np.array([known.get(uid, [0] * len(LABELS)) for uid in series.sop_uids]),
    )


def _as_seen_from_below(series: Series) -> NDArray[np.int16]:
    """The pixels with columns to the patient's left and rows to the back, as axial slices lie by habit."""
    hu = np.ascontiguousarray(series.hu)
    across, down = series.orientation[:3], series.orientation[3:]
    if abs(across[0]) < 0.8 or abs(down[1]) < 0.7:
        raise ScanError(series.files[0], "its rows don't run from side to side; a donor has axial slices")
    return np.ascontiguousarray(hu[:, :: int(np.sign(down[1])), :: int(np.sign(across[0]))])


def _read_labels(path: Path) -> dict[str, list[int]] | None:
    """Labels by SOPInstanceUID of a table in the long layout of the RSNA 2019 set; None if there is no table.

    Raises:
        DataError: it can't be read, or is of another layout.
    """
    if not path.is_file():
        return None
    table: dict[str, list[int]] = {}
    try:
        with open(path, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                uid, _, label = row["ID"].rpartition("_")
                table.setdefault(uid, [0] * len(LABELS))[LABELS.index(label)] = int(float(row["Label"]) > 0)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: is no label table with the columns ID and Label ({type(error).__name__}); repair or remove it"
        ) from None
    return table
