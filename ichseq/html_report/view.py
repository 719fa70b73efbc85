"""What a page of the report shows of an exam, in words, numbers and outlines that the templates put together."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ichseq.ct.picture import describe
from ichseq.ct.series import Series
from ichseq.html_report.pictures import SIDE, VIEWER_WINDOWS, size_within
from ichseq.html_report.sides import sides_of
from ichseq.predictions.findings import ExamFindings, LabelFinding
from ichseq.predictions.names import pseudonym, score_text
from ichseq.predictions.schema import Floats
from ichseq.pseudonyms import Pseudonyms


@dataclass
class Pictures:
    """What was drawn of an exam.

    Attributes:
        missing: number of a slice -> why it has no picture.
        heat: number of a slice -> the labels whose heat maps lie side by side in its file.
        left: how many flagged slices have no heat map, so that a long scan stays small.
    """

    missing: dict[int, str] = field(default_factory=dict)
    heat: dict[int, list[str]] = field(default_factory=dict)
    left: int = 0


@dataclass(frozen=True)
class LabelView:
    """A row of an exam's findings.

    Attributes:
        finding: the answer.
        score: of the exam, as text.
        area: outline of the slices' scores, a step a slice, y from 0 at the top to 1 (SVG's path).
        flagged_runs: (first, length) of the flagged slices that follow each other.
    """

    finding: LabelFinding
    score: str
    area: str
    flagged_runs: list[tuple[int, int]]


@dataclass(frozen=True)
class ExamView:
    """An exam as the report shows it.

    Attributes:
        place: in the work list, from 1.
        name: the patient's pseudonym, or the PatientID where that is asked for.
        identity: what else tells who it is, where that is asked for: (what, value).
        findings: what the tables say.
        series: where its pixels are; None: no scan was given.
        warnings: what a person should know of it.
        chosen: why this series of its study was asked; "" where that is not known.
        pictures: what was drawn.
    """

    place: int
    name: str
    identity: list[tuple[str, str]]
    findings: ExamFindings
    series: Series | None
    warnings: list[str]
    chosen: str = ""
    pictures: Pictures = field(default_factory=Pictures)

    @property
    def stem(self) -> str:
        """Names its page and the folder of its pictures."""
        return f"{self.place:04d}"

    @property
    def slices(self) -> int:
        """How many have an answer."""
        return len(self.findings.rows)

    @property
    def score(self) -> str:
        """Of any bleeding, as text."""
        return score_text(self.findings.score)

    @property
    def labels(self) -> list[LabelView]:
        """The findings, `any` first, then the kinds, the highest score first."""
        every = sorted(self.findings.labels.values(), key=lambda one: (one.label != "any", -one.score))
        return [LabelView(one, score_text(one.score), _area(one.slices), _runs(one.flagged_slices)) for one in every]

    @property
    def strip(self) -> list[tuple[int, float]]:
        """(slice, score of any) for the slider's colours, without those that would not be seen."""
        scores = self.findings.labels["any"].slices
        return [(k, round(float(score), 2)) for k, score in enumerate(scores) if score >= 0.02]

    @property
    def facts(self) -> list[tuple[str, str]]:
        """What the scan is."""
        if self.series is None:
            return [("Scan", "not given; the pictures are missing")]
        found = [("Scan", describe(self.series))]
        if self.chosen:
            found.append(("Series", f"{self.chosen[0].upper()}{self.chosen[1:]}"))
        if self.series.phantom:
            found.append(("Made up", "a phantom, no patient"))
        if not sides_of(self.series.orientation):
            found.append(("Orientation", "the header does not say which side is the patient's left"))
        if self.pictures.missing:
            reasons = "; ".join(dict.fromkeys(self.pictures.missing.values()))
            found.append(("Without a picture", f"{len(self.pictures.missing)} of {self.slices} slices: {reasons}"))
        if self.pictures.left:
            found.append(("Without a heat map", f"{self.pictures.left} of the flagged slices, those with low scores"))
        return found

    def for_viewer(self) -> dict[str, Any]:
        """What the page's script reads."""
        shape = (1, 1) if self.series is None else (self.series.shape[1], self.series.shape[2])
        rows, columns = size_within(shape, SIDE)
        mm = (np.nan, np.nan) if self.series is None else self.series.spacing_mm
        known = bool(np.isfinite(mm).all())
        return {
            "slices": self.slices,
            "rows": rows,
            "columns": columns,
            "ratio": (mm[1] * columns / (mm[0] * rows)) if known else columns / rows,
            "width_mm": mm[1] * shape[1] if known else None,
            "folder": self.stem,
            "windows": [f"{name}, W {width:g} L {centre:g}" for name, (centre, width) in VIEWER_WINDOWS.items()],
            "missing": {str(k): why for k, why in self.pictures.missing.items()} if self.series is not None else None,
            "sides": {} if self.series is None else sides_of(self.series.orientation),
            "heat": {str(k): labels for k, labels in self.pictures.heat.items()},
            "scores": {
                label: [round(float(score), 4) for score in one.slices] for label, one in self.findings.labels.items()
            },
            "flagged": {label: list(one.flagged_slices) for label, one in self.findings.labels.items()},
            "key": self.findings.key_slice,
        }


def view_of(
    place: int,
    findings: ExamFindings,
    series: Series | None,
    warnings: Sequence[str],
    *,
    chosen: str = "",
    show_id: bool = False,
    names: Pseudonyms | None = None,
) -> ExamView:
    """An exam before its pictures are drawn."""
    exam, identity = findings.exam, list[tuple[str, str]]()
    if show_id:
        identity = [("Patient", exam.patient_id), ("Study", exam.study_uid), ("Series", exam.series_uid)]
        if series is not None:
            identity.append(("First file", series.files[0]))
    name = exam.patient_id if show_id and exam.patient_id else pseudonym(exam, names)
    return ExamView(place, name, identity, findings, series, list(warnings), chosen)


def _area(scores: Floats) -> str:
    steps = "".join(f"V{1 - score:.3g}H{k + 1}" for k, score in enumerate(scores))
    return f"M0 1{steps}V1Z"


def _runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and sum(runs[-1]) == number:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((number, 1))
    return runs
