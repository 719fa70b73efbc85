"""report: a table of predictions and its scans as pages for those who read scans."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ichseq.api.predict import as_ensemble, paths_or_series
from ichseq.api.progress import Bar, bar_of
from ichseq.errors import ConfigError, RunError

if TYPE_CHECKING:
    import pandas as pd

    from ichseq.api.predict import Models, Scans
    from ichseq.ct.order import Order
    from ichseq.html_report.match import Matched
    from ichseq.inference.model_ensemble import ModelEnsemble
    from ichseq.inference.predict import Predictions

_SAME = 0.02  # answers of one network that differ by no more: on another device or in another precision


def report(
    table: str | Path | pd.DataFrame,
    scans: Scans,
    out: str | Path = "report",
    *,
    model: Models = None,
    order: Order = "position",
    show_id: bool = False,
    salt_file: str | Path | None = None,
    device: str = "auto",
    progress: bool | Bar = True,
) -> Path:
    """Pages for those who read scans: a work list by urgency, and a page an exam with its slices and heat maps.

    The folder needs no network; open its index.html in a browser.

    Args:
        table: what `predict` gave or wrote, Parquet or CSV; the table of exams beside a file is read too. Calibrated
            columns are shown if they are there.
        scans: that were predicted, as for `predict`.
        out: a new folder, or one with an earlier report, which is replaced as a whole.
        model: what answered, as for `predict`; heat maps are its own. None: the network "phantom-1", and no heat maps
            where it does not answer as the table does.
        order: as for `predict`.
        show_id: show PatientID, UIDs and names of files; else patients have pseudonyms.
        salt_file: of a table with pseudonyms, the file of their salt, which puts it to the scans.
        device: where heat maps are computed; "auto": a GPU if there is one.
        progress: whether a bar is shown on standard error.

    Returns:
        The path of index.html.

    Raises:
        DataError: no such table, or the folder holds something else or can't be written.
        ScanError: nothing of the scans can be read, or no exam of the table is among them.
        ConfigError: a table with pseudonyms without its salt.
        RunError: the model that was named does not answer as the table does.

    Example:
        >>> import ichseq
        >>> table = ichseq.predict("runs/first", "scans/stage_2_test")
        >>> ichseq.report(table, "scans/stage_2_test", "report", model="runs/first").name
        'index.html'
    """
    import warnings

    path, remarks, _ = report_scans(
        table,
        scans,
        out,
        model=model,
        order=order,
        show_id=show_id,
        salt_file=salt_file,
        device=device,
        progress=progress,
    )
    for line in remarks:
        warnings.warn(line, stacklevel=2)
    return path


def report_scans(
    table: str | Path | pd.DataFrame,
    scans: Scans,
    out: str | Path = "report",
    *,
    model: Models = None,
    order: Order = "position",
    show_id: bool = False,
    salt_file: str | Path | None = None,
    device: str = "auto",
    progress: bool | Bar = True,
) -> tuple[Path, list[str], bool]:
    """The same; gives index.html, what a person should know, a line each, and whether every exam has its scan.

    Args and errors as for `report`.
    """
    from ichseq.ct.series import load_series
    from ichseq.html_report import check_folder, write_report
    from ichseq.html_report.match import match_scans
    from ichseq.inference.answered import Answered
    from ichseq.predictions.schema import ExamId
    from ichseq.predictions.without_ids import has_pseudonyms, with_ids
    from ichseq.pseudonyms import read_salts

    folder = Path(out)
    check_folder(folder, table if isinstance(table, str | Path) else None)
    slices, exams = _tables(table)
    paths, series = paths_or_series(scans)
    found = load_series(paths, order=order) if paths else series
    names = None if salt_file is None else read_salts(Path(salt_file))[0]
    if names is not None:
        ids = [(ExamId(one.patient_id, one.study_uid, one.series_uid), one.sop_uids) for one in found]
        slices, exams = with_ids(slices, ids, names), None if exams is None else with_ids(exams, ids, names)
    elif has_pseudonyms(slices):
        raise ConfigError("the table has pseudonyms for ids, so its scans aren't known; name their --salt-file")
    matched = match_scans(slices, exams, found)
    ensemble, remarks = _checked(as_ensemble(model, device=device), matched, named=model is not None)
    answered = Answered(_noted(matched.predictions, ensemble), ensemble)
    with bar_of(progress)("report", "exams") as move:
        more = write_report(answered, folder, series=matched.series, show_id=show_id, names=names, progress=move)
    return folder / "index.html", [*matched.remarks, *remarks, *more], all(matched.series)


def _noted(predictions: Predictions, ensemble: ModelEnsemble | None) -> Predictions:
    """The predictions with the note on their network; `predict` appends it to the warnings of every exam."""
    from dataclasses import replace

    from ichseq.inference.predict import network_note

    note = None if ensemble is None else network_note(ensemble.models)
    if note is None:
        return predictions
    texts = [text.removesuffix(note).removesuffix("; ") for text in predictions.exams["warnings"]]
    return replace(predictions, note=note, series_warnings=[[text] if text else [] for text in texts])


def _tables(table: str | Path | pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """The table of slices, and that of exams if it lies beside."""
    from ichseq.predictions.check import check_columns, check_slice_index, checked_probabilities, refuse_duplicates
    from ichseq.predictions.read import read_exams, read_table
    from ichseq.predictions.schema import PREDICTION_COLUMNS
    from ichseq.predictions.write import exams_beside

    if isinstance(table, str | Path):
        exams = exams_beside(Path(table))
        slices = read_table(Path(table), calibrated=True)
        return slices, read_exams(exams, calibrated=True) if exams.is_file() else None
    check_columns(table, PREDICTION_COLUMNS, "table")
    checked_probabilities(table, "table")
    check_slice_index(table, "table")
    refuse_duplicates(table, "table")
    return table, None


def _checked(ensemble: ModelEnsemble, of: Matched, *, named: bool) -> tuple[ModelEnsemble | None, list[str]]:
    """The models if they answer as the table does, found on one exam; else none, and why."""
    import numpy as np

    from ichseq.inference.one_series import predict_series
    from ichseq.labels import LABELS

    slices, counts = of.predictions.slices, of.predictions.exams["n_slices"].to_numpy(dtype=np.int64)
    for series, stop, count in zip(of.series, counts.cumsum(), counts, strict=True):
        rows = slices.iloc[stop - count : stop]
        if series is None or series.sop_uids != rows["sop_uid"].tolist():
            continue
        again = predict_series(ensemble, series, any_series=True).table
        if again is None or len(again) != len(rows):
            continue
        apart = float(np.abs(again[list(LABELS)].to_numpy() - rows[list(LABELS)].to_numpy()).max())
        if apart <= _SAME:
            return ensemble, []
        words = f"its answers differ from the table's by up to {apart:.2f}"
        if named:
            raise RunError(f"the model that was named is not the one that answered: {words}; name that one with --run")
        return None, [f"no heat maps: the network that ships did not make this table ({words}); name the run that did "
                      "with --run"]  # fmt: skip
    return None, ["no heat maps: no exam has all slices of its row among the scans"]
