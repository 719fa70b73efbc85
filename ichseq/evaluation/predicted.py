"""What runs predicted of the patients they held out, brought together for a blend."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ichseq.errors import DataError, RunError, counted
from ichseq.labels import LABELS
from ichseq.predictions.ensemble import read_table
from ichseq.runs.folders import find_leaves, read_run

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
    """

    name: str
    table: pd.DataFrame
    data_key: str | None = None
    folds: tuple[int, ...] = ()
    prevalences: tuple[Sequence[float | None], ...] = ()


def find_predicted(path: Path) -> Predicted:
    """The predictions of a run folder, a leaf or a table file (.csv, .parquet).

    Of a run folder with several folds, their tables one below the other; a run with several stages stands for its
    last one.

    Raises:
        RunError: there is no such run, or `ichseq evaluate` has not scored a fold of it.
        DataError: a table is missing or not what it should be, or an exam stands in two folds.
    """
    if path.is_file() or path.suffix in _TABLES:
        return Predicted(str(path), read_table(path))
    leaves = find_leaves(path)
    runs = [read_run(leaf) for leaf in leaves]
    missing = [leaf for leaf in leaves if not (leaf / "predictions.parquet").is_file()]
    if missing:
        fold = runs[leaves.index(missing[0])]["fold"]
        raise RunError(
            f"{missing[0]}: no predictions.parquet; run `ichseq evaluate --fold {fold} --run {missing[0]}` first"
        )
    keys = [_data_key(leaf, run) for leaf, run in zip(leaves, runs, strict=True)]
    for leaf, key in zip(leaves, keys, strict=True):
        if key != keys[0]:
            raise RunError(f"{leaves[0]} and {leaf} were evaluated on different data sets; evaluate them on the same")
    table = pd.concat([read_table(leaf / "predictions.parquet") for leaf in leaves], ignore_index=True)
    twice = table.duplicated(["series_uid", "sop_uid"])
    if twice.any():
        number = counted(table[twice]["series_uid"].nunique(), "exam")
        raise DataError(f"{path}: {number} in more than one fold; evaluate its folds on one prepared set")
    prevalences = tuple(run.get("prevalence") or [None] * len(LABELS) for run in runs)
    return Predicted(str(path), table, keys[0], tuple(run["fold"] for run in runs), prevalences)


def _data_key(leaf: Path, run: dict[str, Any]) -> str | None:
    """The key of the set that was predicted; where nothing says so, of the one that the run was trained on."""
    file = leaf / "metrics.json"
    if not file.is_file():
        return run.get("data_key")
    try:
        return json.loads(file.read_text(encoding="utf-8"))["data_key"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RunError(f"{file}: can't be read ({type(error).__name__}); run `ichseq evaluate` again") from None


def refuse_unlike(every: Sequence[Predicted]) -> None:
    """Refuse what can't be blended, as far as the runs tell; `ensemble.blend` looks at the slices.

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
                f"{with_folds[0].name} ({_folds(with_folds[0])}) and {one.name} ({_folds(one)}) are of different "
                "folds; blend runs of the same folds"
            )


def _folds(one: Predicted) -> str:
    return f"fold{'s' * (len(one.folds) > 1)} {', '.join(map(str, one.folds))}"


def mean_prevalence(every: Sequence[Predicted]) -> list[float | None] | None:
    """Mean of the training prevalences of all runs and folds, None for a label where one is not known."""
    rows = [prevalence for one in every for prevalence in one.prevalences]
    if not rows:
        return None
    means = np.array(rows, dtype=np.float64).mean(axis=0)
    return [None if np.isnan(mean) else float(mean) for mean in means]
