"""Exported networks: the graphs answer as torch does, whatever the number and the size of the slices."""

import dataclasses
import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from small_models import small_model

import ichseq
from ichseq.api import predict_scans
from ichseq.cli import main
from ichseq.data.index import Index
from ichseq.errors import ConfigError, RunError
from ichseq.exported.description import About, files_of
from ichseq.exported.graphs import SlicesGraph, answers_exams
from ichseq.exported.loaded import ExportedModel
from ichseq.exported.write import series_graph, write_exported
from ichseq.inference.model_ensemble import ModelEnsemble
from ichseq.inference.notes import PHANTOM_NOTE
from ichseq.inference.predict import predict_prepared
from ichseq.labels import LABELS
from ichseq.model import Model
from ichseq.model.saved import Description
from ichseq.runs.folders import leaf_of

onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
pytest.importorskip("onnxscript", reason="the extra onnx is not installed")

CLOSE = 1e-4  # of probabilities
LENGTHS = (1, 20, 60, 300)


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run as ONNX, written by the command; not to be changed."""
    out = tmp_path_factory.mktemp("exported") / "new" / "model.onnx"
    done = CliRunner().invoke(main, ["export", str(run), "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert f"ichseq predict PATH --run {out}" in done.output
    assert sorted(out.parent.iterdir()) == sorted(files_of(out))
    return out


@pytest.fixture(scope="module")
def model(run: Path) -> Model:
    return Model.load(leaf_of(run, "joint", 0))


def slices_of(count: int, rows: int = 64, columns: int = 64) -> torch.Tensor:
    """Heads of noise, with air around them."""
    hu = torch.full((count, rows, columns), -1000, dtype=torch.int16)
    inside = hu[:, rows // 8 : -rows // 6, columns // 6 : -columns // 8]
    inside[:] = torch.randint(-300, 900, inside.shape, generator=torch.Generator().manual_seed(count))
    return hu


def spread(model: Model) -> Model:
    """The network with heads that are sure of something, so that near answers are no coincidence."""
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if name.startswith(("sequence.", "slice_head.", "exam.")) and weights.ndim > 1:
                weights.mul_(3)
    return model


@pytest.mark.parametrize("count", LENGTHS)
def test_probabilities_are_those_of_torch_at_any_length(exported: Path, model: Model, count: int) -> None:
    hu, lengths, places = slices_of(count), torch.tensor([count]), torch.arange(count) * 5.0
    answers = []
    for one in (model, ExportedModel.load(exported)):
        ensemble = ModelEnsemble(one)
        answers.append(ensemble.answers(ensemble.embed(hu, lengths), lengths, places).slices)
    assert answers[0].shape == (count, len(LABELS))
    assert np.abs(answers[0] - answers[1]).max() < CLOSE
    assert count == 1 or np.ptp(answers[0], axis=0).max() > 100 * np.abs(answers[0] - answers[1]).max()


@pytest.mark.filterwarnings("ignore:these weights")
def test_predicting_with_it_gives_the_table_of_the_run(exported: Path, run: Path, phantoms: Path) -> None:
    scans = phantoms / "stage_2_test"
    one, *others = (predict_scans(asked, scans, progress=False) for asked in (run, exported, exported.parent))
    for other in others:
        assert other.note == one.note == PHANTOM_NOTE
        for before, after in ((one.slices, other.slices), (one.exams, other.exams)):
            assert list(before.columns) == list(after.columns)
            numbers = [name for name in before.columns if name in LABELS]
            assert np.abs(before[numbers] - after[numbers]).max(axis=None) < CLOSE
            pd.testing.assert_frame_equal(before.drop(columns=numbers), after.drop(columns=numbers))
        assert other.exams["weights"].iloc[0] == Model.load(leaf_of(run, "joint", 0)).weights_sha256[:16]


def test_a_prepared_set_is_predicted_with_it(exported: Path, model: Model, prepared: Path) -> None:
    index = Index.load(prepared)
    tables = [predict_prepared(ModelEnsemble(one), index, np.arange(2)).slices for one in
              (model, ExportedModel.load(exported))]  # fmt: skip
    assert np.abs(tables[0][list(LABELS)] - tables[1][list(LABELS)]).max(axis=None) < CLOSE


def near(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether the logits are the same probabilities."""
    return bool((torch.sigmoid(one) - torch.sigmoid(other)).abs().max() < CLOSE) and one.shape == other.shape


def series_only(made: Model) -> ExportedModel:
    """A network whose second graph alone was exported."""
    config = dataclasses.asdict(made.config)
    about = About(Description(config, made.trained_on), made.features, answers_exams(made), ("", ""))
    return ExportedModel(about, None, onnxruntime.InferenceSession(series_graph(made, ".onnx")))


@pytest.mark.parametrize(
    "settings",
    [
        {"sequence": "lstm1"},
        {"sequence": "lstm2_delta"},
        {"sequence": "logits", "exam": "pooled"},
        {"sequence": "gru", "exam": "attention"},
        {"sequence": "transformer", "sequence_inputs": ["position"], "exam": "max"},
        {"sequence": "conv", "sequence_inputs": ["spacing"]},
        {"sequence": "none", "exam": "attention"},
        {"sequence": "gru_projected", "exam": "attention", "sequence_slices": 64},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_every_sequence_part_answers_alike(settings: dict[str, Any]) -> None:
    """Several series at once, of other numbers of slices than those that the graph was traced with."""
    made = spread(small_model(**settings)).eval()
    made.sequence_share = [0.25] * len(LABELS)
    counts = torch.tensor([1, 300, 2, 40])
    places = torch.cat([torch.arange(n) * 4.5 for n in counts.tolist()])
    places[310] = torch.nan  # of the last series the places are not known then
    embeddings = torch.randn(343, made.features, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = made.answer(embeddings, counts, places), series_only(made).answer(embeddings, counts, places)
    assert near(expected.logits, found.logits)
    assert (expected.exam_logits is None) == (found.exam_logits is None) == ("exam" not in settings)
    if expected.exam_logits is not None and found.exam_logits is not None:
        assert near(expected.exam_logits, found.exam_logits)


def test_a_network_without_a_trained_sequence_part_answers_with_its_slice_head() -> None:
    made = spread(small_model(exam="max")).eval()
    made.trained_on = {"answers_with": "slice_head"}
    embeddings, counts = torch.randn(7, made.features), torch.tensor([3, 4])
    found = series_only(made).answer(embeddings, counts)
    with torch.no_grad():
        assert near(made.slice_logits(embeddings), found.logits)
        assert not near(made.answer(embeddings, counts).logits, found.logits)
    assert found.exam_logits is None


@pytest.mark.parametrize(
    "settings",
    [
        {"neighbours": 1, "edge": "zero", "views": ["flip", "transpose"]},
        {"neighbours": 2, "window_first": True, "crop": "slice"},
        {"neighbours": 1, "crop": "centre"},
    ],
)
def test_neighbours_views_and_crops_are_as_in_torch(settings: dict[str, Any], tmp_path: Path) -> None:
    made = small_model(sequence="none", **settings)
    write_exported(made, tmp_path / "model.onnx")
    counts, hu = torch.tensor([1, 40, 4]), slices_of(45, 70, 50)
    with torch.no_grad():
        expected = made.embed(hu, counts)
    for boxes in (None, made.crop_boxes(hu, counts)):
        found = ExportedModel.load(tmp_path / "model.onnx").embed(hu, counts, boxes=boxes)
        assert torch.allclose(expected, found, atol=1e-4)
    assert expected.std(0).max() > 0.01


@pytest.mark.parametrize(
    "settings", [{"sequence": "lstm2_delta"}, {"sequence": "gru", "exam": "attention"}, {"sequence": "conv"}]
)
def test_torch_export_answers_alike(settings: dict[str, Any], tmp_path: Path) -> None:
    made = spread(small_model(**settings))
    graphs = [torch.export.load(io.BytesIO(file.read_bytes())).module()
              for file in files_of(write_exported(made, tmp_path / "model.pt2").with_suffix(""))[:2]]  # fmt: skip
    with torch.no_grad():
        for count in LENGTHS:
            hu, counts, places = slices_of(count, 40, 90), torch.tensor([count]), torch.arange(count) * 5.0
            expected = made(hu, counts, positions_mm=places)
            logits, *exams = graphs[1](graphs[0](hu, made.crop_boxes(hu, counts).expand(count, 4)), places)
            assert near(expected.logits, logits)
            assert len(exams) == (made.exam is not None)
            assert all(near(expected.exam_logits[0], one) for one in exams)


@pytest.mark.parametrize("size", [(32, 32), (330, 200), (331, 640), (97, 31), (41, 36)])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"window_first": True},
        {"windows": ["bone", "brain"], "normalise": False},
        {"crop": "centre"},
        {"crop": "centre", "window_first": True},
    ],
    ids=str,
)
def test_the_graph_shows_the_backbone_what_the_network_does(size: tuple[int, int], settings: dict[str, Any]) -> None:
    """With and without means over pixels before the sampling; at 330 pixels for 33 their side is on an edge."""
    made = small_model(image_size=33, **settings)
    hu, lengths = slices_of(2, *size), torch.tensor([2])
    boxes = made.crop_boxes(hu, lengths)
    with torch.no_grad():
        found = SlicesGraph(made).images(hu, boxes.expand(2, 4))
    assert torch.allclose(found, made.images(hu, lengths), atol=2e-3)  # of about 6, for windows of 80 HU


def test_nothing_of_this_machine_is_in_the_files(exported: Path) -> None:
    words = [str(Path(ichseq.__file__).parent), "site-packages", str(Path.home()), str(exported.parent)]
    assert not any(word.encode() in file.read_bytes() for file in files_of(exported) for word in words)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"tta": ["flip"]}, "reads the slices as they are"),
        ({"bag": 2}, "bag of 2"),
        ({"calibrated": True}, "neither folds nor a calibration"),
        ({"device": "cuda"}, "cuda"),
    ],
)
def test_what_an_exported_network_can_not_do_is_refused(
    exported: Path, phantoms: Path, how: dict[str, Any], why: str
) -> None:
    with pytest.raises((ConfigError, RunError), match=why):
        ichseq.predict(exported, phantoms / "stage_2_test", **how)


def test_it_has_no_heat_maps_and_is_no_start(exported: Path, phantoms: Path, prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no heat maps; name the run"):
        ichseq.heatmap(exported, ichseq.load_series(phantoms / "stage_2_test")[0], "any")
    with pytest.raises(RunError, match="neither folds nor a calibration"):
        ichseq.evaluate(exported, data=prepared)
    with pytest.raises(RunError, match=r"model\.onnx"):
        ichseq.train("joint", data=prepared, init=exported, out=tmp_path / "run", settings=["train.epochs=1"])


def test_what_can_not_be_exported_is_refused_with_a_reason(scored: Path, exported: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.cross_slice: .* can't be exported"):
        write_exported(small_model(cross_slice=[4]), tmp_path / "model.onnx")
    with pytest.raises(ConfigError, match=r"model\.sequence conv .* can't be exported"):
        series_graph(small_model(sequence="conv", sequence_inputs=["spacing"]), ".pt2")
    with pytest.raises(ConfigError, match=r"\.onnx .* or \.pt2"):
        ichseq.export(scored, tmp_path / "model.tflite")
    with pytest.raises(RunError, match=r"has 2 models, and one is exported; name one: .*fold0"):
        ichseq.export(scored, tmp_path / "model.onnx")
    with pytest.raises(RunError, match="exported already"):
        ichseq.export(exported, tmp_path / "model.onnx")
    assert not any(tmp_path.iterdir())
    shutil.copy(files_of(exported)[0], tmp_path / "file")
    with pytest.raises(RunError, match="can't be written"):
        ichseq.export(leaf_of(scored, "joint", 0), tmp_path / "file" / "model.onnx")
