"""evaluate: a run, scored on the patients that it kept for validation."""

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
    """A run, scored on the patients that it kept for validation.

    Attributes:
        metrics: the content of metrics.json.
        table: the prediction table, with the truth.
        folder: where predictions.parquet and metrics.json are.
    """

    metrics: dict[str, Any]
    table: pd.DataFrame
    folder: Path

    def __repr__(self) -> str:
        return f"Evaluation({self.folder}: weighted log loss {self.metrics['weighted_log_loss']:.4f})"

    def text(self) -> str:
        """The figures for a person to read."""
        from ichseq.evaluation.report import metrics_text

        return metrics_text(self.metrics)


def evaluate(
    run: str | Path | None = None,
    fold: Fold = 0,
    *,
    data: str | Path = DEFAULT_SET,
    bag: int = 0,
    tta: Sequence[str] = (),
    device: str = "auto",
    progress: bool | Bar = True,
) -> Evaluation:
    """Score a run on the patients that it kept for validation; writes predictions.parquet and metrics.json.

    Args:
        run: runs/NAME or a leaf of it; None: the newest run that has the fold.
        fold: a fold's number, or "all": every fold by the leaf that did not train on it, as one table.
        data: the prepared set.
        bag: the mean over the weights of the last epochs, so many; 0: the best weights.
        tta: views averaged with the slices as they are: "flip", "transpose".
        device: where the models compute; "auto": a GPU if there is one.
        progress: whether a bar is shown on standard error.

    Raises:
        ConfigError: a fold or a view that does not exist.
        DataError: the set is missing or damaged, or the fold has no labels.
        RunError: no such run, or it has trained on a patient of the fold.

    Example:
        >>> import ichseq
        >>> scored = ichseq.evaluate("runs/first", 0)
        >>> scored.metrics["n_exams"]
        2
        >>> print(scored.text().splitlines()[0])
        Weighted log loss ...
    """
    leaves = leaves_to_score(run, fold, data)
    return evaluate_leaves(leaves, fold, data=data, bag=bag, tta=tta, device=device, progress=progress)


def leaves_to_score(run: str | Path | None, fold: Fold, data: str | Path) -> list[Path]:
    """The leaves that `evaluate` asks; raises as it does."""
    from ichseq.data.index import Index
    from ichseq.runs.folders import find_leaves, newest_run

    number = fold_number(fold)
    if number is not None:
        Index.load(data).validation_series(number)  # a fold that the set lacks is the first mistake to hear of
    return find_leaves(Path(run) if run is not None else newest_run(number), number)


def evaluate_leaves(
    leaves: Sequence[Path],
    fold: Fold,
    *,
    data: str | Path,
    bag: int,
    tta: Sequence[str],
    device: str = "auto",
    progress: bool | Bar = True,
) -> Evaluation:
    """`evaluate`, of leaves that are known: one for a fold, or those of all."""
    from ichseq.data.index import Index
    from ichseq.evaluation.evaluate import evaluate_all, evaluate_fold

    index = Index.load(data)
    with bar_of(progress)("evaluate", "series") as move:
        asked: dict[str, Any] = {"bag": bag, "tta": tta, "device": device, "progress": move}
        if fold_number(fold) is None:
            table, metrics = evaluate_all(list(leaves), index, **asked)
            return Evaluation(metrics, table, leaves[0].parent)
        table, metrics = evaluate_fold(leaves[0], index, **asked)
        return Evaluation(metrics, table, leaves[0])
