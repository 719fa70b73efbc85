"""What runs predicted of patients that they did not train on, brought together to be blended or compared."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ichseq.errors import DataError, RunError, counted
from ichseq.evaluation.compare import auc_differences, paired_difference
from ichseq.evaluation.score import Prevalence, score
from ichseq.labels import CLIP_PROBABILITY
from ichseq.predictions.blend import blend
from ichseq.predictions.check import Unit, count_shared_exams
from ichseq.predictions.read import read_exams, read_table
from ichseq.predictions.schema import EXAM_KEY, has_truth
from ichseq.predictions.smooth import By, Smoothing, clip, smooth_by_name
from ichseq.runs.folders import find_leaves, has_model
from ichseq.runs.names import EXAMS, PREDICTIONS, folds_text
from ichseq.runs.records import data_key_of, read_predictions, read_run

_TABLES = (".csv", ".parquet")


@dataclass(frozen=True)
class Predicted:
    """A prediction table and where it comes from.

    Attributes:
        name: as the user gave it.
        table: of all folds.
        data_key: of the prepared set that was predicted; None: not known.
        folds: that were predicted; none: not known.
        prevalences: of the six labels in training, a row a fold.
        exams: the table of exams, of all folds; None: there is none.
    """

    name: str
    table: pd.DataFrame
    data_key: str | None = None
    folds: tuple[int, ...] = ()
    prevalences: tuple[Prevalence, ...] = ()
    exams: pd.DataFrame | None = None


def blend_predicted(
    every: Sequence[Predicted],
    weights: Sequence[float] | None = None,
    *,
    smoothing: Smoothing = "none",
    by: By = "series",
    least: float = CLIP_PROBABILITY,
) -> tuple[pd.DataFrame, dict[str, Any] | None]:
    """Blend, smooth and clip what was brought together, and score it where a label is known.

    Args:
        every: predictions over the same slices.
        weights: one for each; None: all alike.
        smoothing: over 3 neighbouring slices.
        by: neighbours of a series, or of all a patient's slices.
        least: probabilities are clipped to [least, 1 - least].

    Returns:
        The table, and its figures as `score` gives them; None without truth.

    Raises:
        ConfigError: weights, smoothing or clipping that do not fit.
        RunError: predictions of different data sets or folds.
        DataError: predictions of other slices, or with another truth.
    """
    refuse_unlike(every)
    table = blend([one.table for one in every], weights, [one.name for one in every])
    table = clip(smooth_by_name(table, smoothing, by=by), least)
    prevalences = [prevalence for one in every for prevalence in one.prevalences]
    return table, score(table, prevalences) if has_truth(table) else None


def compare_predicted(one: Predicted, other: Predicted, *, draws: int = 1000) -> dict[str, Any]:
    """Compare two runs on the same slices, and on the same exams where both have a table of them.

    Args:
        one: predictions.
        other: predictions over the same slices.
        draws: of the bootstrap over patients.

    Returns:
        A dict that is strict JSON: slices and exams, each what `paired_difference` gives with auc, what
        `auc_differences` gives; exams is None where there is nothing to compare, and undefined says why.

    Raises:
        RunError: predictions of different data sets or folds.
        DataError: as `paired_difference`, or nothing can be compared.
    """
    refuse_unlike([one, other])
    names = (one.name, other.name)
    result: dict[str, Any] = {"slices": None, "exams": None, "undefined": {}}
    sides: tuple[tuple[Unit, pd.DataFrame | None, pd.DataFrame | None], ...] = (
        ("slice", one.table, other.table),
        ("exam", one.exams, other.exams),
    )
    for unit, first, second in sides:
        lacking = [name for name, table in zip(names, (first, second), strict=True) if table is None]
        if first is None or second is None:
            result["undefined"][f"{unit}s"] = f"no table of exams of {', '.join(lacking)}; evaluate again"
        elif unit == "exam" and any(table.duplicated(list(EXAM_KEY)).any() for table in (first, second)):
            result["undefined"]["exams"] = "parts of a split series share their identifiers, and can not be matched"
        elif not has_truth(first) and not has_truth(second):
            result["undefined"][f"{unit}s"] = f"no {unit} with a known label"
        else:
            loss = paired_difference(first, second, unit=unit, draws=draws, names=names)
            result[f"{unit}s"] = loss | {"auc": auc_differences(first, second, unit=unit, names=names)}
    if result["slices"] is None and result["exams"] is None:
        raise DataError(f"{one.name} and {other.name}: {'; '.join(result['undefined'].values())}; evaluate both with "
                        "labels")  # fmt: skip
    return result


def find_predicted(path: Path) -> Predicted:
    """The predictions of a run folder, a leaf, a folder of an evaluation or a table file (.csv, .parquet).

    Of a run folder with several folds, their tables one below the other; a run with several stages stands for its
    last one. A folder of an evaluation is that of all folds together or of another set.

    Raises:
        RunError: there is no such run, or `ichseq evaluate` has not scored a fold of it.
        DataError: a table is missing or not what it should be, or an exam stands in two folds.
    """
    if path.is_file() or path.suffix in _TABLES:
        return Predicted(str(path), read_table(path))
    if (path / PREDICTIONS).is_file() and not has_model(path):
        return Predicted(str(path), read_table(path / PREDICTIONS), exams=_exams([path]))
    leaves = find_leaves(path)
    tables = [read_predictions(leaf) for leaf in leaves]
    keys = [data_key_of(leaf) for leaf in leaves]
    for leaf, key in zip(leaves, keys, strict=True):
        if key != keys[0]:
            raise RunError(f"{leaves[0]} and {leaf} were evaluated on different data sets; evaluate them on the same")
    shared = count_shared_exams(tables)
    if shared:
        raise DataError(f"{path}: {counted(shared, 'exam')} in more than one fold; evaluate its folds on one prepared "
                        "set")  # fmt: skip
    runs = [read_run(leaf) for leaf in leaves]
    return Predicted(
        str(path),
        pd.concat(tables, ignore_index=True),
        keys[0],
        tuple(run["fold"] for run in runs),
        tuple(run.get("prevalence") for run in runs),
        _exams(leaves),
    )


def _exams(folders: Sequence[Path]) -> pd.DataFrame | None:
    """The tables of exams of some folders, one below the other; None where one has none."""
    if not all((folder / EXAMS).is_file() for folder in folders):
        return None
    return pd.concat([read_exams(folder / EXAMS) for folder in folders], ignore_index=True)


def refuse_unlike(every: Sequence[Predicted]) -> None:
    """Refuse what can't be blended, as far as the runs tell; `blend` looks at the slices.

    Raises:
        RunError: two are of different data sets or folds.
    """
    with_key = [one for one in every if one.data_key is not None]
    for one in with_key[1:]:
        if one.data_key != with_key[0].data_key:
            raise RunError(
                f"{with_key[0].name} and {one.name} were evaluated on different data sets; evaluate them on the same"
            )
    with_folds = [one for one in every if one.folds]
    for one in with_folds[1:]:
        if one.folds != with_folds[0].folds:
            raise RunError(
                f"{with_folds[0].name} ({folds_text(with_folds[0].folds)}) and {one.name} ({folds_text(one.folds)}) "
                "are of different folds; blend runs of the same folds"
            )
