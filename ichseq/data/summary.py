"""What `prepare` says at its end: counts, prevalence, folds, and what was left out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from ichseq.ct.left_out import LeftOut, count_reasons
from ichseq.data.exam_table import ExamTable
from ichseq.data.index import Index
from ichseq.data.label_files import ExamLabels
from ichseq.errors import counted
from ichseq.labels import LABELS

_MANY_REASONS = 12


def _table(labels: np.ndarray) -> list[str]:
    """How often each label is 1, and known, as lines."""
    known, positive = np.count_nonzero(~np.isnan(labels), axis=0), np.count_nonzero(labels == 1, axis=0)
    lines = [f"{'label':<18}{'positive':>10}{'known':>10}{'prevalence':>12}"]
    for k, label in enumerate(LABELS):
        share = f"{positive[k] / known[k]:.4f}" if known[k] else "-"
        lines.append(f"{label:<18}{positive[k]:>10,}{known[k]:>10,}{share:>12}")
    return lines


@dataclass(frozen=True)
class LabelCounts:
    """How the labels and the images fitted together.

    Attributes:
        source: the label file's name; None: the set is unlabelled.
        without_image: labelled slices that are not among the images.
        without_label: images with no label at all.
        partly: images with some labels unknown, some known; the unknown ones are masked in the loss.
        inconsistent: labelled slices whose `any` contradicts their five kinds; kept as they stand.
        exam_source: names of the tables of exams; None: exams have no labels of their own.
        exams_without_series: exams of the tables that are no series' here.
        exams_in_several: exams that several series belong to.
        exams_unlabelled: series whose exam is in no table.
        exams_unseen: series with a label that is 1 by their exam and 0 in every slice; both are kept.
    """

    source: str | None = None
    without_image: int = 0
    without_label: int = 0
    partly: int = 0
    inconsistent: int = 0
    exam_source: str | None = None
    exams_without_series: int = 0
    exams_in_several: int = 0
    exams_unlabelled: int = 0
    exams_unseen: int = 0

    def with_exams(self, tables: Sequence[ExamTable], given: ExamLabels, unseen: int) -> Self:
        """The same with what was counted of tables of exams."""
        return replace(
            self,
            exam_source=", ".join(table.name for table in tables),
            exams_without_series=given.without_series,
            exams_in_several=given.in_several,
            exams_unlabelled=sum(not where for where in given.row),
            exams_unseen=unseen,
        )


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
        labels, lines = self.labels, list[str]()
        if labels.source is None and labels.exam_source is None:
            return ["no labels: every label is unknown (label tables are named with --labels)"]
        if labels.source is not None:
            lines += [f"labels from {labels.source}", *_table(self.index.labels)]
            lines += self._slice_remarks()
        if labels.exam_source is not None:
            lines += [""] if lines else []
            lines += [f"labels of exams, by series, from {labels.exam_source}", *_table(self.index.exam_labels)]
            lines += self._exam_remarks()
        return lines

    def _slice_remarks(self) -> list[str]:
        labels = self.labels
        remarks = (
            (labels.without_image, "labelled slices have no image"),
            (labels.without_label, "images have no label (all six unknown)"),
            (labels.partly, "images are partly labelled (the rest is masked in the loss)"),
            (labels.inconsistent, "labelled slices say `any` against their five kinds (kept as they stand)"),
        )
        return [f"{count:,} {what}" for count, what in remarks if count]

    def _exam_remarks(self) -> list[str]:
        labels = self.labels
        remarks = (
            (labels.exams_without_series, "labelled exams are in no series"),
            (labels.exams_in_several, "exams are in several series (--exam-series says which of them are labelled)"),
            (labels.exams_unlabelled, "series have no labels of an exam"),
            (labels.exams_unseen, "series have a label that is 1 by their exam and 0 in every slice (both are kept)"),
        )
        lines = [f"{count:,} {what}" for count, what in remarks if count]
        never = [LABELS[k] for k in np.flatnonzero(~(self.index.exam_labels == 1).any(axis=0))]
        return lines + ([f"no exam with {', '.join(never)}: what they look like can't be learnt here"] if never else [])

    def _fold_lines(self) -> list[str]:
        index, of_exams = self.index, self.labels.source is None
        shown = LABELS if self.labels.source or self.labels.exam_source else ()
        what = "exams" if of_exams else "slices"
        lines = [
            f"folds, and their positive {what}:" if shown else "folds:",
            "".join(f"{head:>9}" for head in ("fold", "patients", "series", "slices"))
            + "".join(f"{label[:12]:>14}" for label in shown),
        ]
        for fold in range(index.folds):
            series = index.validation_series(fold)
            rows = index.slice_rows(series)
            counts = (fold, len(np.unique(index.patient_codes[series])), len(series), len(rows))
            labels = index.exam_labels[series] if of_exams else index.labels[rows]
            positive = np.count_nonzero(labels == 1, axis=0)[: len(shown)]
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
