"""Tests of the report: figures as text, and a page whose links lead somewhere."""

import re

import pytest
from PIL import Image

from ichseq.evaluation.report import markdown_table, metrics_text, reasons_text, write_results_page
from ichseq.labels import LABELS


@pytest.fixture
def metrics() -> dict:
    """Figures with one label that has no positive slice."""
    labels = {
        label: {"log_loss": 0.1 + k / 100, "auc": 0.8 + k / 100, "average_precision": 0.3, "positives": 10 + k}
        for k, label in enumerate(LABELS)
    }
    labels["epidural"] |= {"auc": None, "average_precision": None, "positives": 0}
    return {
        "weighted_log_loss": 0.1234,
        "prior_weighted_log_loss": 0.2468,
        "ratio_to_prior": 0.5,
        "labels": labels,
        "exam": {"auc_any": 0.9123, "positives": 7},
        "n_slices": 4321,
        "n_exams": 40,
        "n_patients": 39,
        "intervals": {"weighted_log_loss": [0.1111, 0.1357], "labels.subdural.auc": [0.7531, 0.8642]},
        "undefined": {"labels.epidural.auc": "no slice is positive <here>"},
    }


def test_text_holds_every_figure_and_the_reason_of_an_undefined_one(metrics):
    text = metrics_text(metrics)
    for figure in ("0.1234", "0.2468", "0.1111 to 0.1357", "0.7531 to 0.8642", "0.9123", "4321", "0.8400"):
        assert figure in text
    assert "labels.epidural.auc: no slice is positive" in text
    (line,) = [line for line in text.splitlines() if line.lstrip("| ").startswith("epidural")]
    assert re.findall(r"(?<!\S)-(?!\S)", line) == ["-", "-"]
    assert "None" not in text
    assert "nan" not in text


def test_text_of_a_table_without_truth():
    text = metrics_text(
        {"weighted_log_loss": None, "n_slices": 5, "undefined": {"weighted_log_loss": "no truth is known"}}
    )
    assert "no truth is known" in text
    assert "None" not in text


def test_figures_with_one_reason_share_a_line() -> None:
    undefined = {f"labels.{label}.auc": "no positive slice" for label in LABELS} | {"a": "x", "b": "x", "c": "y"}
    assert reasons_text(undefined) == ["labels.epidural.auc and 5 more: no positive slice", "a, b: x", "c: y"]


def test_markdown_rows_have_as_many_cells_as_their_head():
    lines = markdown_table(("Label", "AUC"), [(label, "0.5") for label in LABELS]).splitlines()
    assert len(lines) == 2 + len(LABELS)
    assert {line.count("|") for line in lines} == {3}


def test_page_needs_nothing_from_outside_and_its_links_exist(tmp_path, metrics):
    folder = tmp_path / "results"
    folder.mkdir()
    for name in ("training curves.png", "montage.png"):
        Image.new("RGB", (8, 8)).save(folder / name)
    names = {"montage": "montage.png", "curves": "training curves.png"}
    write_results_page(folder, metrics, title="A <run>", note="Not for care.", next_steps=["ichseq x"], **names)
    page = (folder / "index.html").read_text(encoding="utf-8")
    links = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(links) == 4
    assert all((folder / link.replace("%20", " ")).is_file() for link in links)
    assert not re.search(r"https?:|<script|@import", page)
    for words in (
        "0.1234",
        "A &lt;run&gt;",
        "positive &lt;here&gt;",
        "Not for care.",
        "ichseq x",
        "prefers-color-scheme",
    ):
        assert words in page


def test_page_without_pictures(tmp_path, metrics):
    write_results_page(tmp_path, metrics, title="A run", note=None, montage=None, curves=None, next_steps=[])
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "<img" not in page
    assert "Next steps" not in page
