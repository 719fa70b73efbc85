"""DICOM results of all exams, a folder each, from what predicting leaves at hand."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

import ichseq
from ichseq.ct.left_out import LeftOut, SliceError
from ichseq.ct.series import Series
from ichseq.dicom_results.identity import NAME, Answerer
from ichseq.dicom_results.reference import quiet, reference
from ichseq.errors import ConfigError, DataError, ScanError
from ichseq.files import replacing
from ichseq.inference.answered import Answered
from ichseq.inference.heatmap import heatmaps_in_turn
from ichseq.inference.model_ensemble import ModelEnsemble
from ichseq.predictions.findings import ExamFindings, findings_of
from ichseq.predictions.names import pseudonym

Maps = Mapping[int, tuple[str, NDArray[np.float32]]]
"""By slice the label whose map is shown, and the map, 0 to 1."""


def write_results(
    answered: Answered, out: Path, *, progress: Callable[[int, int], object] | None = None
) -> list[LeftOut]:
    """Write the DICOM results of every exam: report.dcm, and where something is flagged captures and key objects.

    An exam's folder is named by a pseudonym, and replaced as a whole if it is there. The results hold patient and study
    of the exam.

    Args:
        answered: the tables, the series of each exam, and the models. These compute heat maps where they are.
        out: the folder; `check_results_folder` has found that it can be written.
        progress: called with (exams done, exams in all).

    Returns:
        First files of exams of which there is no result, with reasons; as expected ones, what else there is to know.

    Raises:
        DataError: a file can't be written.
    """
    of, ensemble = answered.predictions, answered.ensemble
    if ensemble is None:
        raise ConfigError("DICOM results name what answered; make them while predicting, with --dicom")
    answerer = Answerer.of(ensemble, of.calibration_notes)
    remarks: list[LeftOut] = []
    every = findings_of(of.slices, of.exams)
    for findings in every:
        series = of.series[findings.number]
        warnings = of.series_warnings[findings.number] if of.series_warnings else []
        sentences = [*warnings, *([of.note] if of.note else []), *of.calibration_notes]
        try:
            remarks += _write_exam(findings, series, ensemble, answerer, sentences, out)
        except ScanError as error:
            remarks.append(LeftOut(error.file or series.files[0], f"no DICOM result: {error.reason}"))
        except OSError as error:
            raise DataError(f"{out}: the DICOM results can't be written ({error.strerror}); make room, or choose "
                            "another --dicom") from None  # fmt: skip
        if progress is not None:
            progress(findings.number + 1, len(every))
    return remarks


def _write_exam(
    findings: ExamFindings, series: Series, ensemble: ModelEnsemble, answerer: Answerer, sentences: list[str], out: Path
) -> list[LeftOut]:
    # highdicom takes a second to import, and those who want no DICOM results need not have it.
    from ichseq.dicom_results.key_objects import key_objects
    from ichseq.dicom_results.report import structured_report

    numbers = {*findings.key_slices, *(one.key_slice for one in findings.labels.values())}
    slices = {number: reference(series, number) for number in sorted(numbers)}
    maps, remarks = _maps(findings, series, ensemble)
    with replacing(out / f"{pseudonym(findings.exam)}-{series.key[:8]}") as folder:
        folder.mkdir()
        with quiet():
            made: dict[str, Dataset] = {"report": structured_report(findings, series, slices, answerer, sentences)}
        if findings.flagged:
            captures = _captures(findings, series, slices, maps, answerer)
            made |= {f"capture_{place:02d}": one for place, one in enumerate(captures, 1)}
            with quiet():
                key = [slices[number] for number in findings.key_slices]
                labels = [label for label, one in findings.labels.items() if one.flagged]
                made["key_objects"] = key_objects([*key, *captures], series, answerer, labels)
        with quiet():
            for name, dataset in made.items():
                dataset.save_as(folder / f"{name}.dcm", enforce_file_format=True)
    return remarks


def _maps(findings: ExamFindings, series: Series, ensemble: ModelEnsemble) -> tuple[Maps, list[LeftOut]]:
    """The heat map of each key slice, and why there is none."""
    if not findings.flagged:
        return {}, []
    shown = {number: _shown(findings, number) for number in findings.key_slices}
    wanted = {label: [number for number, other in shown.items() if other == label] for label in set(shown.values())}
    found: dict[int, tuple[str, NDArray[np.float32]]] = {}
    try:
        for one in heatmaps_in_turn(ensemble, series, wanted):
            found[one.slice] = one.label, np.asarray(one.values / (one.values.max() or 1), np.float32)
    except (ScanError, ConfigError) as error:
        reason = error.reason if isinstance(error, ScanError) else str(error)
        return {}, [LeftOut(series.files[0], f"captures without heat maps: {reason}", expected=True)]
    return found, []


def _shown(findings: ExamFindings, number: int) -> str:
    """The label whose map a key slice is shown with: the kind with the highest score in it, or any."""
    labels = findings.key_slices[number]
    kinds = [label for label in labels if label != "any"] or findings.kinds or ["any"]
    return max(kinds, key=lambda label: findings.labels[label].slices[number])


def _captures(
    findings: ExamFindings, series: Series, slices: Mapping[int, Dataset], maps: Maps, answerer: Answerer
) -> list[Dataset]:
    """The pictures of the key slices."""
    from ichseq.dicom_results.capture import capture, draw_capture

    made: list[Dataset] = []
    across, along = series.spacing_mm
    aspect = across / along if np.isfinite(across / along) else 1.0
    for number, labels in findings.key_slices.items():
        label, heat = maps.get(number, ("", None))
        figure = "probability" if findings.slices_calibrated else "score"
        scores = [f"{one} {100 * findings.labels[one].slices[number]:.0f} %" for one in labels]
        position = series.positions_mm[number]
        where = f"slice {number + 1} of {len(series)} from the feet" + (
            f", {position:.1f} mm" if np.isfinite(position) else ""
        )
        about = f"{NAME} {ichseq.__version__}, {answerer.name}"
        beside = [f"right: evidence for {label}, strongest place yellow"] if heat is not None else []
        try:
            (hu,) = series.read(number, number + 1)
        except SliceError as error:
            raise ScanError(error.file, error.reason) from None
        picture = draw_capture(
            hu, heat, above=[about], below=[f"{where}; {figure} of {', '.join(scores)}", *beside], aspect=aspect
        )
        with quiet():
            made.append(capture(picture, slices[number], series, number, answerer, len(made) + 1))
    return made
