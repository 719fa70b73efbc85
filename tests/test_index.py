"""The index: tables that are read back as written, folds that exist, and sets that must not be used."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from resealed import edit

from ichseq.data.index import Index
from ichseq.data.index_files import read_series_there, write_index, write_settings
from ichseq.data.owned import place_of
from ichseq.errors import ConfigError, DataError
from ichseq.labels import LABELS
from ichseq.windows import BONE_RANGE, DEFAULT_WINDOWS, HU_RANGE, WINDOWS

LENGTHS = [3, 1, 4, 2]


def tables(**changes: Any) -> tuple[pa.Table, pa.Table]:
    """Four series of three patients, one of them without PatientID; columns can be replaced by name."""
    n, total = len(LENGTHS), sum(LENGTHS)
    series: dict[str, Any] = {
        "series": range(n),
        "patient_id": ["p", "p", "q", ""],
        "study_uid": ["s1", "s2", "s3", "s4"],
        "series_uid": ["a", "b", "c", "d"],
        "store": [place_of(f"0{k}" * 20, "0" * 16) for k in range(n)],
        "n_slices": LENGTHS,
        "rows": [512, 256, 512, 64],
        "columns": [512, 256, 320, 64],
        "spacing_row_mm": [0.5, 0.4, np.nan, 1],
        "spacing_column_mm": [0.5, 0.4, np.nan, 2],
        "fold": [0, 0, 1, 2],
        "phantom": [False, False, True, False],
        "manufacturer": ["GE", "", "other", "GE"],
        "warnings": ["", "two slices share a place", "", ""],
        "first_row": np.cumsum(LENGTHS) - LENGTHS,
    }
    slices: dict[str, Any] = {
        "series": np.repeat(range(n), LENGTHS),
        "slice_index": np.concatenate([range(length) for length in LENGTHS]),
        "sop_uid": [f"ID_{k}" for k in range(total)],
        "file": [f"raw/{k}.dcm" for k in range(total)],
        "position_mm": np.arange(total) * 5.0,
        **{label: np.full(total, np.nan) for label in LABELS},
        "subdural": [1, 0, np.nan, 0, 1, 1, 0, 0, np.nan, np.nan],
        "checksum": range(total),
    }
    for name, values in changes.items():
        (series if name in series else slices)[name] = values
    return pa.table(series), pa.table(slices)


def write(folder: Path, **changes: Any) -> str:
    return write_index(folder, *tables(**changes), folds=3, seed=0, source=["raw"], labels=None)


def test_what_is_loaded_is_what_was_written(tmp_path: Path) -> None:
    key = write(tmp_path)
    index = Index.load(tmp_path)
    assert (index.key, index.folds, index.phantom) == (key, 3, True)
    assert (index.n_series, index.n_slices, index.n_patients) == (4, 10, 3)
    assert index.lengths.tolist() == LENGTHS
    assert index.offsets.tolist() == [0, 3, 4, 8, 10]
    assert index.shapes.tolist() == [[512, 512], [256, 256], [512, 320], [64, 64]]
    assert index.patient_codes[0] == index.patient_codes[1] != index.patient_codes[2]
    assert len(set(index.patient_codes)) == 3  # without a PatientID, the study stands for the patient
    assert index.patients() == ["p", "p", "q", "s4"]
    assert (index.labels.dtype, index.labels.shape) == (np.float32, (10, 6))
    assert np.array_equal(index.labels[:4, 4], [1, 0, np.nan, 0], equal_nan=True)
    assert index.sop_uids(2) == ["ID_4", "ID_5", "ID_6", "ID_7"]
    assert index.files(1) == ["raw/3.dcm"]
    assert index.store_path(1) == tmp_path / f"store/01/{'01' * 20}-{'0' * 16}.b2nd"
    assert index.series_row(1)["warnings"] == "two slices share a place"
    for array, dtype in ((index.lengths, np.int32), (index.offsets, np.int64), (index.fold, np.int16)):
        assert array.dtype == dtype


@pytest.mark.parametrize(
    "place",
    [
        "../../elsewhere.b2nd",
        "/etc/passwd",
        "store/../index.json",
        f"store/01/{'02' * 20}-{'0' * 16}.b2nd",
        "store/x",
        "",
    ],
)
def test_a_set_that_names_a_file_outside_its_store_is_refused(tmp_path: Path, place: str) -> None:
    good = [place_of(f"0{k}" * 20, "0" * 16) for k in range(len(LENGTHS) - 1)]
    write(tmp_path, store=[*good, place])
    with pytest.raises(DataError, match=r"series\.parquet: names a file that is none of a store"):
        Index.load(tmp_path)


@pytest.mark.parametrize("name", ["series.parquet", "slices.parquet", "index.json"])
def test_every_change_of_the_tables_is_an_error(tmp_path: Path, name: str) -> None:
    write(tmp_path)
    sound = (tmp_path / name).read_bytes()
    for place in np.random.default_rng(0).choice(len(sound), 60, replace=False):
        changed = bytearray(sound)
        changed[place] ^= 1
        (tmp_path / name).write_bytes(changed)
        if name == "index.json" and changed.split() == sound.split():
            continue
        with pytest.raises(DataError):
            Index.load(tmp_path)
    (tmp_path / name).write_bytes(sound)
    Index.load(tmp_path)


def test_a_fold_that_was_changed_is_not_kept_when_the_set_is_prepared_again(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "series.parquet"
    assert len(read_series_there(tmp_path)) == 4
    table = pq.read_table(path)
    place = table.schema.get_field_index("fold")
    pq.write_table(table.set_column(place, "fold", pa.array([0, 0, 1, 1], pa.int16())), path)
    with pytest.raises(DataError, match=r"series\.parquet: damaged .*and the folds stand in it; restore it"):
        read_series_there(tmp_path)


def test_folds_split_the_series_and_a_fold_that_is_not_there_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    index = Index.load(tmp_path)
    for fold in range(3):
        both = np.concatenate([index.training_series(fold), index.validation_series(fold)])
        assert sorted(both) == [0, 1, 2, 3]
        assert set(index.fold[index.validation_series(fold)]) == {fold}
    for fold in (-2, 3):
        with pytest.raises(ConfigError, match=f"fold {fold} does not exist; this set has folds 0 to 2"):
            index.training_series(fold)
    write(tmp_path, fold=[1, 1, 1, 1])
    with pytest.raises(ConfigError, match="fold 1 holds every series"):
        Index.load(tmp_path).training_series(1)


def test_prevalence_counts_known_labels_of_the_series_asked_for(tmp_path: Path) -> None:
    write(tmp_path)
    index = Index.load(tmp_path)
    assert index.slice_rows(np.array([2, 0])).tolist() == [4, 5, 6, 7, 0, 1, 2]
    assert index.prevalence()[4] == pytest.approx(3 / 7)
    assert index.prevalence(np.array([0, 1]))[4] == pytest.approx(1 / 3)
    assert np.isnan(index.prevalence(np.array([3]))).all()
    assert np.isnan(index.prevalence(np.array([], int))).all()


def test_labels_of_exams_are_read_back_and_completed_by_the_slices(tmp_path: Path) -> None:
    key = write(tmp_path)
    assert np.isnan(Index.load(tmp_path).exam_labels_given).all()
    assert not (tmp_path / "exams.parquet").exists()
    unknown = {name: [np.nan] * 4 for label in LABELS for name in (label, f"agreement_{label}")}
    given = {"series": range(4), **unknown, "any": [np.nan, 0, 1, 1], "agreement_any": [np.nan, 1, 2 / 3, 1]}
    settings: dict[str, Any] = {"folds": 3, "seed": 0, "source": ["raw"], "labels": None}
    series, slices = tables()
    with_exams = write_index(tmp_path, series, slices, pa.table(given), **settings)
    index = Index.load(tmp_path)
    assert index.key == with_exams != key
    assert np.array_equal(index.exam_labels_given[:, 5], [np.nan, 0, 1, 1], equal_nan=True)
    assert np.array_equal(index.exam_labels[:, 5], [1, 0, 1, 1])  # the first by its subdural slice
    assert np.array_equal(index.exam_labels[1], [0] * 6)
    assert np.allclose(index.exam_agreement[:, 5], [np.nan, 1, 2 / 3, 1], equal_nan=True)
    assert np.allclose(index.exam_prevalence(np.array([0, 1]))[5], 1 / 2)
    assert write_index(tmp_path, series, slices, pa.table(given | {"any": [1, 0, 1, 1]}), **settings) != with_exams
    (tmp_path / "exams.parquet").unlink()
    with pytest.raises(DataError, match=r"exams\.parquet: missing"):
        Index.load(tmp_path)
    assert write(tmp_path) == key
    assert np.isnan(Index.load(tmp_path).exam_labels_given).all()


def test_the_key_follows_what_training_sees_and_nothing_else(tmp_path: Path) -> None:
    key = write(tmp_path)
    assert write(tmp_path) == key
    assert write(tmp_path, file=["elsewhere"] * 10) == key
    subdural = [1, 0, 0, 0, 1, 1, 0, 0, np.nan, np.nan]
    for change in ({"checksum": range(1, 11)}, {"fold": [0, 0, 2, 1]}, {"subdural": subdural}):
        assert write(tmp_path, **change) != key


def test_a_set_has_the_range_that_it_was_written_with_and_windows_beyond_it_are_refused(tmp_path: Path) -> None:
    keys = [
        write_index(tmp_path / name, *tables(), folds=3, seed=0, source=["raw"], labels=None, hu_range=kept)
        for name, kept in (("narrow", HU_RANGE), ("wide", BONE_RANGE), ("half", (-800, 1999)))
    ]
    assert keys[0] == write(tmp_path / "default")
    assert len(set(keys)) == 3
    narrow, wide, half = (Index.load(tmp_path / name) for name in ("narrow", "wide", "half"))
    assert (narrow.hu_range, wide.hu_range, half.hu_range) == (HU_RANGE, BONE_RANGE, (-800, 1999))
    for index in (narrow, wide, half):
        index.refuse_windows(DEFAULT_WINDOWS)
    wide.refuse_windows(list(WINDOWS))
    for index, kept in ((narrow, "-200 to 823"), (half, "-800 to 1999")):
        with pytest.raises(
            ConfigError, match=f"keeps {kept} HU, .* has bone, -800 to 2000 HU; .*ichseq prepare .*--bone"
        ):
            index.refuse_windows(["brain", "bone"])


def test_sets_that_must_not_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no prepared set"):
        Index.load(tmp_path)
    write_settings(tmp_path, finished=False)
    with pytest.raises(DataError, match="not finished; run `ichseq prepare` again"):
        Index.load(tmp_path)
    write(tmp_path)
    settings = json.loads((tmp_path / "index.json").read_text())
    for change in ({"format": 99}, {"codec": "other"}, {"hu_range": [0, 80]}, {"hu_range": [-32768, 900]}):
        (tmp_path / "index.json").write_text(json.dumps(settings | change))
        with pytest.raises(DataError, match="prepared by another version of ichseq"):
            Index.load(tmp_path)
    for text in ("", "[]", "{}", "null"):
        (tmp_path / "index.json").write_text(text)
        with pytest.raises(DataError, match=r"index\.json: damaged"):
            Index.load(tmp_path)


@pytest.mark.parametrize("values", [{"folds": "2"}, {"folds": None}, {"key": 1}, {"tables": []}, {"source": "raw"}])
def test_settings_that_prepare_does_not_write_are_named_though_they_are_sealed(
    tmp_path: Path, values: dict[str, Any]
) -> None:
    write(tmp_path)
    edit(tmp_path / "index.json", **values)
    with pytest.raises(DataError, match=rf"index\.json: {next(iter(values))} is .*, which `prepare` does not write"):
        Index.load(tmp_path)


@pytest.mark.parametrize("name", ["series.parquet", "slices.parquet"])
def test_tables_that_are_missing_damaged_or_of_another_set_are_named(tmp_path: Path, name: str) -> None:
    write(tmp_path / "a")
    write(tmp_path / "b", checksum=range(1, 11))
    path = tmp_path / "a" / name
    sound = path.read_bytes()
    path.write_bytes((tmp_path / "b" / name).read_bytes())
    with pytest.raises(DataError, match=f"{name}: does not belong"):
        Index.load(tmp_path / "a")
    path.write_bytes(sound[:-20])
    with pytest.raises(DataError, match=f"{name}: damaged"):
        Index.load(tmp_path / "a")
    path.unlink()
    with pytest.raises(DataError, match=f"{name}: missing"):
        Index.load(tmp_path / "a")


def test_the_usual_distances_of_slices_are_those_of_nearly_all_series(prepared: Path) -> None:
    index = Index.load(prepared)
    every = np.arange(index.n_series)
    usual = [
        np.median(np.diff(index.positions_mm[a:b])) for a, b in zip(index.offsets, index.offsets[1:], strict=False)
    ]
    low, high = index.slice_distance_mm(every) or (0, 0)
    assert min(usual) - 0.01 <= low < high <= max(usual) + 0.01
    (own,) = {round(float(usual[3]), 2)}
    assert index.slice_distance_mm(every[3:4]) == (own, own)
    unknown = replace(index, positions_mm=np.full_like(index.positions_mm, np.nan))
    assert unknown.slice_distance_mm(every) is None
