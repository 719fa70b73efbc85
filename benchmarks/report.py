"""The reader's report: seconds to write it, megabytes on disk, and milliseconds to the first slice in a browser."""

import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from common import parser, phantoms, report

from ichseq.api import as_ensemble
from ichseq.ct.series import Series, load_series
from ichseq.html_report import write_report
from ichseq.inference.answered import Answered
from ichseq.inference.model_ensemble import ModelEnsemble
from ichseq.inference.predict import Predictions, predict_series
from ichseq.networks.shipped import DEFAULT
from ichseq.predictions.findings import DEFAULT_THRESHOLD, findings_of
from ichseq.predictions.schema import exam_rows

USUAL, LONG, MANY = 35, 600, 200  # slices of a usual and of a long scan; exams of a large work list


def main() -> None:
    options = parser(__doc__, patients=4)
    options.add_argument("--small", type=int, default=128, help="rows and columns of a slice of the large work list")
    asked = options.parse_args()
    ensemble = as_ensemble(DEFAULT)
    every = load_series(phantoms(asked.patients, asked.size))
    whole = outcome([*every], ensemble)
    flagged = [found.number for found in findings_of(whole.slices, whole.exams) if found.flagged]
    usual = min((every[k] for k in flagged), key=lambda series: abs(len(series) - USUAL))
    small = [*load_series(phantoms(asked.patients, asked.small))]
    one = outcome([usual], ensemble)
    cases = {
        f"{len(usual)} slices of {asked.size}": Answered(one, ensemble),
        "the same, without heat maps": Answered(one, None),
        f"{LONG} slices of {asked.size}": Answered(long_scan(one, usual), ensemble),
        "the same long scan, without heat maps": Answered(long_scan(one, usual), None),
        f"{MANY} exams of {asked.small}, without heat maps": Answered(work_list(small, ensemble), None),
    }
    rows = [["report of", "seconds to write", "CPU seconds", "MB", "files", "ms to the first slice in a browser"]]
    for name, answered in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "report"
            begun, busy = time.perf_counter(), time.process_time()
            write_report(answered, out)
            taken, busy = time.perf_counter() - begun, time.process_time() - busy
            files = [path for path in out.rglob("*") if path.is_file()]
            size = sum(path.stat().st_size for path in files) / 1e6
            opened = first_slice(out / "exams" / "0001.html")
            rows.append([name, f"{taken:.1f}", f"{busy:.1f}", f"{size:.2f}", str(len(files)), opened])
    report("report", f"The reader's report, answered by {DEFAULT}", rows, [
        f"Slices are flagged from {DEFAULT_THRESHOLD} on; the long scan and the large work list repeat the phantoms' "
        "slices and exams. Heat maps compute a forward pass of the exam, and one backward for each flagged kind.",
    ])  # fmt: skip


def outcome(found: list[Series], ensemble: ModelEnsemble) -> Predictions:
    """The tables of some series."""
    tables, warnings = [], []
    for series in found:
        answer = predict_series(ensemble, series)
        tables.append(answer.table)
        warnings.append(answer.warnings)
    return Predictions(pd.concat(tables, ignore_index=True), exam_rows(tables, warnings), series=found,
                       series_warnings=warnings)  # fmt: skip


def long_scan(of: Predictions, series: Series) -> Predictions:
    """The slices of an exam again and again, as one long scan."""
    numbers = np.arange(LONG) * len(series) // LONG
    slices = of.slices.iloc[numbers].reset_index(drop=True)
    longer = series.only(series.files)._subset(list(numbers))
    return replace(of, slices=slices, exams=of.exams.assign(n_slices=LONG), series=[longer])


def work_list(found: list[Series], ensemble: ModelEnsemble) -> Predictions:
    """The exams again and again, each time of other patients."""
    of = outcome(found, ensemble)
    parts, series, stop = [], [], of.exams["n_slices"].cumsum()
    for k in range(MANY):
        i = k % len(found)
        rows = of.slices.iloc[stop[i] - of.exams["n_slices"][i] : stop[i]]
        parts.append(rows.assign(patient_id=f"patient {k}", series_uid=f"series {k}"))
        series.append(found[i])
    return Predictions(pd.concat(parts, ignore_index=True), exam_rows(parts, [[] for _ in parts]), series=series)


def first_slice(page: Path) -> str:
    """Median of five openings from disk; "-" without Playwright and Chromium."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        program = None
    if program is None:
        return "-"
    seen = "() => document.getElementById('slice').dataset.drawn !== undefined && performance.now()"
    with sync_playwright() as started:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
        browser = started.chromium.launch(executable_path=program, args=flags)
        times = []
        for _ in range(5):
            opened = browser.new_page(viewport={"width": 1280, "height": 900})
            opened.goto(page.as_uri())
            times.append(opened.wait_for_function(seen).json_value())
            opened.close()
        browser.close()
    return f"{np.median(times):.0f}"


if __name__ == "__main__":
    main()
