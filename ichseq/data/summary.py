"""What `prepare` says at its end: counts, prevalence, folds, and what was left out."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ichseq.ct.archive import LeftOut
from ichseq.data.index import Index
from ichseq.labels import LABELS

_MANY_REASONS = 12


@dataclass(frozen=True)
class LabelCounts:
    """How the labels and the images fitted together.

    Attributes:
        source: the label file's name; None: the set is unlabelled.
        without_image: labelled slices that are not among the images.
        without_label: images with no label at all.
        partly: images with some labels unknown, some known; the unknown ones are masked in the loss.
        inconsistent: labelled slices whose `any` contradicts their five kinds; kept as they stand.
    """

    source: str | None = None
    without_image: int = 0
    without_label: int = 0
    partly: int = 0
    inconsistent: int = 0


@dataclass(frozen=True)
class Summary:
    """The outcome of `prepare`.

    Attributes:
        index: the finished set.
        left_out: files that are in no series, with reasons; also in left_out.csv.
        labels: how labels and images fitted.
        read: series whose pixels were read in this run; the others were in the store already.
        ignored: files of the source outside the part that is prepared (stage_2_test and the like).
        new_patients: patients that got a fold in this run.
    """

    index: Index
    left_out: list[LeftOut]
    labels: LabelCounts
    read: int
    ignored: int
    new_patients: int

    @property
    def left_out_by_reason(self) -> dict[str, int]:
        """Number of files left out for each kind of reason, the most frequent first.

        Reasons that differ only after a colon (byte counts, names of other files) are of one kind.
        """
        kinds: dict[str, Counter[str]] = {}
        for item in self.left_out:
            kinds.setdefault(item.reason.partition(":")[0], Counter())[item.reason] += 1
        shown = {min(found) if len(found) == 1 else f"{kind} (details differ)": found for kind, found in kinds.items()}
        totals = {reason: found.total() for reason, found in shown.items()}
        return dict(sorted(totals.items(), key=lambda pair: (-pair[1], pair[0])))

    @property
    def warnings(self) -> int:
        """Number of series with a warning; series.parquet has the words."""
        return sum(bool(text) for text in self.index.series_column("warnings"))

    def text(self) -> str:
        """The summary for a person to read."""
        index = self.index
        lines = [
            f"{index.n_series:,} series, {index.n_slices:,} slices, {index.n_patients:,} patients"
            + (" (made-up scans)" if index.phantom else ""),
            f"{self.read:,} series read now, {index.n_series - self.read:,} were in the store already",
        ]
        if self.warnings:
            lines.append(f"{self.warnings:,} series have warnings: column `warnings` of {index.folder}/series.parquet")
        lines += ["", *self._label_lines(), "", *self._fold_lines(), "", *self._left_out_lines()]
        return "\n".join([*lines, "", f"prepared set: {index.folder}"])

    def _label_lines(self) -> list[str]:
        labels = self.labels
        if labels.source is None:
            return ["no labels: every label is unknown (a label file is named with --labels)"]
        known = np.count_nonzero(~np.isnan(self.index.labels), axis=0)
        positive = np.count_nonzero(self.index.labels == 1, axis=0)
        lines = [f"labels from {labels.source}", f"{'label':<18}{'positive':>10}{'known':>10}{'prevalence':>12}"]
        for k, label in enumerate(LABELS):
            share = f"{positive[k] / known[k]:.4f}" if known[k] else "-"
            lines.append(f"{label:<18}{positive[k]:>10,}{known[k]:>10,}{share:>12}")
        said = (
            (labels.without_image, "labelled slices have no image"),
            (labels.without_label, "images have no label (all six unknown)"),
            (labels.partly, "images are partly labelled (the rest is masked in the loss)"),
            (labels.inconsistent, "labelled slices say `any` against their five kinds (kept as they stand)"),
        )
        return lines + [f"{count:,} {what}" for count, what in said if count]

    def _fold_lines(self) -> list[str]:
        index = self.index
        heads = ("fold", "patients", "series", "slices", *(label[:12] for label in LABELS))
        lines = [
            "positive slices by fold:",
            "".join(f"{head:>14}" if k > 3 else f"{head:>9}" for k, head in enumerate(heads)),
        ]
        for fold in range(index.folds):
            series = index.validation_series(fold)
            rows = index.slice_rows(series)
            counts = (fold, len(np.unique(index.patient_codes[series])), len(series), len(rows))
            positive = np.count_nonzero(index.labels[rows] == 1, axis=0)
            lines.append("".join(f"{n:>9,}" for n in counts) + "".join(f"{n:>14,}" for n in positive))
        return lines

    def _left_out_lines(self) -> list[str]:
        lines = [f"{self.ignored:,} files outside stage_2_train/ were not looked at"] if self.ignored else []
        if not self.left_out:
            return [*lines, "no file left out"]
        reasons = list(self.left_out_by_reason.items())
        lines.append(f"{len(self.left_out):,} files left out: {Path(self.index.folder) / 'left_out.csv'}")
        lines += [f"{count:>9,}  {reason}" for reason, count in reasons[:_MANY_REASONS]]
        more = sum(count for _, count in reasons[_MANY_REASONS:])
        return lines + ([f"{more:>9,}  for other reasons"] if more else [])
