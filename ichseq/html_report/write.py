"""A report from what predicting leaves at hand: its folder, its pages, and what could not be shown."""

import json
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

import ichseq
from ichseq.ct.left_out import LeftOut, count_reasons
from ichseq.ct.series import Series
from ichseq.errors import ConfigError, DataError, ScanError, counted
from ichseq.files import replacing
from ichseq.html_report.draw import draw_heat, draw_slices
from ichseq.html_report.folder import CARD, INDEX, MARK, check_folder
from ichseq.html_report.network import UNKNOWN, inline, networks_of
from ichseq.html_report.pictures import CLEAR
from ichseq.html_report.view import ExamView, view_of
from ichseq.inference.answered import Answered
from ichseq.predictions.findings import DEFAULT_RULE, by_urgency, findings_of
from ichseq.predictions.names import PSEUDONYM_NOTE, SALTED_NOTE, score_text
from ichseq.predictions.schema import CHOSEN
from ichseq.pseudonyms import Pseudonyms, is_pseudonym

FORMAT = 1
_ASSETS = ("report.css", "theme.js", "list.js", "exam.js")


def write_report(
    answered: Answered,
    out: Path,
    *,
    series: Sequence[Series | None] | None = None,
    show_id: bool = False,
    names: Pseudonyms | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> list[str]:
    """Write a report, beside and then renamed into place; one that is there is replaced as a whole.

    Args:
        answered: the tables and the series of each exam. Heat maps are drawn where the models are at hand, on the
            device where they are. A slice that can't be read again has no picture.
        out: the folder.
        series: of each exam, where they are not those of `answered`; they may lack slices. None: there is no scan.
        show_id: show PatientID, UIDs and names of files; else patients have pseudonyms.
        names: these, by a salt; None: those that follow from the id alone.
        progress: called with (exams done, exams in all).

    Returns:
        What a person should know of the report, a line each.

    Raises:
        DataError: the folder can't be written, or holds something else.
    """
    check_folder(out)
    of = answered.predictions
    ordered = by_urgency(findings_of(of.slices, of.exams))
    scans = of.series if series is None else series
    chosen = of.exams[CHOSEN].tolist() if CHOSEN in of.exams.columns else [""] * len(of.exams)
    views = [
        view_of(place, one, scans[one.number], _warnings(answered, one.number), chosen=chosen[one.number],
                show_id=show_id, names=names)
        for place, one in enumerate(ordered, 1)
    ]  # fmt: skip
    remarks: list[str] = []
    try:
        with replacing(out) as beside:
            _write_frame(beside)
            shared = _shared(answered, views, show_id=show_id)
            for done, view in enumerate(views, 1):
                remarks += _draw(answered, view, beside / "exams" / view.stem)
                _write(beside / "exams" / f"{view.stem}.html", "exam.html", root="../", view=view, **shared)
                if progress is not None:
                    progress(done, len(views))
            _write(beside / INDEX, "index.html", root="", **shared)
            _write(beside / CARD, "network.html", root="", **shared)
    except OSError as error:
        raise DataError(f"{out}: the report can't be written ({error.strerror}); make room, or choose another folder "
                        "with --report (`ichseq report`: -o)") from None  # fmt: skip
    return remarks


def _warnings(answered: Answered, number: int) -> list[str]:
    """Those of an exam alone: what holds for all stands on the page once."""
    of = answered.predictions
    if len(of.series_warnings) == len(of.exams):
        return of.series_warnings[number]
    text = str(of.exams["warnings"].iloc[number])
    return [text] if text else []


def _draw(answered: Answered, view: ExamView, folder: Path) -> list[str]:
    """The pictures of an exam, noted in the view; what could not be drawn, a line each."""
    folder.mkdir()
    who, pictures = f"exam {view.place} ({view.name})", view.pictures
    if view.series is None:
        return [f"{who}: its scan is not there; it has no pictures"]
    rows = view.findings.rows
    uids = answered.predictions.slices["sop_uid"].iloc[rows.start : rows.stop].tolist()
    pictures.missing |= draw_slices(view.series, uids, view.findings, folder)
    if pictures.missing:
        reason = next(iter(pictures.missing.values()))
        return [f"{who}: {counted(len(pictures.missing), 'slice')} without a picture, and no heat maps: {reason}"]
    if answered.ensemble is not None and view.findings.flagged:
        try:
            draw_heat(answered.ensemble, view.series, view.findings, folder, pictures)
        except ScanError as error:
            return [f"{who}: no heat maps: {error.reason.partition(':')[0]}"]
        except ConfigError as error:
            return [f"{who}: no heat maps: {error}"]
    return []


def _shared(answered: Answered, views: Sequence[ExamView], *, show_id: bool) -> dict[str, Any]:
    """What all pages know."""
    of = answered.predictions
    first = views[0].findings
    named = SALTED_NOTE if all(is_pseudonym(view.name) for view in views) else PSEUDONYM_NOTE
    notes = [*of.calibration_notes] if of.calibration_notes else [] if first.fitted else [DEFAULT_RULE]
    return {
        "views": views,
        "flagged": sum(view.findings.flagged for view in views),
        "networks": networks_of(answered.ensemble),
        "unknown_network": UNKNOWN,
        "notes": [*([of.note] if of.note else []), *notes, *([] if show_id else [named])],
        "left_out": [
            *_left_out([one for one in of.left_out if one not in of.failed], show_id=show_id),
            *(f"not asked: {line}" for line in _left_out(of.not_asked, show_id=show_id, plural="series")),
        ],
        "failed": _left_out(of.failed, show_id=show_id),
        "show_id": show_id,
        "calibrated": first.calibrated,
        "clear": f"{CLEAR:.0%}",
        "version": ichseq.__version__,
    }


def _left_out(items: Sequence[LeftOut], *, show_id: bool, plural: str = "files") -> list[str]:
    """How many for which reason; names of files may be those of patients, and stand there only if asked for."""
    if show_id:
        return [f"{item.file}: {item.reason}" for item in items]
    kinds = [LeftOut("", item.reason.partition(":")[0]) for item in items]
    singular = plural if plural == "series" else plural.removesuffix("s")
    return [f"{n} {singular if n == 1 else plural}: {reason}" for reason, n in count_reasons(kinds).items()]


def _write_frame(folder: Path) -> None:
    """What every report has, whatever it shows."""
    (folder / "assets").mkdir(parents=True)
    (folder / "exams").mkdir()
    for name in _ASSETS:
        (folder / "assets" / name).write_bytes((files(__package__) / "assets" / name).read_bytes())
    made = {"report": FORMAT, "ichseq": ichseq.__version__}
    (folder / MARK).write_text(json.dumps(made), encoding="utf-8")


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ichseq.html_report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["score"] = score_text
    environment.filters["inline"] = inline
    return environment


_PAGES = _environment()


def _write(path: Path, template: str, **content: Any) -> None:
    path.write_text(_PAGES.get_template(template).render(content), encoding="utf-8")
