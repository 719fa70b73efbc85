"""Which sources a store was made from: what has changed is read again, and nothing else, whatever the clocks say."""

import os
import shutil
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from dicom_files import ct_dataset, dicom_bytes

from ichseq.ct.archive import list_files
from ichseq.data.index import Index
from ichseq.data.owned import SOURCES
from ichseq.data.prepare import prepare
from ichseq.data.source_states import state_of, states_there
from ichseq.data.store import read_slices

YEAR = 365 * 24 * 3600


def write_patient(folder: Path, patient: int, *, seed: int = 0) -> None:
    """Three slices of a patient; the seed changes their pixels alone."""
    folder.mkdir(exist_ok=True)
    for number in (1, 2, 3):
        pixels = np.random.default_rng([seed, patient, number]).integers(900, 1800, (16, 12)).astype(np.int16)
        uids = {"StudyInstanceUID": f"1.{patient}", "SeriesInstanceUID": f"1.{patient}.1"}
        uids["SOPInstanceUID"] = f"1.{patient}.1.{number}"
        slice_ = ct_dataset(pixels, number=number, PatientID=f"P{patient}", **uids)
        (folder / f"{patient}-{number}").write_bytes(dicom_bytes(slice_))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    for patient in (1, 2, 3):
        write_patient(tmp_path / "raw", patient)
    return tmp_path / "raw"


def read_by(raw: Path, out: Path) -> int:
    return prepare(raw, out, folds=2, workers=1).read


def pixels(out: Path) -> list[np.ndarray]:
    index = Index.load(out)
    return [read_slices(index.store_path(i)) for i in range(index.n_series)]


def shift(path: Path, seconds: int) -> None:
    then = time.time_ns() + seconds * 10**9
    os.utime(path, ns=(then, then))


@pytest.mark.parametrize("ahead", [YEAR, -YEAR])
def test_a_change_is_seen_though_the_store_s_clock_was_ahead_or_behind(raw: Path, tmp_path: Path, ahead: int) -> None:
    out = tmp_path / "out"
    assert read_by(raw, out) == 3
    before = pixels(out)
    for path in out.glob("store/*/*"):
        shift(path, ahead)
    assert read_by(raw, out) == 0
    write_patient(raw, 2, seed=1)
    assert read_by(raw, out) == 1
    same = [np.array_equal(one, other) for one, other in zip(before, pixels(out), strict=True)]
    assert same == [True, False, True]
    assert read_by(raw, out) == 0


@pytest.mark.parametrize("ahead", [YEAR, -YEAR])
def test_sources_of_another_time_are_read_once_and_their_changes_are_seen(
    raw: Path, tmp_path: Path, ahead: int
) -> None:
    out = tmp_path / "out"
    for path in raw.iterdir():
        shift(path, ahead)
    assert [read_by(raw, out) for _ in range(2)] == [3, 0]
    write_patient(raw, 2, seed=1)
    for path in raw.glob("2-*"):
        shift(path, ahead - 100)  # older than what was read
    assert [read_by(raw, out) for _ in range(2)] == [1, 0]


def test_a_list_that_is_lost_or_cut_short_costs_a_reading_and_no_change(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    read_by(raw, out)
    before, key = pixels(out), Index.load(out).key
    index = Index.load(out)
    assert sorted(states_there(out)) == sorted(index.series_row(i)["store"] for i in range(3))
    (out / SOURCES).unlink()
    assert read_by(raw, out) == 3
    lines = (out / SOURCES).read_text()
    (out / SOURCES).write_text(lines[:-5])
    assert read_by(raw, out) == 1
    assert (out / SOURCES).read_text() == lines
    (out / SOURCES).write_bytes(b"\xff no list \n\n" * 5)
    assert read_by(raw, out) == 3
    assert Index.load(out).key == key
    assert all(np.array_equal(one, other) for one, other in zip(before, pixels(out), strict=True))


def test_a_source_moved_into_an_archive_gives_the_same_set(raw: Path, tmp_path: Path) -> None:
    out, archive = tmp_path / "out", tmp_path / "raw.zip"
    read_by(raw, out)
    key = Index.load(out).key
    with zipfile.ZipFile(archive, "w") as file:
        for path in raw.iterdir():
            file.write(path, path.name)
    assert [read_by(archive, out) for _ in range(2)] == [3, 0]
    assert Index.load(out).key == key


def test_a_state_is_that_of_all_files_in_any_order(raw: Path, tmp_path: Path) -> None:
    state = state_of(list_files(raw))
    files = sorted(raw.iterdir(), reverse=True)
    assert state_of(list_files(files)) == state
    assert state_of(list_files(files[1:])) != state
    listed = list_files(raw)
    for change in (
        lambda: shift(files[0], 5),
        lambda: files[3].write_bytes(b"short"),
        lambda: shutil.copy(files[1], files[2]),
    ):
        change()
        assert state_of(listed) not in ("", state)
        state = state_of(listed)
    files[0].unlink()
    assert state_of(listed) == ""
