"""The report in a real browser, opened from disk: it sorts, filters, opens an exam, scrolls, and logs no error."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flagged_phantoms import flagged_answer

from ichseq.html_report import write_report
from ichseq.model import Model
from ichseq.runs.folders import leaf_of

playwright = pytest.importorskip("playwright.sync_api")

PLACES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def report(run: Path, phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("browser") / "report"
    write_report(flagged_answer(Model.load(leaf_of(run, "joint", 0)), phantoms / "stage_2_train"), out)
    return out


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    program = next(filter(None, map(shutil.which, PLACES)), None)
    if program is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=program, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any, report: Path) -> Iterator[Any]:
    """The work list; at the end, nothing was logged and nothing asked of a network."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("requestfailed", lambda request: wrong.extend([] if "ABORTED" in request.failure else [request.url]))
    page.on(
        "request", lambda request: wrong.extend([] if request.url.startswith(("file:", "data:")) else [request.url])
    )
    page.goto((report / "index.html").as_uri())
    yield page
    page.close()
    assert wrong == []


def shown(page: Any) -> list[int]:
    """The places of the rows that are seen, in their order."""
    return page.eval_on_selector_all(
        "#list tbody tr:not([hidden])", "rows => rows.map(row => Number(row.dataset.place))"
    )


def test_the_work_list_sorts_filters_and_searches(page: Any) -> None:
    every = shown(page)
    assert every == list(range(1, 11))
    score = "rows => rows.map(row => Number(row.dataset.score))"
    page.click("button[data-sort=score]")
    scores = page.eval_on_selector_all("#list tbody tr", score)
    assert scores == sorted(scores, reverse=True)
    page.click("button[data-sort=score]")
    assert page.eval_on_selector_all("#list tbody tr", score) == sorted(scores)
    assert page.get_attribute("th:has(button[data-sort=score])", "aria-sort") == "ascending"
    page.click("button[data-sort=place]")
    assert shown(page) == every
    page.keyboard.press("f")
    flagged = shown(page)
    assert 0 < len(flagged) < 10
    assert flagged == every[: len(flagged)]
    page.select_option("#filter", "unflagged")
    assert shown(page) == every[len(flagged) :]
    page.select_option("#filter", "all")
    name = page.get_attribute("tr[data-place='3']", "data-name")
    page.keyboard.press("Escape")
    page.locator("#search").fill(name)
    assert shown(page) == [3]
    page.locator("#search").fill("nothing is called so")
    assert shown(page) == []
    page.click("#reset")
    assert shown(page) == every


def drawn(page: Any, number: int) -> None:
    """Wait until a slice, counted from 1, is in the canvas."""
    page.wait_for_function(f"document.getElementById('slice').dataset.drawn === '{number - 1}'")


def now(page: Any) -> int:
    return int(page.input_value("#number"))


def test_an_exam_is_opened_and_scrolled_by_keys_wheel_and_slider(page: Any) -> None:
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url("**/exams/0001.html")
    count = int(page.get_attribute("#number", "max"))
    start = now(page)
    drawn(page, start)
    page.keyboard.press("Home")
    drawn(page, 1)
    page.keyboard.press("ArrowUp")
    drawn(page, 2)
    page.keyboard.press("PageUp")
    drawn(page, 7)
    page.keyboard.press("End")
    drawn(page, count)
    page.hover("#slice")
    page.mouse.wheel(0, 100)
    drawn(page, count - 1)
    page.mouse.wheel(0, -100)
    drawn(page, count)
    page.locator("#number").fill("3")
    drawn(page, 3)
    page.keyboard.press("k")
    drawn(page, start)
    assert f"Slice {start} of {count}" in page.inner_text("#readout")
    page.keyboard.press("]")
    page.wait_for_url("**/exams/0002.html")
    page.keyboard.press("Escape")
    page.wait_for_url("**/index.html#exam-0002")
    assert page.evaluate("document.activeElement.closest('tr').dataset.place") == "2"


def test_windows_and_the_heat_map_change_the_picture(page: Any, report: Path) -> None:
    # An untrained network may have no evidence for what it answers; the largest file of a heat map has some.
    most = max(report.glob("exams/*/h*.webp"), key=lambda path: path.stat().st_size)
    page.goto((report / "exams" / f"{most.parent.name}.html").as_uri())
    number = int(most.stem[1:]) + 1
    page.locator("#number").fill(str(number))
    drawn(page, number)
    canvas = page.locator("#slice")
    assert page.is_checked("#heat")
    labels = page.evaluate(f"JSON.parse(document.getElementById('data').textContent).heat[{number - 1}]")
    differ = []
    for label in labels:
        page.select_option("#heat-label", label)
        page.wait_for_timeout(300)
        coloured = canvas.screenshot()
        page.keyboard.press("h")
        page.wait_for_timeout(300)
        assert not page.is_checked("#heat")
        plain = canvas.screenshot()
        differ.append(coloured != plain)
        page.keyboard.press("h")
    assert any(differ)
    page.keyboard.press("h")
    page.keyboard.press("3")
    page.wait_for_timeout(300)
    assert page.is_checked("input[name=window][value='2']")
    assert canvas.screenshot() != plain
    page.keyboard.press("1")
    page.wait_for_timeout(300)
    assert canvas.screenshot() == plain


def test_no_page_is_wider_than_a_phone(page: Any, report: Path) -> None:
    page.set_viewport_size({"width": 400, "height": 800})
    for name in ("index.html", "exams/0001.html", "network.html"):
        page.goto((report / name).as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_an_exam_prints_to_two_pages(page: Any, report: Path, tmp_path: Path) -> None:
    page.goto((report / "exams" / "0001.html").as_uri())
    printed = page.pdf(path=str(tmp_path / "exam.pdf"), format="A4", print_background=True)
    assert printed.count(b"/Type /Page\n") <= 2 or printed.count(b"/Type/Page\n") <= 2
    assert printed.count(b"/Type /Page") > 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_their_ground(browser: Any, report: Path, scheme: str) -> None:
    """The contrast of text and ground is 4.5 or more (WCAG 2.1, 1.4.3)."""
    page = browser.new_page(color_scheme=scheme)
    for name in ("index.html", "exams/0001.html"):
        page.goto((report / name).as_uri())
        low = page.evaluate(CONTRAST)
        assert low == []
    page.close()


CONTRAST = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const ground = (one) => {
    for (; one; one = one.parentElement) {
      const colour = parse(getComputedStyle(one).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const low = [];
  for (const one of document.querySelectorAll("main *, .bar *, footer *")) {
    const words = [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!words || one.closest(".screen, svg, script, option")) continue;
    const [a, b] = [light(parse(getComputedStyle(one).color)), light(ground(one))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) low.push(`${one.tagName}.${one.className}: ${ratio.toFixed(2)}`);
  }
  return low;
}"""
