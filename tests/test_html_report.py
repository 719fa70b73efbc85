"""The reader's report: everything in one folder, in the order of urgency, and nothing of a patient in it."""

import json
import re
import resource
import shutil
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from flagged_phantoms import flagged_answer

from ichseq.ct.left_out import LeftOut
from ichseq.ct.picture import grey
from ichseq.errors import DataError
from ichseq.html_report import check_folder, write_report
from ichseq.html_report.draw import HEAT_MAPS, heat_wanted
from ichseq.html_report.network import html_of, networks_of, section
from ichseq.html_report.pictures import CLEAR, HEAT_SIDE, heat_picture, size_within, slice_picture, small_heat
from ichseq.html_report.sides import sides_of
from ichseq.html_report.view import _area, _runs
from ichseq.inference.answered import Answered
from ichseq.inference.heatmap import ensemble_heatmaps
from ichseq.inference.model_ensemble import ModelEnsemble
from ichseq.labels import LABELS
from ichseq.model import Model
from ichseq.networks.shipped import default_network
from ichseq.predictions.findings import by_urgency, findings_of
from ichseq.predictions.names import pseudonym, score_text
from ichseq.predictions.schema import ExamId
from ichseq.runs.folders import leaf_of


@pytest.fixture(scope="module")
def answered(run: Path, phantoms: Path) -> Answered:
    return flagged_answer(Model.load(leaf_of(run, "joint", 0)), phantoms / "stage_2_train")


@pytest.fixture(scope="module")
def report(answered: Answered, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    out = tmp_path_factory.mktemp("reports") / "report"
    assert write_report(answered, out) == []
    return out


class References(HTMLParser):
    """What a page loads and links to."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in ("src", "href") and value]


def texts(folder: Path) -> str:
    return "\n".join(path.read_text() for path in folder.rglob("*") if path.suffix in (".html", ".js", ".css", ".json"))


def test_all_that_a_page_needs_lies_in_the_folder(report: Path, answered: Answered) -> None:
    pages = sorted(report.rglob("*.html"))
    assert len(pages) == 2 + len(answered.predictions.exams)
    for page in pages:
        for reference in References(page).found:
            if reference != "data:,":
                assert (page.parent / reference.partition("#")[0]).is_file(), f"{page}: {reference}"
    assert not re.search(r"""https?://|url\(|@import|\bfetch\(|XMLHttpRequest""", texts(report))


def test_the_work_list_is_in_the_order_of_urgency(report: Path, answered: Answered) -> None:
    of = answered.predictions
    ordered = by_urgency(findings_of(of.slices, of.exams))
    assert 0 < sum(one.flagged for one in ordered) < len(ordered)
    page = (report / "index.html").read_text()
    assert re.findall(r'data-score="([\d.]+)"', page) == [str(one.score) for one in ordered]
    assert re.findall(r'<td class="who"><a href="exams/\d+.html">(\w+)<', page) == [
        pseudonym(one.exam) for one in ordered
    ]
    for place, one in enumerate(ordered, 1):
        exam = (report / "exams" / f"{place:04d}.html").read_text()
        data = json.loads(re.findall(r'id="data">(.*?)</script>', exam)[0])
        assert np.allclose(data["scores"]["any"], one.labels["any"].slices, atol=1e-4)
        assert data["flagged"]["subdural"] == list(one.labels["subdural"].flagged_slices)
        assert exam.count('<tr><th scope="row">') == len(one.rows), "the table behind the plot"


def test_no_patient_is_in_a_report_unless_that_is_asked_for(answered: Answered, report: Path, tmp_path: Path) -> None:
    of = answered.predictions
    failed = [LeftOut("/data/DOE^JOHN/1.dcm", "is truncated")]
    doubted = replace(of, failed=failed, left_out=failed)
    write_report(replace(answered, predictions=doubted, ensemble=None), tmp_path / "open", show_id=True)
    write_report(replace(answered, predictions=doubted, ensemble=None), tmp_path / "closed")
    secrets = {*of.exams["patient_id"], *of.exams["series_uid"], *of.exams["study_uid"], *of.slices["sop_uid"]}
    secrets |= {"DOE^JOHN", *(Path(file).name for file in of.slices["file"])}
    for folder in (report, tmp_path / "closed"):
        words = texts(folder) + "\n".join(str(path.relative_to(folder)) for path in folder.rglob("*"))
        assert [secret for secret in secrets if secret in words] == []
    shown = texts(tmp_path / "open")
    assert all(patient in shown for patient in of.exams["patient_id"])
    assert "DOE^JOHN" in shown
    assert "1 file: is truncated" in texts(tmp_path / "closed")


def test_what_others_wrote_is_text_and_no_markup(answered: Answered, tmp_path: Path) -> None:
    of, wrong = answered.predictions, "</script><script>alert('&amp;')</script>"
    exams = of.exams.assign(patient_id="<b>P</b>")
    slices = of.slices.assign(patient_id="<b>P</b>")
    warnings = [[wrong] for _ in range(len(exams))]
    left = [LeftOut(f"{wrong}.txt", wrong, expected=True)]
    given = replace(of, exams=exams, slices=slices, series_warnings=warnings, note=wrong, left_out=left)
    write_report(replace(answered, predictions=given, ensemble=None), tmp_path / "report", show_id=True)
    pages = [path.read_text() for path in tmp_path.rglob("*.html")]
    assert all("alert(" not in page or "&lt;script&gt;alert(" in page for page in pages)
    assert not any("<script>alert" in page or "<b>P" in page for page in pages)
    assert any("&lt;b&gt;P" in page for page in pages)


def test_a_picture_shows_three_windows_of_the_pixels(report: Path, answered: Answered) -> None:
    of = answered.predictions
    first = by_urgency(findings_of(of.slices, of.exams))[0]
    series = of.series[first.number]
    hu = series.read(first.key_slice, first.key_slice + 1)[0]
    path = report / "exams" / "0001" / f"s{first.key_slice:04d}.webp"
    shown = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    rows, columns = series.shape[1:]
    assert shown.shape == (rows, 3 * columns)
    for place, window in enumerate(("brain", "subdural")):
        part = shown[:, place * columns : (place + 1) * columns]
        assert np.abs(part / 255 - grey(hu, window)).mean() < 0.03
    assert len(list((report / "exams" / "0001").glob("s*.webp"))) == len(series)


def test_a_long_slice_is_made_smaller_and_none_larger() -> None:
    assert size_within((1024, 768), 512) == (512, 384)
    assert size_within((40, 64), 512) == (40, 64)
    picture = slice_picture(np.zeros((1024, 768), np.int16))
    assert cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_GRAYSCALE).shape == (512, 3 * 384)


def test_a_heat_map_is_strongest_where_the_evidence_is(report: Path, answered: Answered) -> None:
    of = answered.predictions
    ordered = by_urgency(findings_of(of.slices, of.exams))
    compared = 0
    for place, one in enumerate(ordered, 1):
        folder, series = report / "exams" / f"{place:04d}", of.series[one.number]
        drawn = json.loads(re.findall(r'id="data">(.*?)</script>', folder.with_suffix(".html").read_text())[0])["heat"]
        wanted, left = heat_wanted(one)
        assert left == 0
        assert wanted.keys() == {label for label, of_label in one.labels.items() if of_label.flagged}
        assert {(int(k), label) for k, labels in drawn.items() for label in labels} == {
            (k, label) for label, numbers in wanted.items() for k in numbers
        }
        for label, maps in ensemble_heatmaps(answered.ensemble, series, wanted).items():
            if maps.max() == 0:
                continue
            number = wanted[label][int(maps.max((1, 2)).argmax())]
            tiles = cv2.imread(str(folder / f"h{number:04d}.webp"), cv2.IMREAD_UNCHANGED)
            assert tiles.shape[1] == len(drawn[str(number)]) * maps.shape[2]
            tile = tiles[:, drawn[str(number)].index(label) * maps.shape[2] :][:, : maps.shape[2], 3]
            strongest = np.unravel_index(maps[wanted[label].index(number)].argmax(), maps.shape[1:])
            assert tile[strongest] > 230, "the strongest place is opaque"
            compared += 1
    assert compared


def test_heat_is_clear_where_there_is_little_of_it() -> None:
    ramp = np.tile(np.linspace(0, 1, 400, dtype=np.float32), (200, 1))
    small = small_heat(ramp)
    assert max(small.shape) == HEAT_SIDE
    shown = cv2.imdecode(np.frombuffer(heat_picture([small, small]), np.uint8), cv2.IMREAD_UNCHANGED)
    assert shown.shape == (HEAT_SIDE // 2, 2 * HEAT_SIDE, 4)
    opacity = shown[10, :HEAT_SIDE, 3].astype(int)
    assert (opacity[: int(CLEAR * HEAT_SIDE) - 1] == 0).all()
    assert (np.diff(opacity) >= -1).all()
    assert opacity[-1] > 250


def test_of_a_long_scan_the_slices_with_the_highest_scores_have_heat_maps(answered: Answered) -> None:
    (one, *_) = findings_of(answered.predictions.slices, answered.predictions.exams)
    scores = np.linspace(0, 1, 1000)
    of_any = replace(one.labels["any"], flagged=True, slices=scores, key_slice=999, flagged_slices=tuple(range(1000)))
    others = {label: replace(one.labels[label], flagged=False) for label in LABELS if label != "any"}
    wanted, left = heat_wanted(replace(one, labels={"any": of_any, **others}))
    assert wanted == {"any": list(range(1000 - HEAT_MAPS, 1000))}
    assert left == 1000 - HEAT_MAPS


def test_a_folder_that_holds_something_else_stays_as_it_is(answered: Answered, report: Path, tmp_path: Path) -> None:
    bare = replace(answered, ensemble=None)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"mine: holds notes\.txt, which no report writes; move that away"):
        write_report(bare, mine)
    old = Path(shutil.copytree(report, tmp_path / "old"))
    (old / "exams" / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"old: holds exams/notes\.txt"):
        write_report(bare, old)
    (old / "exams" / "notes.txt").unlink()
    (old / "report.json").unlink()
    with pytest.raises(DataError, match="is there already and is no report"):
        write_report(bare, old)
    with pytest.raises(DataError, match=r"notes\.txt: is there already, and is no folder"):
        write_report(bare, mine / "notes.txt")
    with pytest.raises(DataError, match=r"p\.csv: lies in the report's folder"):
        check_folder(tmp_path / "new", tmp_path / "new" / "p.csv")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_an_older_report_is_replaced_and_a_full_disk_leaves_it(
    answered: Answered, report: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(report, tmp_path / "report"))
    (out / "exams" / "0099.html").write_text("of an exam that is not there any more")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, limits[1]))  # a write beyond fails, as on a full disk
    try:
        with pytest.raises(DataError, match=r"report: the report can't be written \(File too large\); make room"):
            write_report(replace(answered, ensemble=None), out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    write_report(replace(answered, ensemble=None), out)
    assert not (out / "exams" / "0099.html").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_a_slice_that_cannot_be_read_again_has_a_reason_and_no_picture(
    run: Path, phantoms: Path, tmp_path: Path
) -> None:
    scan = Path(shutil.copytree(phantoms / "stage_2_test", tmp_path / "scan"))
    answered = flagged_answer(Model.load(leaf_of(run, "joint", 0)), scan)
    victim = Path(answered.predictions.series[0].files[2])
    victim.write_bytes(victim.read_bytes()[:-50])
    (line,) = write_report(answered, tmp_path / "report")
    assert re.match(r"exam 1 \(\w{8}\): 1 slice without a picture, and no heat maps: ", line)
    folder = tmp_path / "report" / "exams" / "0001"
    assert not (folder / "s0002.webp").exists()
    assert (folder / "s0003.webp").is_file()
    assert not list(folder.glob("h*"))
    page = folder.with_suffix(".html").read_text()
    assert list(json.loads(re.findall(r'id="data">(.*?)</script>', page)[0])["missing"]) == ["2"]


def test_a_page_says_which_network_answered_and_where_its_card_is(report: Path, answered: Answered) -> None:
    (network,) = networks_of(answered.ensemble)
    assert network.card is None
    assert "test_resnet" in network.what
    assert network.what in (report / "exams" / "0001.html").read_text()
    shipped = Model.load(default_network(), device="cpu")
    (network,) = networks_of(ModelEnsemble([shipped, shipped]))
    assert network.number == 2
    assert network.measured is not None
    assert "real exams with bleeding" in network.measured
    assert "<table>" in network.measured
    assert "## " not in str(network.card)
    assert networks_of(None) == []


def test_a_card_is_escaped() -> None:
    text = (
        "# A <b>\n\nOne `x < y`\nline.\n\n| a | <i> |\n|---|---|\n| 1 | 2 |\n\n- one\n- two\n  and more\n\n    run <it>"
    )
    assert str(html_of(text)) == (
        "<h1>A &lt;b&gt;</h1>\n<p>One <code>x &lt; y</code> line.</p>\n"
        '<div class="wide"><table><tr><th>a</th><th>&lt;i&gt;</th></tr><tr><td>1</td><td>2</td></tr></table></div>\n'
        "<ul><li>one</li><li>two and more</li></ul>\n<pre>run &lt;it&gt;</pre>"
    )
    assert section("# One\n\nfirst\n\n## Two\n\nsecond\n", "Two").strip() == "second"
    assert section("# One\n\nfirst\n", "Two") == ""


@pytest.mark.parametrize(
    ("orientation", "sides"),
    [
        ([1, 0, 0, 0, 1, 0], "RLAP"),
        ([-1, 0, 0, 0, 1, 0], "LRAP"),
        ([0.98, 0.1, 0, -0.1, -0.9, 0.4], "RLPA"),
        ([0, 1, 0, 0, 0, -1], "APHF"),
        ([np.nan] * 6, ""),
    ],
)
def test_the_sides_of_a_slice(orientation: list[float], sides: str) -> None:
    assert "".join(sides_of(np.array(orientation, float)).values()) == sides


def test_scores_outlines_and_runs() -> None:
    assert [score_text(score) for score in (0.0, 0.001, 0.005, 0.5, 0.994, 0.9999, 1.0)] == [
        "0.00", "<0.01", "0.01", "0.50", "0.99", ">0.99", "1.00"
    ]  # fmt: skip
    assert _area(np.array([0.0, 0.5, 1.0])) == "M0 1V1H1V0.5H2V0H3V1Z"
    assert _runs([1, 2, 3, 7, 9, 10]) == [(1, 3), (7, 1), (9, 2)]
    assert _runs([]) == []


def test_pseudonyms_tell_patients_apart_and_hide_their_ids() -> None:
    names = [pseudonym(ExamId(*key)) for key in (("A", "1", "1"), ("A", "2", "9"), ("B", "1", "1"), ("", "1", "1"))]
    assert names[0] == names[1]
    assert len(set(names)) == 3
    assert all(re.fullmatch("[0-9a-f]{8}", name) for name in names)


def test_progress_counts_the_exams(answered: Answered, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    note: Callable[[int, int], None] = lambda done, total: calls.append((done, total))  # noqa: E731
    write_report(replace(answered, ensemble=None), tmp_path / "report", progress=note)
    assert calls == [(k + 1, 10) for k in range(10)]
