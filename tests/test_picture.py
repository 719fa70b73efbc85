"""A series in a notebook: what is shown is its slices, in a window, and nothing of the patient."""

import base64
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from dicom_files import ct_dataset, dicom_bytes, write_series

import ichseq
from ichseq.ct.picture import describe, grey, spread
from ichseq.errors import ConfigError


def picture_in(html: str) -> np.ndarray:
    (data,) = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    return cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_GRAYSCALE)


def write_levels(folder: Path, levels: list[int], **changes) -> ichseq.Series:
    """A series whose slice k has the level k everywhere, in HU."""
    folder.mkdir()
    for number, level in enumerate(levels, 1):
        dataset = ct_dataset(np.full((20, 40), level + 1024, np.int16), number=number, **changes)
        (folder / str(number)).write_bytes(dicom_bytes(dataset))
    return ichseq.load_series(folder)[0]


@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 40, 500])
@pytest.mark.parametrize("most", [1, 2, 8])
def test_slices_are_spread_evenly(length: int, most: int) -> None:
    numbers = spread(length, most)
    assert len(numbers) == min(length, most)
    if most > 1:
        assert (numbers[0], numbers[-1]) == (0, length - 1)
        assert np.ptp(np.diff(numbers)) <= 1 if len(numbers) > 1 else True
    else:
        assert numbers == [length // 2]


def test_a_window_reaches_from_black_to_white() -> None:
    assert grey(np.array([-1024, 0, 40, 80, 3000]), "brain").tolist() == [0, 0, 0.5, 1, 1]
    with pytest.raises(
        ConfigError, match="window 'stroke' does not exist; choose one of brain, subdural, soft_tissue, bone"
    ):
        grey(np.zeros(1), "stroke")


def test_the_html_shows_the_slices_in_order_and_no_patient(tmp_path: Path) -> None:
    levels = [-1000, 8, 16, 24, 32, 40, 48, 56, 64, 72, 1000]
    name = {"PatientID": "SECRET7", "StudyInstanceUID": "1.77.7", "SeriesInstanceUID": "1.77.7.7"}
    html = write_levels(tmp_path / "a-scan", levels, **name)._repr_html_()
    image = picture_in(html)
    middles = image.reshape(128, -1, 128)[64, :, 64]
    assert len(middles) == 8
    assert middles[0] == 0
    assert middles[-1] == 255
    assert (np.diff(middles.astype(int)) > 0).all()
    assert image[:30].max() == 0, "a slice of 20 x 40 pixels is half as high as wide"
    words = re.sub(r'src="[^"]+"', "", html)
    assert "11 slices of 20 x 40 pixels, 0.5 x 0.5 mm each, 5 mm apart" in words
    assert not re.search(r"SECRET7|1\.77|a-scan|1\.2\.3", words)


def test_what_the_header_lacks_is_left_out(tmp_path: Path) -> None:
    write_series(tmp_path / "bare", range(1, 4), PixelSpacing=None, ImagePositionPatient=None)
    series = ichseq.load_series(tmp_path / "bare", order="file")[0]
    assert describe(series) == "3 slices of 16 x 12 pixels"
    assert "nan" not in series._repr_html_()


def test_a_slice_that_cannot_be_read_does_not_break_the_html(tmp_path: Path) -> None:
    series = write_levels(tmp_path / "scan", [0, 10, 20])
    (tmp_path / "scan" / "2").write_bytes(b"gone")
    html = series._repr_html_()
    assert "no picture: a slice can't be read" in html
    assert "<img" not in html


def test_plot_gives_a_figure_with_the_slices(tmp_path: Path) -> None:
    series = write_levels(tmp_path / "scan", [0, 20, 40, 60, 80, 100, 120])
    figure = series.plot("subdural", slices=3)
    titles = [axes.get_title() for axes in figure.axes if axes.images]
    assert titles == ["1", "4", "7"]
    shown = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    for picture, number in zip(shown, (0, 3, 6), strict=True):
        assert np.array_equal(picture, grey(series.hu[number], "subdural"))
    assert figure._repr_png_().startswith(b"\x89PNG")
    figure.savefig(tmp_path / "figure.png")
    assert cv2.imread(str(tmp_path / "figure.png")).std() > 10
    assert len([axes for axes in series.plot(slices=7).axes if axes.images]) == 7
    with pytest.raises(ConfigError, match="0 slices can't be shown"):
        series.plot(slices=0)
