"""Pictures show what they are given."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ichseq.errors import DataError
from ichseq.evaluation.pictures import plot_history, plot_montage
from ichseq.labels import LABELS

RED = np.array([255, 75, 62])


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


ORANGE = np.array([240, 160, 48])
BLUE = np.array([86, 180, 233])


@pytest.mark.parametrize("epochs", [1, 5])
def test_history_is_drawn_with_and_without_validation(tmp_path, epochs):
    history = _history(epochs)
    plot_history({"joint": history}, tmp_path / "with.png", prior=0.5)
    plot_history({"joint": history.assign(valid_loss=None)}, tmp_path / "new" / "without.png")
    with_valid, without = _pixels(tmp_path / "with.png"), _pixels(tmp_path / "new" / "without.png")
    assert with_valid.std() > 5
    assert without.std() > 5
    assert _near(with_valid, ORANGE) > _near(without, ORANGE)


def test_stages_follow_each_other_in_the_curves(tmp_path):
    early, late = _history(4), _history(4).assign(train_loss=np.nan, learning_rate_backbone=np.nan)
    plot_history({"slice": early, "joint": late}, tmp_path / "both.png")
    picture = _pixels(tmp_path / "both.png")
    height, width, _ = picture.shape
    below_legend = np.abs(picture[int(0.4 * height) :] - BLUE).max(axis=-1) < 30
    assert below_legend[:, int(0.05 * width) : int(0.24 * width)].any()  # the slice stage's half of the loss
    assert not below_legend[:, int(0.27 * width) : int(0.47 * width)].any()  # the joint stage's


def test_history_without_a_stage_a_column_or_an_epoch_is_refused(tmp_path):
    with pytest.raises(DataError, match="no stage"):
        plot_history({}, tmp_path / "a.png")
    with pytest.raises(DataError, match="joint has no train_loss"):
        plot_history({"joint": _history(3).drop(columns="train_loss")}, tmp_path / "a.png")
    with pytest.raises(DataError, match="no epoch"):
        plot_history({"joint": _history(0)}, tmp_path / "a.png")


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
