"""Tests of the report: figures as text, pictures that show what they are given, a page whose links lead somewhere."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ichseq.errors import DataError
from ichseq.evaluation.report import (
    metrics_markdown,
    metrics_text,
    plot_history,
    plot_montage,
    write_results_page,
)
from ichseq.labels import LABELS

RED = np.array([255, 75, 62])


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


def _table(n: int, any_: float, *, truth: float = np.nan) -> pd.DataFrame:
    columns = {label: np.full(n, 0.2) for label in LABELS} | {"any": np.full(n, any_)}
    return pd.DataFrame(columns | {f"true_{label}": np.full(n, truth) for label in LABELS})


def _history(epochs: int) -> pd.DataFrame:
    epoch = np.arange(1, epochs + 1)
    falling = 1.0 / epoch
    return pd.DataFrame(
        {
            "epoch": epoch,
            "train_loss": falling,
            "valid_loss": falling + 0.1,
            "learning_rate_backbone": falling * 1e-4,
            "learning_rate_sequence": falling * 1e-3,
            "slices_per_second": 50.0 + epoch,
        }
    )


def _pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(int)


def _near(pixels: np.ndarray, colour: np.ndarray) -> int:
    return int((np.abs(pixels - colour).max(axis=-1) < 30).sum())


@pytest.mark.parametrize("render", [metrics_text, metrics_markdown])
def test_text_holds_every_figure_and_the_reason_of_an_undefined_one(render, metrics):
    text = render(metrics)
    for figure in ("0.1234", "0.2468", "0.1111 to 0.1357", "0.7531 to 0.8642", "0.9123", "4321", "0.8400"):
        assert figure in text
    assert "labels.epidural.auc: no slice is positive" in text
    (line,) = [line for line in text.splitlines() if line.lstrip("| ").startswith("epidural")]
    assert re.findall(r"(?<!\S)-(?!\S)", line) == ["-", "-"]
    assert "None" not in text
    assert "nan" not in text


@pytest.mark.parametrize("render", [metrics_text, metrics_markdown])
def test_text_of_a_table_without_truth(render):
    text = render({"weighted_log_loss": None, "n_slices": 5, "undefined": {"weighted_log_loss": "no truth is known"}})
    assert "no truth is known" in text
    assert "None" not in text


def test_markdown_rows_have_as_many_cells_as_their_head(metrics):
    blocks = [block for block in metrics_markdown(metrics).split("\n\n") if block.startswith("|")]
    assert len(blocks) == 2
    for block in blocks:
        assert len({line.count("|") for line in block.splitlines()}) == 1


@pytest.mark.parametrize("epochs", [1, 5])
def test_history_is_drawn_with_and_without_validation(tmp_path, epochs):
    history = _history(epochs)
    plot_history(history, tmp_path / "with.png", prior=0.5)
    plot_history(history.assign(valid_loss=None), tmp_path / "new" / "without.png")
    with_valid, without = _pixels(tmp_path / "with.png"), _pixels(tmp_path / "new" / "without.png")
    assert with_valid.std() > 5
    assert without.std() > 5
    red = np.array([214, 96, 77])
    assert _near(with_valid, red) > _near(without, red)


def test_history_without_a_column_or_an_epoch_is_refused(tmp_path):
    with pytest.raises(DataError, match="train_loss"):
        plot_history(_history(3).drop(columns="train_loss"), tmp_path / "a.png")
    with pytest.raises(DataError, match="epoch"):
        plot_history(_history(0), tmp_path / "a.png")


def test_montage_frames_in_red_what_is_called_bleeding(tmp_path):
    hu = np.random.default_rng(0).normal(40, 15, (7, 48, 64)).astype(np.int16)
    for name, p in (("low", 0.1), ("high", 0.9)):
        plot_montage(hu, _table(7, p), tmp_path / f"{name}.png", title="A head", note="made up")
    low, high = _pixels(tmp_path / "low.png"), _pixels(tmp_path / "high.png")
    assert low.shape[1] == 1800
    assert _near(low, RED) > 50, "the legend's frame lost its colour"
    assert _near(high, RED) > _near(low, RED) + 7 * 1000


def test_montage_marks_the_truth_where_it_is_known(tmp_path):
    hu = np.zeros((4, 32, 32), np.int16)
    plot_montage(hu, _table(4, 0.1, truth=1.0), tmp_path / "positive.png", title="A head")
    plot_montage(hu, _table(4, 0.1, truth=np.nan), tmp_path / "unknown.png", title="A head")
    green = np.array([47, 196, 141])
    assert _near(_pixels(tmp_path / "positive.png"), green) > 1.5 * _near(_pixels(tmp_path / "unknown.png"), green)
    without_truth = _table(4, 0.1)[list(LABELS)]
    plot_montage(hu, without_truth, tmp_path / "absent.png", title="A head")
    assert np.array_equal(_pixels(tmp_path / "absent.png"), _pixels(tmp_path / "unknown.png"))


def test_truth_band_lies_at_its_slice(tmp_path):
    table = _table(4, 0.1, truth=0.0)
    table.loc[0, "true_intraventricular"] = 1.0
    plot_montage(np.zeros((4, 32, 32), np.int16), table, tmp_path / "first.png", title="A head")
    bottom = _pixels(tmp_path / "first.png")[-165:-65]
    columns = np.flatnonzero((np.abs(bottom - [47, 196, 141]).max(axis=-1) < 30).sum(axis=0) > 3)
    left, width = 0.055 * 1800, 0.925 * 1800
    assert columns[0] == pytest.approx(left, abs=4)
    assert columns[-1] == pytest.approx(left + width / 4, abs=4)


def test_montage_of_many_slices_stays_of_moderate_size(tmp_path):
    hu = np.zeros((200, 16, 16), np.int16)
    plot_montage(hu, _table(200, 0.4), tmp_path / "many.png", title="Thin slices")
    assert _pixels(tmp_path / "many.png").shape[0] < 3000


def test_montage_refuses_a_table_of_another_length(tmp_path):
    with pytest.raises(DataError, match="3 rows for 4 slices"):
        plot_montage(np.zeros((4, 16, 16), np.int16), _table(3, 0.1), tmp_path / "a.png", title="A head")


def test_page_needs_nothing_from_outside_and_its_links_exist(tmp_path, metrics):
    folder = tmp_path / "results"
    plot_history(_history(2), folder / "training curves.png")
    plot_montage(np.zeros((2, 16, 16), np.int16), _table(2, 0.1), folder / "montage.png", title="A head")
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
