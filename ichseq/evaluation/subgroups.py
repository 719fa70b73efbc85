"""Exams in groups by what is known of their scans, to see whether a network is worse on some of them."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from sklearn.metrics import log_loss, roc_auc_score

from ichseq.data.index import Index
from ichseq.errors import DataError, counted
from ichseq.evaluation.bootstrap import Floats, clipped_probability
from ichseq.evaluation.rates import share_of
from ichseq.predictions.calibration import POINTS, LabelCalibration

EDGES: Final[Mapping[str, tuple[str, tuple[float, ...]]]] = {
    "slice_spacing": ("mm", (1.5, 3.5, 6.0)),
    "pixel_size": ("mm", (0.4, 0.46, 0.52)),
    "slices": ("", (20, 40, 100)),
    "bleed_volume": ("ml", (2, 10, 30)),
}
"""Characteristic -> unit, and the ends of its groups: up to the first, over it up to the second, and so on. Usual
are 30 to 40 slices, 5 mm apart, and heads of 200 to 250 mm on 512 pixels."""

UNKNOWN: Final = "unknown"


def characteristics(index: Index, series: np.ndarray) -> dict[str, np.ndarray]:
    """What the index knows of some series, (n,) for each characteristic, NaN or "" where it doesn't.

    slice_spacing: median distance of neighbouring slices; pixel_size: mean over both directions; slices: their number;
    manufacturer: of the scanner.
    """
    spacing = np.full(len(series), np.nan)
    for place, i in enumerate(series):
        steps = np.diff(index.positions_mm[index.offsets[i] : index.offsets[i + 1]])
        if len(steps) and not np.isnan(steps).all():
            spacing[place] = float(np.nanmedian(np.abs(steps)))
    pixels = index.spacing[series].astype(np.float64).mean(axis=1)
    slices = index.lengths[series].astype(np.float64)
    names = index.manufacturers[series]
    return {"slice_spacing": spacing, "pixel_size": pixels, "slices": slices, "manufacturer": names}


def bleed_volumes(path: Path, exams: pd.DataFrame) -> Floats:
    """Volume in ml of all bleeding of each exam, (n,), from the table of bleeds that `ichseq phantom` writes.

    Args:
        path: truth/bleeds.csv of the phantoms.
        exams: the table of exams.

    Raises:
        DataError: no such file, or it is none, or an exam that bleeds is not in it.
    """
    needed = ["patient_id", "series_uid", "volume_ml"]
    try:
        bleeds = pd.read_csv(path, dtype={"patient_id": "str", "series_uid": "str"}, keep_default_na=False)
        volume = bleeds.groupby(needed[:2])["volume_ml"].sum()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: can't be read as a table of bleeds ({type(error).__name__}); it needs the columns "
                        f"{', '.join(needed)}, as truth/bleeds.csv of phantoms has them") from None  # fmt: skip
    known = pd.MultiIndex.from_frame(exams[needed[:2]].astype("str"))
    found = volume.reindex(known).to_numpy(dtype=np.float64)
    missing = np.isnan(found) & (exams["true_any"].to_numpy(dtype=np.float64) == 1)
    if missing.any():
        raise DataError(f"{path}: {counted(int(missing.sum()), 'exam')} with bleeding not in it; name the table of the "
                        "phantoms that were prepared")  # fmt: skip
    return np.nan_to_num(found)


def subgroups(
    score: Floats, truth: Floats, known: Mapping[str, np.ndarray], label: LabelCalibration | None
) -> dict[str, list[dict[str, Any]]]:
    """Figures of exams by group, for bleeding of any kind; the groups of a characteristic hold every exam once.

    Args:
        score: (n,) the exams' raw scores for any.
        truth: (n,) 0, 1, or NaN where unknown.
        known: characteristic -> (n,) its values: numbers of `EDGES`, NaN where unknown, or names, "" where unknown.
        label: the operating points of any; None: there are none.

    Returns:
        Characteristic -> a list of groups that hold an exam: group, exams, bleeding, without_bleeding, log_loss, auc
        and points; what is undefined is None, and undefined says why.
    """
    return {
        name: [
            {"group": group} | _figures(score[rows], truth[rows], label)
            for group, rows in _groups(name, values)
            if rows.any()
        ]
        for name, values in known.items()
    }


def volume_groups(score: Floats, truth: Floats, volume_ml: Floats, label: LabelCalibration | None
                  ) -> list[dict[str, Any]]:  # fmt: skip
    """As `subgroups`, of exams that bleed by how much they do, each group against all exams without bleeding.

    Args:
        score: (n,) the exams' raw scores for any.
        truth: (n,) 0, 1, or NaN where unknown.
        volume_ml: (n,) of all bleeding together; 0 without any.
        label: the operating points of any; None: there are none.
    """
    found = []
    for group, rows in _groups("bleed_volume", volume_ml):
        if (bleeding := rows & (truth == 1)).any():
            chosen = bleeding | (truth == 0)
            found.append({"group": group} | _figures(score[chosen], truth[chosen], label))
    return found


def _groups(name: str, values: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Groups of a characteristic in words, and which cases are of each."""
    if name not in EDGES:
        return [*((one, values == one) for one in sorted({*values} - {""})), (UNKNOWN, values == "")]
    unit, edges = EDGES[name]
    number = np.searchsorted(edges, values - 1e-6, side="left")  # 1.5000001 of a rounded header is 1.5
    missing = np.isnan(values)
    words = [
        f"up to {edges[0]:g}",
        *(f"over {low:g} up to {high:g}" for low, high in itertools.pairwise(edges)),
    ]
    words.append(f"over {edges[-1]:g}")
    groups = [(f"{text} {unit}".strip(), (number == k) & ~missing) for k, text in enumerate(words)]
    return [*groups, (UNKNOWN, missing)]


def _figures(score: Floats, truth: Floats, label: LabelCalibration | None) -> dict[str, Any]:
    known = ~np.isnan(truth)
    bleeding, without = int((truth == 1).sum()), int((truth == 0).sum())
    loss = auc = undefined = None
    if not known.any():
        undefined = "no exam with a known label"
    else:
        loss = float(log_loss(truth[known], clipped_probability(score[known]), labels=[0, 1]))
        if bleeding and without:
            auc = float(roc_auc_score(truth[known], score[known]))
        else:
            undefined = "no exam without bleeding" if bleeding else "no exam with bleeding"
    points = {}
    for name in POINTS:
        threshold = None if label is None else label.points[name].threshold
        if threshold is not None:
            flagged = score >= threshold
            points[name] = {"sensitivity": share_of(flagged[truth == 1]), "specificity": share_of(~flagged[truth == 0])}
    return {
        "exams": len(score), "bleeding": bleeding, "without_bleeding": without, "log_loss": loss, "auc": auc,
        "points": points, "undefined": undefined,
    }  # fmt: skip
