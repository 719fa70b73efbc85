"""What `prepare` says at its end: counts, prevalence, folds, and what was left out."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ichseq.ct.left_out import LeftOut, count_reasons
from ichseq.data.index import Index
from ichseq.errors import counted
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
    def warnings(self) -> int:
        """Number of series with a warning; series.parquet has the words."""
        return sum(bool(text) for text in self.index.series_column("warnings"))

    def text(self) -> str:
        """The summary for a person to read."""
        index = self.index
        lines = [
            f"{index.n_series:,} series, {counted(index.n_slices, 'slice')}, {counted(index.n_patients, 'patient')}"
            + (" (made-up scans)" if index.phantom else ""),
            f"{self.read:,} series read now, {index.n_series - self.read:,} were in the store already",
        ]
        if self.warnings:
            lines.append(f"{self.warnings:,} series with warnings: column `warnings` of {index.folder}/series.parquet")
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
        remarks = (
            (labels.without_image, "labelled slices have no image"),
            (labels.without_label, "images have no label (all six unknown)"),
            (labels.partly, "images are partly labelled (the rest is masked in the loss)"),
            (labels.inconsistent, "labelled slices say `any` against their five kinds (kept as they stand)"),
        )
        return lines + [f"{count:,} {what}" for count, what in remarks if count]

    def _fold_lines(self) -> list[str]:
        index = self.index
        shown = LABELS if self.labels.source else ()
        lines = [
            "folds, and their positive slices:" if shown else "folds:",
            "".join(f"{head:>9}" for head in ("fold", "patients", "series", "slices"))
            + "".join(f"{label[:12]:>14}" for label in shown),
        ]
        for fold in range(index.folds):
            series = index.validation_series(fold)
            rows = index.slice_rows(series)
            counts = (fold, len(np.unique(index.patient_codes[series])), len(series), len(rows))
            positive = np.count_nonzero(index.labels[rows] == 1, axis=0)[: len(shown)]
            lines.append("".join(f"{n:>9,}" for n in counts) + "".join(f"{n:>14,}" for n in positive))
        return lines

    def _left_out_lines(self) -> list[str]:
        lines = [f"{counted(self.ignored, 'file')} outside stage_2_train/ not looked at"] if self.ignored else []
        if not self.left_out:
            return [*lines, "no file left out"]
        reasons = list(count_reasons(self.left_out).items())
        lines.append(f"{counted(len(self.left_out), 'file')} left out: {Path(self.index.folder) / 'left_out.csv'}")
        lines += [f"{count:>9,}  {reason}" for reason, count in reasons[:_MANY_REASONS]]
        more = sum(count for _, count in reasons[_MANY_REASONS:])
        return lines + ([f"{more:>9,}  for other reasons"] if more else [])
