"""Heat maps of a series: in the pixels of its files, where the bleed lies, and the same however they are asked for."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from small_models import small_model

import ichseq
from ichseq import Model, Series
from ichseq.errors import ConfigError, ScanError
from ichseq.inference.heatmap import Depth, ensemble_heatmaps, heatmaps_in_turn
from ichseq.inference.model_ensemble import ModelEnsemble
from ichseq.labels import LABELS
from ichseq.phantom import write_phantoms


@pytest.fixture(scope="module")
def series(phantoms: Path) -> Series:
    return ichseq.load_series(phantoms / "stage_2_test")[0]


@pytest.fixture(scope="module")
def shipped() -> Model:
    return Model.load("phantom-1", "cpu")


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exam without bleeding, of 128 pixels a side."""
    out = tmp_path_factory.mktemp("quiet") / "set"
    write_phantoms(out, patients=1, test_patients=0, size=128, seed=5, heads="drawn", workers=1)
    assert len((out / "truth" / "places.csv").read_text().splitlines()) == 1
    return out / "stage_2_train"


def bled(scan: Path, out: Path, row: int, column: int, *, cut: int = 0) -> tuple[Series, list[int]]:
    """The scan with a ball of blood 22 mm across in the middle slices, and less columns on the left; its slices."""
    (found,) = ichseq.load_series(scan)
    middle, radius = len(found) // 2, 11 / found.spacing_mm[0]
    rows, columns = np.ogrid[: found.shape[1], : found.shape[2]]
    inside = (rows - row) ** 2 + (columns - column) ** 2 < radius**2
    out.mkdir()
    for number, file in enumerate(found.files):
        dataset = pydicom.dcmread(file)
        pixels = dataset.pixel_array.copy()
        if abs(number - middle) <= 1:
            pixels[inside] = 68 + 1024
        pixels = pixels[:, cut:]
        dataset.PixelData, dataset.Columns = pixels.tobytes(), pixels.shape[1]
        dataset.save_as(out / Path(file).name)
    (changed,) = ichseq.load_series(out)
    return changed, [middle - 1, middle, middle + 1]


@pytest.mark.filterwarnings("ignore:network phantom-1")
@pytest.mark.parametrize(("row", "column", "cut"), [(60, 45, 0), (60, 82, 0), (80, 80, 0), (60, 82, 9)])
def test_the_peak_lies_in_the_bleed_wherever_it_is(
    row: int, column: int, cut: int, shipped: Model, quiet: Path, tmp_path: Path
) -> None:
    scan, slices = bled(quiet, tmp_path / "scan", row, column, cut=cut)
    table = ichseq.predict(shipped, scan, progress=False)
    assert (table["any"].iloc[slices] > 0.5).all()
    maps = ichseq.heatmap(shipped, scan, "any", slices=slices)
    for one in maps:
        found = np.unravel_index(one.argmax(), one.shape)
        away = np.hypot(found[0] - row, found[1] + cut - column) * scan.spacing_mm[0]
        assert away < 11 + 5, f"{away:.0f} mm from the middle of the bleed"


def test_one_map_for_labels_pieces_and_neighbours(series: Series, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slice's map is the same alone, beside others, with other labels, and in a series that is read in pieces."""
    torch.manual_seed(0)
    model = small_model(cross_slice=[8], neighbours=1).eval()
    for weights in model.backbone.cross_slice.weights:
        weights.data.fill_(0.2)
    ensemble = ModelEnsemble(model, ["flip"])
    label, number = LABELS[1], 12
    (alone,) = ichseq.heatmap(model, series, label, slices=number, tta="flip")
    assert alone.shape == series.shape[1:]
    assert alone.dtype == np.float32
    assert alone.max() > 0
    wanted = {label: [20, number, number - len(series)], LABELS[4]: range(len(series))}
    together = ensemble_heatmaps(ensemble, series, wanted)
    assert np.allclose(together[label][1], alone, atol=1e-5)
    assert np.array_equal(together[label][1], together[label][2])
    assert len(together[LABELS[4]]) == len(series)
    monkeypatch.setattr("ichseq.inference.model_ensemble._PIECE", 7)
    monkeypatch.setattr("ichseq.inference.heatmap._AT_ONCE", 3)
    monkeypatch.setattr("ichseq.ct.series.KEPT_BYTES", 0)
    in_turn = list(heatmaps_in_turn(ensemble, series, wanted))
    assert [one.slice for one in in_turn] == sorted(one.slice for one in in_turn)
    for one in in_turn:
        expected = together[one.label][list(wanted[one.label]).index(one.slice)]
        assert np.allclose(one.values, expected, atol=1e-5)


@pytest.mark.parametrize("settings", [{"crop": "slice"}, {"crop": "none"}, {"sequence": "none"},
                                      {"sequence": "logits"}, {"sequence": "transformer"},
                                      {"pool": "catavgmax", "views": ["flip"]}, {"window_first": True}])  # fmt: skip
@pytest.mark.parametrize("depth", ["fine", "last"])
def test_every_kind_of_network_has_maps(settings: dict[str, object], depth: Depth, series: Series) -> None:
    ensemble = ModelEnsemble(small_model(**settings))
    found = ensemble_heatmaps(ensemble, series, {label: [3, 9] for label in LABELS}, depth=depth)
    maps = np.stack(list(found.values()))
    assert maps.shape == (6, 2, *series.shape[1:])
    assert np.isfinite(maps).all()
    assert (maps >= 0).all()
    assert maps.max() > 0


def test_several_models_give_the_mean(series: Series) -> None:
    one, other = small_model(seed=1, sequence="none"), small_model(seed=2, sequence="none")
    singly = [ichseq.heatmap(model, series, "any", slices=[8]) for model in (one, other)]
    assert np.allclose(ichseq.heatmap([one, other], series, "any", slices=[8]), np.mean(singly, axis=0), atol=1e-5)
    # A shared backbone is read once, with the mean of the gradients.
    assert np.allclose(ichseq.heatmap([one, one], series, "any", slices=[8]), singly[0], atol=1e-5)


def test_a_model_whose_sequence_part_was_not_trained_shows_its_slice_head(series: Series) -> None:
    model = small_model(sequence="lstm1")
    head = small_model(sequence="none")
    head.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("sequence.")})
    expected = ichseq.heatmap(head, series, "subdural", slices=[8])
    assert not np.allclose(ichseq.heatmap(model, series, "subdural", slices=[8]), expected)
    model.trained_on = {"answers_with": "slice_head"}
    assert np.allclose(ichseq.heatmap(model, series, "subdural", slices=[8]), expected, atol=1e-6)


def test_what_can_not_be_shown_is_an_error(series: Series, quiet: Path, tmp_path: Path) -> None:
    model = small_model()
    for wrong, words in (
        ({"label": "tumour"}, "label 'tumour' is unknown"),
        ({"label": "any", "slices": [len(series)]}, "the series has"),
        ({"label": "any", "depth": "deep"}, "use fine or last"),
        ({"label": "any", "tta": ["upside"]}, "no view 'upside'"),
    ):
        with pytest.raises(ConfigError, match=words):
            ichseq.heatmap(model, series, **wrong)
    with pytest.raises(ConfigError, match="convolutional backbone"):
        ichseq.heatmap(small_model(backbone="test_vit", image_size=160), series, "any", slices=[0])
    scan, _ = bled(quiet, tmp_path / "scan", 60, 60)
    Path(scan.files[5]).write_bytes(Path(scan.files[5]).read_bytes()[:-5000])
    with pytest.raises(ScanError, match="series without such slices"):
        ichseq.heatmap(model, scan, "any", slices=[0])
    assert ichseq.heatmap(model, series, "any", slices=[]).shape == (0, *series.shape[1:])
