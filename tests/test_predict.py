"""Prediction: one table whatever the source, its order, or how many series come with it."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
import torch
from compressed_files import JPEG_LS, LOSSLESS, crashing, file_of, frame_of
from dicom_files import ct_dataset

import ichseq
from ichseq.data.index import Index
from ichseq.data.prepare import prepare
from ichseq.errors import ConfigError, ScanError
from ichseq.inference.model_ensemble import ModelEnsemble
from ichseq.inference.notes import PHANTOM_NOTE
from ichseq.inference.one_series import SeriesPrediction, SeriesRead, predict_read, read_series
from ichseq.inference.predict import predict_prepared, predict_sources
from ichseq.labels import LABELS
from ichseq.model import Model
from ichseq.predictions.schema import PREDICTION_COLUMNS
from ichseq.runs.folders import leaf_of
from ichseq.windows import BONE_RANGE


@pytest.fixture(scope="module")
def model(run: Path) -> Model:
    return Model.load(leaf_of(run, "joint", 0))


def logits(table: pd.DataFrame) -> np.ndarray:
    p = table[list(LABELS)].to_numpy()
    return np.log(p / (1 - p))


@pytest.mark.filterwarnings("ignore:these weights")
@pytest.mark.parametrize("reads_positions", [False, True])
def test_dicom_and_prepared_set_give_the_same_logits(
    model: Model, phantoms: Path, prepared: Path, reads_positions: bool
) -> None:
    if reads_positions:
        torch.manual_seed(0)
        model = Model("test_resnet", image_size=32, hidden_size=8, sequence="transformer", sequence_inputs=["spacing"])
    index = Index.load(prepared)
    from_store = predict_prepared(ModelEnsemble(model), index, np.arange(index.n_series)).slices
    from_files = ichseq.predict(model, ichseq.load_series(phantoms / "stage_2_train"))
    one, other = (t.sort_values(["series_uid", "slice_index"], ignore_index=True) for t in (from_store, from_files))
    assert one["sop_uid"].tolist() == other["sop_uid"].tolist()
    assert np.abs(logits(one) - logits(other)).max() < 1e-5
    assert list(one.columns) == list(other.columns) == list(PREDICTION_COLUMNS)
    assert other["true_any"].isna().all()
    assert one["true_any"].notna().all()


@pytest.mark.filterwarnings("ignore:these weights")
def test_a_set_of_a_wider_range_answers_as_dicom_does(
    model: Model, phantoms: Path, prepared: Path, tmp_path: Path
) -> None:
    index, narrow = prepare(phantoms, tmp_path / "wide", workers=1, hu_range=BONE_RANGE).index, Index.load(prepared)
    every = np.arange(index.n_series)
    tables = [predict_prepared(ModelEnsemble(model), one, every).slices for one in (index, narrow)]
    pd.testing.assert_frame_equal(tables[0], tables[1])  # of a network that reads no more than the narrow one keeps
    torch.manual_seed(0)
    bony = Model("test_resnet", image_size=32, hidden_size=8, windows=["brain", "bone"], normalise=False)
    from_store = predict_prepared(ModelEnsemble(bony), index, every).slices
    from_files = ichseq.predict(bony, ichseq.load_series(phantoms / "stage_2_train"))
    one, other = (t.sort_values(["series_uid", "slice_index"], ignore_index=True) for t in (from_store, from_files))
    assert np.abs(logits(one) - logits(other)).max() < 1e-5
    with pytest.raises(ConfigError, match=r"keeps -200 to 823 HU, and model\.windows has bone"):
        predict_prepared(ModelEnsemble([model, bony]), narrow, every)


def test_a_warning_says_that_the_weights_are_a_phantoms(model: Model, phantoms: Path) -> None:
    series = ichseq.load_series(phantoms / "stage_2_test")[0]
    with pytest.warns(UserWarning, match=r"made-up scans .* not known"):
        table = ichseq.predict(model, series)
    assert table.attrs["note"] == PHANTOM_NOTE
    assert len(table) == len(series)
    outcome = predict_sources([model], [phantoms / "stage_2_test"])
    assert outcome.note == PHANTOM_NOTE
    assert PHANTOM_NOTE in outcome.exams.loc[0, "warnings"]


def test_exam_scores_are_the_highest_slices(model: Model, phantoms: Path) -> None:
    outcome = predict_sources([model], [phantoms / "stage_2_train"])
    for _, exam in outcome.exams.iterrows():
        rows = outcome.slices[outcome.slices["series_uid"] == exam["series_uid"]]
        assert exam["n_slices"] == len(rows)
        assert all(exam[label] == rows[label].max() for label in LABELS)
    assert len(outcome.exams) == 10
    assert outcome.failed == []


def test_exams_are_answered_by_the_exam_head_from_dicom_and_from_the_store(phantoms: Path, prepared: Path) -> None:
    torch.manual_seed(0)
    model = Model("test_resnet", image_size=32, hidden_size=8, exam="attention").eval()
    index, key = Index.load(prepared), ["series_uid"]
    stored = predict_prepared(ModelEnsemble(model), index, np.arange(index.n_series))
    read = predict_sources([model], [phantoms / "stage_2_train"])
    one, other = (found.exams.sort_values(key, ignore_index=True) for found in (stored, read))
    assert np.allclose(one[list(LABELS)], other[list(LABELS)], atol=1e-5)
    highest = stored.slices.groupby("series_uid")["any"].max()
    assert not np.allclose(one["any"], highest, atol=1e-3)
    assert np.array_equal(one["true_any"], stored.slices.groupby("series_uid")["true_any"].max())
    assert other["true_any"].isna().all()
    assert one["n_slices"].equals(other["n_slices"])


def test_names_and_containers_change_nothing(model: Model, phantoms: Path, tmp_path: Path) -> None:
    source = phantoms / "stage_2_test"
    with zipfile.ZipFile(tmp_path / "scan.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for k, file in enumerate(sorted(source.iterdir(), reverse=True)):
            archive.write(file, f"deep/{k:03d}")
    plain = predict_sources([model], [source]).slices
    zipped = predict_sources([model], [tmp_path / "scan.zip"]).slices
    assert plain["sop_uid"].tolist() == zipped["sop_uid"].tolist()
    assert np.array_equal(logits(plain), logits(zipped))
    assert plain["position_mm"].is_monotonic_increasing


def test_several_models_give_their_mean(model: Model, phantoms: Path) -> None:
    other = Model("test_resnet", image_size=32, hidden_size=8).eval()
    tables = [
        predict_sources(models, [phantoms / "stage_2_test"]).slices for models in ([model], [other], [model, other])
    ]
    p = [table[list(LABELS)].to_numpy() for table in tables]
    assert np.allclose((p[0] + p[1]) / 2, p[2], atol=1e-6)


def test_slices_that_their_decoder_cannot_bear_leave_the_good_series_its_prediction(
    model: Model, phantoms: Path, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(phantoms / "stage_2_test", tmp_path / "scan"))
    frame, pixels, _ = frame_of(JPEG_LS)
    other = ct_dataset(pixels, number=2, SeriesInstanceUID="1.2.3.4.6", StudyInstanceUID="1.2.3.6", Rows=4096)
    (source / "crash.dcm").write_bytes(file_of(crashing(), ct_dataset(pixels), LOSSLESS))
    (source / "rows.dcm").write_bytes(file_of(frame, other, JPEG_LS))
    outcome = predict_sources([model], [source])
    assert (
        outcome.slices["sop_uid"].tolist()
        == predict_sources([model], [phantoms / "stage_2_test"]).slices["sop_uid"].tolist()
    )
    failed = {Path(item.file).name: item.reason for item in outcome.failed}
    assert sorted(failed) == ["crash.dcm", "rows.dcm"]
    assert "48 x 36 pixels, where it says 4096 x 36" in failed["rows.dcm"]


def test_bad_files_are_listed_and_the_good_ones_predicted(model: Model, phantoms: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(phantoms / "stage_2_test", tmp_path / "scan"))
    victim = sorted(source.iterdir())[0]
    victim.write_bytes(victim.read_bytes()[:-50])
    (source / "notes.txt").write_text("not a scan")
    (source / "broken_off.dcm").touch()
    outcome = predict_sources([model], [source, tmp_path / "nowhere"])
    assert len(outcome.slices) == len(list(source.iterdir())) - 3
    failed = {item.file: item.reason for item in outcome.failed}
    assert "is empty" in failed[str(source / "broken_off.dcm")]
    assert "truncated" in failed[str(victim)]
    assert "no such file" in failed[str(tmp_path / "nowhere")]
    assert not any("notes.txt" in file for file in failed)  # never was a slice
    remarks = outcome.remarks()
    assert "left out: 1 file: not a DICOM file" in remarks
    assert sum(line.startswith("not predicted: ") for line in remarks) == 3
    with pytest.raises(ScanError, match="no such file"):
        predict_sources([model], [tmp_path / "nowhere"])


def test_sources_are_taken_together(model: Model, phantoms: Path, tmp_path: Path) -> None:
    source = phantoms / "stage_2_test"
    files = sorted(source.iterdir())
    for k, file in enumerate(files):  # one series over two folders
        (tmp_path / f"part{k % 2}").mkdir(exist_ok=True)
        shutil.copy(file, tmp_path / f"part{k % 2}")
    whole = predict_sources([model], [source])
    sources: list[list[Path]] = [
        files,
        [tmp_path / "part0", tmp_path / "part1"],
        [source, files[0], source, source / "..", files[0]],
        [source, tmp_path / "part0"],  # a copy of some slices
    ]
    for given in sources[:2]:
        outcome = predict_sources([model], given)
        assert outcome.slices["sop_uid"].tolist() == whole.slices["sop_uid"].tolist()
        assert np.array_equal(logits(outcome.slices), logits(whole.slices))
        assert (len(outcome.exams), outcome.failed) == (1, [])
    for given in sources[2:]:
        outcome = predict_sources([model], given)
        of_series = outcome.slices[outcome.slices["series_uid"] == whole.slices["series_uid"][0]]
        assert of_series["sop_uid"].tolist() == whole.slices["sop_uid"].tolist()
        assert outcome.failed == []


def test_a_source_that_gives_nothing_is_a_failure_and_the_others_are_predicted(
    model: Model, phantoms: Path, tmp_path: Path
) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "letter").write_text("not a scan")
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("not a scan")
    source = phantoms / "stage_2_test"
    outcome = predict_sources(
        [model], [source, tmp_path / "texts", tmp_path / "empty", tmp_path / "notes.txt", tmp_path / "nowhere"]
    )
    assert len(outcome.slices) == len(list(source.iterdir()))
    fruitless = [str(tmp_path / name) for name in ("empty", "nowhere", "texts")]
    assert sorted(item.file for item in outcome.failed) == fruitless
    assert {item.file for item in outcome.left_out} == {str(tmp_path / "texts" / "letter"), str(tmp_path / "notes.txt")}


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_a_doubtful_series_is_remarked_on(model: Model, phantoms: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(phantoms / "stage_2_test", tmp_path / "scan"))
    slice_ = pydicom.dcmread(sorted(source.iterdir())[0])
    slice_.SOPInstanceUID += "9"
    slice_.PixelData = bytes(len(slice_.PixelData))
    slice_.save_as(source / "another_at_its_place.dcm")
    outcome = predict_sources([model], [source])
    assert outcome.failed == []
    assert any("1 of 1 series with warnings" in line for line in outcome.remarks())
    assert "share 1 place" in outcome.exams.loc[0, "warnings"]


def test_a_long_series_is_read_in_pieces_with_the_same_result(
    model: Model, phantoms: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = predict_sources([model], [phantoms / "stage_2_test"]).slices
    monkeypatch.setattr("ichseq.ct.series.KEPT_BYTES", 0)
    monkeypatch.setattr("ichseq.inference.model_ensemble._PIECE", 7)
    read = []
    count = model.backbone_slices
    pieces = predict_sources([model], [phantoms / "stage_2_test"], progress=lambda *done: read.append(done)).slices
    assert model.backbone_slices - count == len(whole)  # no slice twice, none of air
    assert np.abs(logits(pieces) - logits(whole)).max() < 1e-4
    assert pieces["sop_uid"].tolist() == whole["sop_uid"].tolist()
    assert read == [(1, 1)]


def test_pieces_see_the_neighbours_beyond_their_ends(phantoms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = Model("test_resnet", image_size=32, hidden_size=8, cross_slice=[4, 8])
    for weights in model.backbone.cross_slice.weights:
        weights.data.fill_(0.5)
    whole = predict_sources([model], [phantoms / "stage_2_test"]).slices
    monkeypatch.setattr("ichseq.inference.model_ensemble._PIECE", 7)
    pieces = predict_sources([model], [phantoms / "stage_2_test"]).slices
    assert len(whole) > 14
    assert np.abs(logits(pieces) - logits(whole)).max() < 1e-4


@pytest.mark.parametrize("crop", ["series", "slice"])
def test_pieces_know_the_neighbours_beyond_them(
    model: Model, phantoms: Path, prepared: Path, crop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    three = Model("test_resnet", image_size=32, hidden_size=8, neighbours=1, crop=crop, sequence="none").eval()
    five = Model("test_resnet", image_size=32, hidden_size=8, neighbours=2, crop=crop).eval()
    ensemble, index = ModelEnsemble([three, model, five], ["flip"]), Index.load(prepared)
    whole = predict_sources(ensemble, [phantoms / "stage_2_train"]).slices
    monkeypatch.setattr("ichseq.inference.model_ensemble._PIECE", 7)
    pieces = predict_sources(ensemble, [phantoms / "stage_2_train"]).slices
    from_store = predict_prepared(ensemble, index, np.arange(index.n_series)).slices
    order = ["series_uid", "slice_index"]
    one, two, stored = (logits(t.sort_values(order, ignore_index=True)) for t in (whole, pieces, from_store))
    assert np.abs(one - two).max() < 1e-4
    assert np.abs(one - stored).max() < 1e-4


def test_slices_that_are_lost_between_two_readings_are_left_out(
    model: Model, phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ichseq.ct.series.KEPT_BYTES", 0)
    monkeypatch.setattr("ichseq.inference.model_ensemble._PIECE", 7)
    source = Path(shutil.copytree(phantoms / "stage_2_test", tmp_path / "scan"))
    (series,) = ichseq.load_series(source)
    lost = [series.files[k] for k in (3, 4, 20)]

    def lose(read: SeriesRead, files: list[str]) -> SeriesPrediction:
        for file in files:
            Path(file).unlink()
        return predict_read(ModelEnsemble(model), read, any_series=False)

    outcome = lose(read_series(ModelEnsemble(model), series, any_series=False), lost)
    assert outcome.table is not None
    assert [item.file for item in outcome.unread] == lost
    assert "cannot be opened" in outcome.unread[0].reason
    left = predict_sources([model], [source]).slices
    assert outcome.table["sop_uid"].tolist() == left["sop_uid"].tolist()
    assert np.abs(logits(outcome.table) - logits(left)).max() < 1e-5
    assert "1 slice could be read once only: left out" in outcome.warnings
    (series,) = ichseq.load_series(source)
    outcome = lose(read_series(ModelEnsemble(model), series, any_series=False), series.files)
    assert (outcome.table, len(outcome.unread)) == (None, len(left))


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_a_series_that_cannot_be_decoded_does_not_end_the_others(model: Model, phantoms: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(phantoms / "stage_2_test", tmp_path / "scan"))
    slice_ = pydicom.dcmread(sorted(source.iterdir())[0])
    slice_.SeriesInstanceUID, slice_.SOPInstanceUID = "1.2.3", "1.2.3.4"
    slice_.file_meta.TransferSyntaxUID = pydicom.uid.JPEG2000Lossless
    slice_.PixelData = pydicom.encaps.encapsulate([b"no picture"])
    slice_["PixelData"].is_undefined_length = True
    slice_.save_as(source / "broken.dcm")
    outcome = predict_sources([model], [source], all_series=True)
    assert len(outcome.exams) == 1
    assert [Path(item.file).name for item in outcome.failed] == ["broken.dcm"]


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_scans_without_positions_in_the_order_of_their_names(model: Model, phantoms: Path, tmp_path: Path) -> None:
    for k, file in enumerate(sorted((phantoms / "stage_2_test").iterdir())):
        slice_ = pydicom.dcmread(file)
        del slice_.ImagePositionPatient
        slice_.save_as(tmp_path / f"{k:03d}.dcm")
    with pytest.raises(ScanError, match="--order instance"):
        predict_sources([model], [tmp_path])
    table = predict_sources([model], [tmp_path], order="file").slices
    assert [Path(file).name for file in table["file"]] == [f"{k:03d}.dcm" for k in range(len(table))]


def test_the_real_head_ct_comes_in_instance_order(head_ct: Path, model: Model, tmp_path: Path) -> None:
    for k, file in enumerate(sorted(head_ct.glob("*.dcm"))):
        shutil.copy(file, tmp_path / f"{(k * 11) % 28:02d}")
    table = predict_sources([model], [tmp_path]).slices
    numbers = [int(pydicom.dcmread(file, stop_before_pixels=True).InstanceNumber) for file in table["file"]]
    assert numbers == list(range(1, 29))


def test_the_series_of_the_exams_hold_the_slices_of_their_rows(model: Model, phantoms: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(phantoms / "stage_2_test", tmp_path / "scan"))
    victim = sorted(source.iterdir())[3]
    victim.write_bytes(victim.read_bytes()[:-50])
    outcome = predict_sources([model], [source, phantoms / "stage_2_train"])
    assert len(outcome.series) == len(outcome.exams) == 11
    sop_uids = [uid for series in outcome.series for uid in series.sop_uids]
    assert sop_uids == outcome.slices["sop_uid"].tolist()
    assert str(victim) not in {file for series in outcome.series for file in series.files}
