"""Smoothing and clipping, by hand on a table of five slices."""

import numpy as np
import pandas as pd
import pytest
from five_slices import close, five_slices

from ichseq.errors import ConfigError
from ichseq.predictions.smooth import MEAN, WEIGHTED, clip, smooth, smooth_by_name

NAN = np.nan


def test_smoothing_by_hand() -> None:
    plain = smooth(five_slices())
    assert close(plain, "any", [0.25, 0.4, 1.3 / 3, 0.6, 0.55])
    assert close(plain, "epidural", [0.55, 0.6, 1.3 / 3, 0.4, 0.25])
    assert close(plain, "subdural", [0.5] * 5)
    weighted = smooth(five_slices(), WEIGHTED)
    assert close(weighted, "any", [0.25, 0.4, 0.54, 0.44, 0.55])
    assert close(weighted, "epidural", [0.55, 0.44, 0.54, 0.4, 0.25])
    pd.testing.assert_frame_equal(smooth_by_name(five_slices(), "mean"), plain)
    pd.testing.assert_frame_equal(smooth_by_name(five_slices(), "weighted"), weighted)
    pd.testing.assert_frame_equal(smooth_by_name(five_slices(), "none"), five_slices())
    # Before and after are not exchanged: the slice takes all from the one before it.
    assert close(smooth(five_slices(), (3, 0, 0)), "any", [0.25, 0.1, 0.4, 0.7, 0.55])


def test_smoothing_takes_slices_by_their_index_and_keeps_the_rows() -> None:
    rows = [3, 0, 4, 2, 1]
    table = five_slices().iloc[rows]
    smoothed = smooth(table, WEIGHTED)
    pd.testing.assert_frame_equal(smoothed, smooth(five_slices(), WEIGHTED).iloc[rows])
    pd.testing.assert_frame_equal(table, five_slices().iloc[rows])


def test_series_of_two_slices_and_of_one() -> None:
    table = five_slices("abacb", [1, 0, 0, 0, 1])
    for weights in (MEAN, WEIGHTED):
        assert close(smooth(table, weights), "any", [0.4, 0.65, 0.4, 0.2, 0.65])
    assert smooth(table[:0]).empty


def test_two_series_interleaved_do_not_mix() -> None:
    table = five_slices("ababa", [2, 0, 1, 1, 0])
    assert close(smooth(table), "any", [0.4, 0.3, 1.7 / 3, 0.3, 0.8])
    assert close(smooth(table, WEIGHTED), "any", [0.4, 0.3, 0.62, 0.3, 0.8])
    # The same name of a series in two patients means two series.
    assert close(smooth(five_slices(patients="ppqqq")), "any", [0.25, 0.25, 0.45, 0.6, 0.55])


def test_by_patient_the_series_of_a_patient_touch() -> None:
    table = five_slices("aacbb", [0, 1, 0, 0, 1], patients="ppqpp")
    assert close(smooth(table), "any", [0.25, 0.25, 0.7, 0.55, 0.55])
    assert close(smooth(table, by="patient"), "any", [0.25, 0.7 / 3, 0.7, 0.5, 0.55])
    one_each = five_slices("aabbb", [0, 1, 0, 1, 2], patients="ppqqq")
    pd.testing.assert_frame_equal(smooth(one_each, by="patient"), smooth(one_each))


@pytest.mark.parametrize("weights", [(1, 1), (1, 2, 1), (-1, 5, -1), (NAN, 1, 1)])
def test_smoothing_weights_that_do_not_fit_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="smoothing weights"):
        smooth(five_slices(), weights)
    with pytest.raises(ConfigError, match="smoothing by 'study'"):
        smooth(five_slices(), by="study")  # type: ignore[arg-type]


def test_clip_by_hand() -> None:
    table = five_slices(scores=[0.0, 1e-6, 0.5, 0.999999, 1.0])
    assert close(clip(table), "any", [1e-5, 1e-5, 0.5, 0.99999, 0.99999])
    assert close(clip(table), "epidural", [0.99999, 0.99999, 0.5, 1e-5, 1e-5])
    assert close(clip(table, 0.1), "any", [0.1, 0.1, 0.5, 0.9, 0.9])
    pd.testing.assert_frame_equal(clip(table, 0), table)
    for least in (-0.1, 0.5, NAN):
        with pytest.raises(ConfigError, match="clipping at"):
            clip(table, least)
