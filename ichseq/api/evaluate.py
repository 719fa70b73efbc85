"""evaluate: a run, scored on the patients that it kept for validation, or on a set that it never saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ichseq.api.fold import Fold, fold_number
from ichseq.api.progress import Bar, bar_of
from ichseq.data import DEFAULT_SET

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Evaluation:
    """A run, scored.

    Attributes:
        metrics: the content of metrics.json.
        table: the prediction table, with the truth.
        exams: the table of exams, with the truth.
        folder: where predictions.parquet, exams.parquet, metrics.json, curves.csv and evaluation.html are.
    """

    metrics: dict[str, Any]
    table: pd.DataFrame
    exams: pd.DataFrame
    folder: Path

    def __repr__(self) -> str:
        loss, auc = self.metrics["weighted_log_loss"], self.metrics["exam"]["auc_any"]
        figures = [("weighted log loss", loss), ("exam AUC", auc)]
        return f"Evaluation({self.folder}: {', '.join(f'{n} {v:.4f}' for n, v in figures if v is not None)})"

    def text(self) -> str:
        """The figures for a person to read."""
        from ichseq.evaluation.report import metrics_text

        return metrics_text(self.metrics)


@dataclass(frozen=True)
class Asked:
    """What `evaluate` scores.

    Attributes:
        run: the run, the leaf or the experiment's result that was meant.
        folders: its leaves, or models.
        fold: the fold's number or "all"; None: all of a set that the run never saw.
    """

    run: Path
    folders: list[Path]
    fold: Fold | None


def evaluate(
    run: str | Path | None = None,
    fold: Fold | None = None,
    *,
    data: str | Path = DEFAULT_SET,
    bag: int = 0,
    tta: Sequence[str] = (),
    bleeds: str | Path | None = None,
    device: str = "auto",
    progress: bool | Bar = True,
) -> Evaluation:
    """Score a run on the patients that it kept for validation, or on a set that it never saw.

    Writes predictions.parquet, exams.parquet, metrics.json, curves.csv, and evaluation.html with its picture.

    Args:
        run: runs/NAME or a leaf of it, or for a set that it never saw an experiment's result or the name of a network
            (see `predict`), whose figures go to runs/NAME; None: the newest run.
        fold: a fold's number, or "all": every fold by the leaf that did not train on it, as one table. None: of the
            set that the run was trained on, fold 0 or the only one that it has; of another set, all of it, by the
            models of all folds together.
        data: the prepared set.
        bag: the mean over the weights of the last epochs, so many; 0: the best weights.
        tta: views averaged with the slices as they are: "flip", "transpose".
        bleeds: of phantoms, their truth/bleeds.csv, for figures by the bleeding's volume.
        device: where the models compute; "auto": a GPU if there is one.
        progress: whether a bar is shown on standard error.

    Raises:
        ConfigError: a fold or a view that does not exist.
        DataError: the set is missing or damaged, or has no labels.
        RunError: no such run, or it has trained on a patient of the fold or the set.

    Example:
        >>> import ichseq
        >>> scored = ichseq.evaluate("runs/first", 0)
        >>> scored.metrics["n_exams"]
        2
        >>> print(scored.text().splitlines()[0])
        Weighted log loss ...
    """
    asked = what_to_score(run, fold, data)
    return evaluate_asked(asked, data=data, bag=bag, tta=tta, bleeds=bleeds, device=device, progress=progress)


def what_to_score(run: str | Path | None, fold: Fold | None, data: str | Path) -> Asked:
    """The leaves or models that `evaluate` asks; raises as it does."""
    from ichseq.data.index import Index
    from ichseq.networks.named import network_folder
    from ichseq.runs.folders import find_leaves, models_of, newest_run
    from ichseq.runs.names import MODELS
    from ichseq.runs.records import read_run

    index = Index.load(data)
    if fold is not None:
        number = fold_number(fold)
        if number is not None:
            index.validation_series(number)  # a fold that the set lacks is the first mistake to hear of
        found = Path(run) if run is not None else newest_run(number)
        return Asked(found, find_leaves(found, number), fold)
    found = Path(run) if run is not None else newest_run()
    if network_folder(found) is not None:
        return Asked(found, models_of(found), None)
    folders = models_of(found) if (found / MODELS).is_file() else find_leaves(found)
    runs = [read_run(folder) for folder in folders]
    if index.key not in {one.get("data_key") for one in runs} or (found / MODELS).is_file():
        return Asked(found, folders, None)
    chosen = runs[0]["fold"] if len(runs) == 1 else 0
    return Asked(found, find_leaves(found, chosen), chosen)


def evaluate_asked(
    asked: Asked,
    *,
    data: str | Path,
    bag: int = 0,
    tta: Sequence[str] = (),
    bleeds: str | Path | None = None,
    device: str = "auto",
    progress: bool | Bar = True,
) -> Evaluation:
    """`evaluate`, where it is known what is scored."""
    from ichseq.data.index import Index
    from ichseq.evaluation.evaluate import evaluate_all, evaluate_fold, evaluate_set

    index = Index.load(data)
    with bar_of(progress)("evaluate", "series") as move:
        how: dict[str, Any] = {"bag": bag, "tta": tta, "device": device, "progress": move}
        how["bleeds"] = None if bleeds is None else Path(bleeds)
        if asked.fold is None:
            scored = evaluate_set(asked.run, index, **how)
        elif asked.fold == "all":
            scored = evaluate_all(asked.folders, index, **how)
        else:
            scored = evaluate_fold(asked.folders[0], index, **how)
    return Evaluation(scored.metrics, scored.slices, scored.exams, scored.folder)
