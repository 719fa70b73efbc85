"""predict: the probabilities of every slice of some scans."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ichseq.api.progress import Bar, bar_of
from ichseq.errors import ConfigError, ScanError

if TYPE_CHECKING:
    import pandas as pd

    from ichseq.ct.order import Order
    from ichseq.ct.series import Series
    from ichseq.inference.model_ensemble import ModelEnsemble
    from ichseq.inference.predict import Predictions, Predictor
    from ichseq.model import Model
    from ichseq.predictions.calibration import Calibration
    from ichseq.pseudonyms import Pseudonyms

    Models = Model | str | Path | Sequence[Model | str | Path] | None
    Scans = str | Path | Series | Iterable[str | Path] | Iterable[Series]


def predict(
    model: Models,
    scans: Scans,
    *,
    order: Order = "position",
    all_series: bool = False,
    any_series: bool = False,
    bag: int = 0,
    tta: Sequence[str] = (),
    calibrated: bool = False,
    point: str = "sensitivity-0.95",
    scheduler: str | None = None,
    device: str = "auto",
    salt_file: str | Path | None = None,
    progress: bool | Bar = True,
) -> pd.DataFrame:
    """Probabilities for every slice of some scans, or an error: no slice is missing from the table without a word.

    Args:
        model: what is asked: an `ichseq.Model`, a run (runs/NAME), a leaf of it, an experiment's result, the name of a
            network that ships (a folder of that name wins) or of one on the Hugging Face hub,
            "hf-hub:owner/name@revision", a folder of `publish`, an exported network (an .onnx file or its folder, on
            the CPU), or several of these, whose probabilities are averaged; None: the network "phantom-1", which ships.
            A `Model` computes where it is, and is in evaluation mode after.
        scans: a folder, a zip, a tar, a DICOM file or a list of these, taken together; or a `Series`, or what
            `load_series` gives.
        order: of the slices of files: "position"; "instance" (InstanceNumber) and "file" (name) are for scans without
            positions.
        all_series: of files, every series of a study; else the one of each part of the body that a network is asked on
            best: without contrast medium, with a soft kernel, as thick as what it learned on. Each `Series` that is
            given is asked anyway.
        any_series: also what is surely no plain picture of a head: a chest, a map, empty images (docs/reference.md).
        bag: of runs, the mean over the weights of the last epochs, so many; 0: the best weights.
        tta: views averaged with the slices as they are: "flip", "transpose".
        calibrated: add what `calibrate` has fitted for the run: calibrated_<label>, its probability, and
            flagged_<label>, whether the raw score reaches the threshold of `point`. The raw scores stay.
        point: "sensitivity-0.95", "sensitivity-0.9", "specificity-0.9" or "youden".
        scheduler: address of a Dask cluster's scheduler that does the work; the models are then runs.
        device: where the models of runs compute, on a cluster each worker's; "auto": a GPU if there is one.
        salt_file: ids and names of files become pseudonyms by the salt in this file, which is made if it is not there.
        progress: whether a bar is shown on standard error.

    Returns:
        A row a slice, from feet to head; the six labels are columns, see docs/reference.md. Weights trained on made-up
        scans say so in a warning and in `.attrs["note"]`.

    Raises:
        ScanError: something of the scans can't be read, and the message names it; `predict_scans` goes on past it.
        RunError: no such run, or it has no calibration.
        ConfigError: a view or a point that does not exist, or options that do not go together.

    Example:
        >>> import ichseq
        >>> table = ichseq.predict("runs/first", "scans/stage_2_test")
        >>> exams = table.groupby("series_uid")["any"].max()
        >>> len(exams), list(exams.between(0, 1))
        (1, [True])
    """
    import warnings

    outcome = predict_scans(
        model,
        scans,
        order=order,
        all_series=all_series,
        any_series=any_series,
        bag=bag,
        tta=tta,
        calibrated=calibrated,
        point=point,
        scheduler=scheduler,
        device=device,
        salt_file=salt_file,
        progress=progress,
    )
    if outcome.failed:
        first = outcome.failed[0]
        raise ScanError(first.file, first.reason)
    table = outcome.slices
    if outcome.note:
        table.attrs["note"] = outcome.note
        warnings.warn(outcome.note, stacklevel=2)
    return table


def predict_scans(
    model: Models,
    scans: Scans,
    *,
    out: str | Path | None = None,
    order: Order = "position",
    all_series: bool = False,
    any_series: bool = False,
    bag: int = 0,
    tta: Sequence[str] = (),
    calibrated: bool = False,
    point: str = "sensitivity-0.95",
    scheduler: str | None = None,
    device: str = "auto",
    progress: bool | Bar = True,
    report: str | Path | None = None,
    show_id: bool = False,
    dicom: str | Path | None = None,
    pseudonymise: bool = False,
    salt_file: str | Path | None = None,
    dates: bool = False,
) -> Predictions:
    """Probabilities for every slice and every exam of some scans, going on past what can't be read.

    Args:
        model: as for `predict`.
        scans: as for `predict`.
        out: where the table of slices is written, Parquet or CSV, with those of exams and studies beside it
            (`ichseq.predictions.write`: exams.csv and studies.csv beside predictions.csv); None: nowhere.
        order: as for `predict`.
        all_series: as for `predict`; what is not asked is listed, and the exams' table has the reasons in `chosen`.
        any_series: as for `predict`; without it such a series is listed, as failed if its study has no answer then.
        bag: as for `predict`.
        tta: as for `predict`.
        calibrated: as for `predict`; the table of exams gets such columns too.
        point: as for `predict`.
        scheduler: as for `predict`.
        device: as for `predict`.
        progress: as for `predict`.
        report: folder for pages for those who read scans, see `ichseq.report`; made here, on a cluster too. None: none.
        show_id: of the report: show PatientID, UIDs and names of files.
        dicom: folder for DICOM results, a folder an exam: a structured report, key slices as pictures, a key object
            selection, with patient and study of the exam; made here, on a cluster too. Wants the extra `dicom`.
        pseudonymise: pseudonyms in the place of ids and names of files, in the tables and in the report; DICOM results
            keep those of their exam, and the files that failed are named as they are. The salt lies beside `out`, in
            the file `salt`.
        salt_file: or it lies in this file; either is made if it is not there. Pseudonymises then anyway.
        dates: whether the tables of exams and of studies have the date and time of acquisition.

    Returns:
        The tables of slices, exams and studies, what was left out and why, and what failed.

    Raises:
        ScanError: not one series could be predicted.
        DataError: the tables, the report or the DICOM results can't be written.
        RunError, ConfigError: as for `predict`.
    """
    from dataclasses import replace

    from ichseq.cluster import dask_cluster
    from ichseq.dicom_results import check_results_folder, write_results
    from ichseq.html_report import check_folder, write_report
    from ichseq.inference.answered import Answered
    from ichseq.inference.calibrated import with_calibrated
    from ichseq.inference.notes import network_note
    from ichseq.inference.predict import predict_found, predict_sources
    from ichseq.inference.pseudonymised import pseudonymised
    from ichseq.inference.studies import with_scans
    from ichseq.predictions.write import check_outputs, exams_beside, studies_beside, write_tables

    if out is not None:
        check_outputs(Path(out))
    if report is not None:
        check_folder(Path(report), out)
    if dicom is not None:
        check_results_folder(Path(dicom))
    names = _names(out, salt_file, show_id=show_id, dates=dates) if pseudonymise or salt_file is not None else None
    asked = _asked(model)
    applied = _calibration(asked, point) if calibrated else None
    views = [tta] if isinstance(tta, str) else list(tta)
    predictor, ensemble = _predictor(asked, bag, views, scheduler, device, any_series)
    note, weights = network_note(ensemble.models), ensemble.weights
    paths, series = paths_or_series(scans)
    with dask_cluster(scheduler), bar_of(progress)("predict", "series") as move:
        if paths:
            outcome = predict_sources(
                predictor,
                paths,
                note=note,
                weights=weights,
                order=order,
                all_series=all_series,
                learned_mm=ensemble.learned_mm,
                progress=move,
            )
        else:
            outcome = predict_found(predictor, series, note=note, weights=weights, progress=move)
    outcome = with_scans(outcome, dates=dates)
    if applied is not None:
        outcome = with_calibrated(outcome, applied, point, bag=bag, tta=tta)
    given = outcome if names is None else pseudonymised(outcome, names)
    if out is not None and given.studies is not None:
        path = Path(out)
        write_tables({path: given.slices, exams_beside(path): given.exams, studies_beside(path): given.studies})
    answered = Answered(outcome, ensemble)
    if report is not None:
        with bar_of(progress)("report", "exams") as move:
            lines = write_report(answered, Path(report), show_id=show_id, names=names, progress=move)
        given = replace(given, report_remarks=lines)
    if dicom is not None:
        with bar_of(progress)("dicom", "exams") as move:
            given = replace(given, dicom_remarks=write_results(answered, Path(dicom), progress=move))
    return given


def _names(out: str | Path | None, salt_file: str | Path | None, *, show_id: bool, dates: bool) -> Pseudonyms:
    """The pseudonyms that are asked for."""
    from ichseq.pseudonyms import SALT, kept_salt

    if show_id:
        raise ConfigError("show_id shows ids in the report, and pseudonymise keeps them out of it; ask for one of them")
    if dates:
        raise ConfigError("dates tell whose exam it is, and pseudonymise leaves them out; ask for one of them")
    if salt_file is None and out is None:
        raise ConfigError("pseudonymise keeps a salt beside the tables, and none are written; name a salt_file")
    return kept_salt(Path(salt_file) if salt_file is not None else Path(str(out)).with_name(SALT))


def _asked(model: Models) -> list[Any]:
    """The models, or the folders of runs or of networks that ship."""
    from ichseq.model import Model
    from ichseq.networks.shipped import default_network, shipped_folder

    model = default_network() if model is None else model
    asked: list[Any] = [model] if isinstance(model, Model | str | Path) else list(model)
    return [shipped_folder(one) or Path(one) if isinstance(one, str | Path) else one for one in asked]


def _calibration(asked: list[Any], point: str) -> Calibration:
    """The calibration of the one run that is asked, once the point is known to exist."""
    from ichseq.predictions.calibration import point_name
    from ichseq.runs.calibration import read_calibration

    point_name(point)
    if len(asked) != 1 or not isinstance(asked[0], Path):
        raise ConfigError("a calibration is that of one run; give one run, and no others beside it, with calibrated")
    return read_calibration(asked[0])


def _predictor(
    asked: list[Any], bag: int, tta: list[str], scheduler: str | None, device: str, any_series: bool
) -> tuple[Predictor, ModelEnsemble]:
    """What predicts series, and the models that it asks; on a cluster, these on this machine's CPU."""
    from ichseq.inference.cluster import predict_distributed
    from ichseq.inference.predict import predict_local

    # For workers' models too: what is wrong with one is heard of here, and their note is known; no GPU need hold them.
    ensemble, folders = _ensemble(asked, bag, tta, device if scheduler is None else "cpu")
    if scheduler is not None and not folders:
        raise ConfigError("scheduler wants runs; give runs alone")
    if scheduler is None:
        return predict_local(ensemble, any_series=any_series), ensemble
    return predict_distributed(folders, tta, device, any_series=any_series), ensemble


def as_ensemble(model: Models, *, bag: int = 0, tta: Sequence[str] = (), device: str = "auto") -> ModelEnsemble:
    """The models that `predict` asks, as one; arguments and errors as there."""
    return _ensemble(_asked(model), bag, [tta] if isinstance(tta, str) else list(tta), device)[0]


def _ensemble(asked: list[Any], bag: int, tta: list[str], device: str) -> tuple[ModelEnsemble, list[Path]]:
    """The models as one, and the folders that they are from; none where they are models already."""
    from ichseq.inference.model_ensemble import ModelEnsemble
    from ichseq.runs.folders import models_of

    runs = [one for one in asked if isinstance(one, Path)]
    if not asked:
        raise ConfigError("no model to predict with; give an ichseq.Model, or a run such as runs/NAME")
    if len(runs) < len(asked):
        if len({one.device for one in asked if not isinstance(one, Path)}) > 1:
            raise ConfigError("the models are on different devices; move them to one with model.to(device)")
        if bag or runs:
            raise ConfigError("bag wants runs, and runs and ichseq.Model objects do not go together; give runs alone")
        return ModelEnsemble(asked, tta), []
    folders = [folder for run in runs for folder in models_of(run, bag)]
    return ModelEnsemble.load(folders, tta, device), folders


def paths_or_series(scans: Scans) -> tuple[list[str | Path], Sequence[Series]]:
    """The scans, as the one or the other; the second is empty where they are paths."""
    from ichseq.ct.series import Series, SeriesCollection

    if isinstance(scans, SeriesCollection):  # each access gives a series without pixels
        return [], scans
    every: list[Any] = [scans] if isinstance(scans, str | Path | Series) else list(scans)
    paths = [one for one in every if isinstance(one, str | Path)]
    series = [one for one in every if isinstance(one, Series)]
    if not every or len(every) not in (len(paths), len(series)):
        raise ConfigError("scans are paths, or series from load_series, at least one, and not both together")
    return paths, series
