"""Prepare: the same set whatever the files' names, the workers and the interruptions; bad input named, nothing lost."""

import gzip
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from compressed_files import LOSSLESS, crashing, file_of, frame_of
from dicom_files import ct_dataset, dicom_bytes

from ichseq.ct.left_out import count_reasons
from ichseq.ct.series import load_series
from ichseq.data.index import Index
from ichseq.data.owned import SOURCES
from ichseq.data.prepare import prepare
from ichseq.data.store import read_slices
from ichseq.errors import ConfigError, DataError, ScanError
from ichseq.files import locked
from ichseq.labels import LABELS
from ichseq.windows import BONE_RANGE, HU_RANGE

pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR UI")  # the UIDs of RSNA 2019 are none
PATIENTS = 7
SLICES = 4


def slice_id(patient: int, number: int) -> str:
    return f"ID_{patient:04x}{number:05x}"


def slice_bytes(patient: int, number: int, **changes: Any) -> bytes:
    pixels = np.random.default_rng([patient, number]).integers(0, 2500, (16, 12)).astype(np.int16)
    tags = {
        "SOPInstanceUID": slice_id(patient, number),
        "PatientID": f"ID_patient{patient}",
        "StudyInstanceUID": f"ID_study{patient}",
        "SeriesInstanceUID": f"ID_series{patient}",
        **changes,
    }
    return dicom_bytes(ct_dataset(pixels, number=number, **tags))


def labels_of(patient: int, number: int) -> list[int]:
    """Patient k bleeds of kind k in slice 2; patients 5 and 6 do not bleed."""
    kinds = [int(patient == k and number == 2) for k in range(5)]
    return [*kinds, max(kinds)]


def label_rows(patients: int) -> str:
    return "".join(
        f"{slice_id(p, n)}_{label},{value}\n"
        for p in range(patients)
        for n in range(1, SLICES + 1)
        for label, value in zip(LABELS, labels_of(p, n), strict=True)
    )


def write_layout(root: Path, patients: int = PATIENTS) -> Path:
    """The RSNA 2019 layout: training slices, their labels, a test slice."""
    (root / "stage_2_train").mkdir(parents=True)
    (root / "stage_2_test").mkdir()
    (root / "stage_2_test" / "ID_f.dcm").write_bytes(slice_bytes(99, 1))
    (root / "stage_2_sample_submission.csv").write_text("ID,Label\n")
    add_patients(root, range(patients))
    return root


def add_patients(root: Path, patients: range) -> None:
    for p in patients:
        for n in range(1, SLICES + 1):
            (root / "stage_2_train" / f"{slice_id(p, n)}.dcm").write_bytes(slice_bytes(p, n))
    (root / "stage_2_train.csv").write_text("ID,Label\n" + label_rows(patients.stop))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write_layout(tmp_path / "raw")


def content(folder: Path) -> dict[str, str]:
    """Hash of every file below a folder, but for the list of when the sources were changed, which is theirs."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != SOURCES]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def pixels_and_labels(folder: Path) -> tuple[str, dict[str, str]]:
    """What must not depend on where the files lay: the key (of identity, order, labels and folds), and the store."""
    return Index.load(folder).key, {name: sha for name, sha in content(folder).items() if name.startswith("store/")}


def test_the_set_holds_the_scans_in_order_with_their_labels(raw: Path, tmp_path: Path) -> None:
    summary = prepare(raw, tmp_path / "out", workers=1)
    index = summary.index
    assert (index.n_series, index.n_slices, index.n_patients) == (PATIENTS, PATIENTS * SLICES, PATIENTS)
    scans = {series.series_uid: series for series in load_series(raw / "stage_2_train")}
    for i in range(index.n_series):
        scan = scans[index.series_row(i)["series_uid"]]
        assert np.array_equal(read_slices(index.store_path(i)), np.clip(scan.hu, *HU_RANGE))
        assert (index.sop_uids(i), index.files(i)) == (scan.sop_uids, scan.files)
        rows = slice(index.offsets[i], index.offsets[i + 1])
        assert np.array_equal(index.positions_mm[rows], scan.positions_mm)
        patient = int(scan.patient_id.removeprefix("ID_patient"))
        assert np.array_equal(index.labels[rows], [labels_of(patient, n) for n in range(1, SLICES + 1)])
    assert set(index.fold) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(("kept", "other"), [(BONE_RANGE, HU_RANGE), (HU_RANGE, BONE_RANGE)])
def test_a_set_keeps_one_range_whatever_a_killed_run_has_left(
    raw: Path, tmp_path: Path, kept: tuple[int, int], other: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, scans = tmp_path / "out", {one.series_uid: one.hu for one in load_series(raw / "stage_2_train")}
    monkeypatch.setattr("ichseq.data.prepare.write_index", None)
    with pytest.raises(TypeError):
        prepare(raw, out, workers=1, hu_range=other)
    monkeypatch.undo()
    index = prepare(raw, out, workers=1, hu_range=kept).index
    assert index.hu_range == kept
    for i in range(index.n_series):
        hu = scans[index.series_row(i)["series_uid"]]
        assert hu.min() < HU_RANGE[0] < HU_RANGE[1] < hu.max()
        assert np.array_equal(read_slices(index.store_path(i)), np.clip(hu, *kept))
    assert {path.relative_to(out).as_posix() for path in out.glob("store/*/*")} == set(index.series_column("store"))
    before = content(out)
    assert prepare(raw, out, workers=1, hu_range=kept).read == 0
    with pytest.raises(ConfigError, match=f"keeps .* prepare it with --hu-range {kept[0]},{kept[1]}, or prepare into"):
        prepare(raw, out, workers=1, hu_range=other)
    assert content(out) == before
    prepare(raw, tmp_path / "plain", workers=1)
    assert (pixels_and_labels(tmp_path / "plain") == pixels_and_labels(out)) == (kept == HU_RANGE)


def test_names_and_messages_hold_no_patient(raw: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    summary = prepare(raw, tmp_path / "out", workers=1)
    output = summary.text() + "".join(capfd.readouterr()) + "".join(content(tmp_path / "out"))
    output += (tmp_path / "out" / "index.json").read_text()
    assert "patient0" not in output
    assert str(tmp_path) not in (tmp_path / "out" / "index.json").read_text()


def test_names_and_order_of_files_archive_or_folder_make_no_difference(raw: Path, tmp_path: Path) -> None:
    prepare(raw, tmp_path / "a", workers=1)
    shuffled = tmp_path / "shuffled"
    paths = sorted((raw / "stage_2_train").iterdir())
    np.random.default_rng(0).shuffle(paths)
    for k, path in enumerate(paths):
        (shuffled / str(k % 3)).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, shuffled / str(k % 3) / f"file {k}")
    prepare(shuffled, tmp_path / "b", labels=raw / "stage_2_train.csv", workers=1)
    archive = tmp_path / "rsna.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in reversed(sorted(raw.rglob("*"))):
            if path.is_file():
                file.write(path, f"rsna-intracranial-hemorrhage-detection/{path.relative_to(raw)}")
    zipped = prepare(archive, tmp_path / "c", workers=1)
    assert zipped.ignored == 3  # the two tables and the test slice
    assert zipped.index.files(0)[0].startswith(f"{archive}/rsna-intracranial-hemorrhage-detection/stage_2_train/ID_")
    with tarfile.open(tmp_path / "rsna.tgz", "w:gz") as packed:
        packed.add(raw, "rsna")
    assert prepare(tmp_path / "rsna.tgz", tmp_path / "d", workers=2).ignored == 3
    for copy in (shuffled / "1").iterdir():
        copy.write_bytes(gzip.compress(copy.read_bytes()))
    assert prepare(shuffled, tmp_path / "e", labels=raw / "stage_2_train.csv", workers=1).left_out == []
    expected = pixels_and_labels(tmp_path / "a")
    assert all(pixels_and_labels(tmp_path / name) == expected for name in "bcde")


def test_a_file_that_is_named_twice_is_one_slice(raw: Path, tmp_path: Path) -> None:
    folder = raw / "stage_2_train"
    prepare(folder, tmp_path / "a", workers=1)
    files = sorted(folder.iterdir())
    summary = prepare([files[0], folder, *files, folder / "..", folder], tmp_path / "b", workers=1)
    assert summary.left_out == prepare(raw, tmp_path / "a", workers=1).left_out == []
    assert pixels_and_labels(tmp_path / "b") == pixels_and_labels(tmp_path / "a")


def test_workers_and_backends_make_no_difference(raw: Path, tmp_path: Path) -> None:
    prepare(raw, tmp_path / "a", workers=1)
    prepare(raw, tmp_path / "b", workers=2)
    with joblib.parallel_config(backend="threading", n_jobs=3):
        prepare(raw, tmp_path / "c")
    assert content(tmp_path / "a") == content(tmp_path / "b") == content(tmp_path / "c")


def test_a_second_run_reads_no_pixels_and_changes_nothing(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert prepare(raw, out, workers=1).read == PATIENTS
    before = content(out)
    times = {path: path.stat().st_mtime_ns for path in out.glob("store/*/*")}
    assert prepare(raw, out, workers=1).read == 0
    assert content(out) == before
    assert {path: path.stat().st_mtime_ns for path in out.glob("store/*/*")} == times


def test_a_missing_damaged_or_outdated_file_is_written_again_and_no_other(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(raw, out, workers=1)
    before = content(out)
    gone, damaged = sorted(out.glob("store/*/*"))[:2]
    gone.unlink()
    damaged.write_bytes(damaged.read_bytes()[:-5])
    (damaged.parent / f".{damaged.name}.0123abcd.part").write_bytes(b"left by a killed run")
    assert prepare(raw, out, workers=1).read == 2
    assert content(out) == before
    changed = raw / "stage_2_train" / f"{slice_id(0, 1)}.dcm"
    changed.write_bytes(slice_bytes(0, 1, RescaleIntercept=-1000))
    key = json.loads((out / "index.json").read_text())["key"]
    assert prepare(raw, out, workers=1).read == 1
    assert Index.load(out).key != key
    assert len(list(out.glob("store/*/*"))) == PATIENTS  # the old file is gone
    age = changed.stat().st_mtime_ns
    changed.write_bytes(slice_bytes(0, 1, PixelData=bytes(2 * 16 * 12), RescaleIntercept=-1000))
    os.utime(changed, ns=(age, age))  # the same header, and no younger by its own account
    assert prepare(raw, out, workers=1).read == 1


def test_files_of_others_in_a_set_s_folder_stay_whatever_they_are_called(raw: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    prepare(raw, out, workers=1)
    first = next(out.glob("store/*/*"))
    theirs = [
        out / "draft.part",
        out / ".notes.csv.0123abcd.part",
        first.parent / "notes.txt",
        first.parent / "copy.part",
        first.parent / f"{first.stem}.bak",
        first.with_name(f"{first.name[:2]}{'0' * 38}-{'0' * 16}.b2nd"),  # of another set, copied here
        out / "store" / "photos" / "one.jpg",
    ]
    for path in theirs:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"mine")
    linked = first.with_name(f"{first.name[:2]}{'1' * 38}-{'1' * 16}.b2nd")
    other.write_bytes(b"another's")
    linked.symlink_to(other)
    (raw / "stage_2_train" / f"{slice_id(0, 1)}.dcm").write_bytes(slice_bytes(0, 1, RescaleIntercept=-1000))
    (out / ".store-files").write_text(f"../other\n/{other}\n{linked.relative_to(out)}\nstore/../../other")
    before = set(out.glob("store/*/*"))
    assert prepare(raw, out, workers=1).read == 1
    assert all(path.read_bytes() == b"mine" for path in theirs)
    assert other.read_bytes() == b"another's"
    assert linked.is_symlink()
    assert len(before - set(out.glob("store/*/*"))) == 1  # the one whose place a new one takes


@pytest.mark.parametrize("link", ["store", "store/{}"])
def test_a_store_behind_a_link_is_refused_and_nothing_there_changes(raw: Path, tmp_path: Path, link: str) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    prepare(raw, one, workers=1)
    shutil.copytree(one, two)
    link = link.format(next((two / "store").iterdir()).name)
    shutil.rmtree(two / link)
    (two / link).symlink_to(one / link)
    (raw / "stage_2_train" / f"{slice_id(0, 1)}.dcm").write_bytes(slice_bytes(0, 1, RescaleIntercept=-1000))
    before = content(one)
    with pytest.raises(DataError, match=rf"two/{link}: is a link"):
        prepare(raw, two, workers=1)
    assert content(one) == before
    assert Index.load(two).n_series == PATIENTS  # it can be read all the same
    (tmp_path / "three").symlink_to(two)
    (two / link).unlink()
    assert prepare(raw, tmp_path / "three", workers=1).read > 0  # a folder that is a link as a whole


def test_a_run_killed_before_its_end_still_owns_what_it_wrote(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(raw, out, workers=1)
    before = set(out.glob("store/*/*"))
    changed = raw / "stage_2_train" / f"{slice_id(0, 1)}.dcm"
    changed.write_bytes(slice_bytes(0, 1, RescaleIntercept=-1000))
    stopped = SLOW_PREPARE.replace("prepare(sys", "import ichseq.data.prepare as p\np.write_index = 0\nprepare(sys")
    assert subprocess.run([sys.executable, "-c", stopped, str(raw), str(out)], capture_output=True).returncode == 1
    assert len(set(out.glob("store/*/*")) - before) == 1
    changed.write_bytes(slice_bytes(0, 1, RescaleIntercept=-900))
    prepare(raw, out, workers=1)
    assert len(set(out.glob("store/*/*"))) == PATIENTS
    assert not (out / ".store-files").exists()


SLOW_PREPARE = """
import sys, time
import ichseq.data.packing as packing
from ichseq.data.prepare import prepare
write = packing.write_whole
def slow(path, data):
    time.sleep(0.05)  # so that the kill comes between two series
    write(path, data)
packing.write_whole = slow
prepare(sys.argv[1], sys.argv[2], workers=1)
"""


@pytest.mark.parametrize("files_before_kill", [1, 4])
def test_a_killed_run_is_taken_up_to_the_same_set(raw: Path, tmp_path: Path, files_before_kill: int) -> None:
    prepare(raw, tmp_path / "whole", workers=1)
    out = tmp_path / "out"
    run = subprocess.Popen([sys.executable, "-c", SLOW_PREPARE, str(raw), str(out)])
    deadline = time.monotonic() + 60
    while len(list(out.glob("store/*/*.b2nd"))) < files_before_kill and time.monotonic() < deadline:
        time.sleep(0.005)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    with pytest.raises(DataError, match="not finished; run `ichseq prepare` again"):
        Index.load(out)
    there = len(list(out.glob("store/*/*.b2nd")))
    assert 0 < there < PATIENTS
    assert prepare(raw, out, workers=1).read == PATIENTS - there
    assert content(out) == content(tmp_path / "whole")


def test_workers_end_with_a_parent_that_is_killed() -> None:
    script = """
import os, joblib, time
from ichseq.workers import end_with
def work(parent):
    end_with(parent)
    print("at work", flush=True)
    time.sleep(100)
joblib.Parallel(n_jobs=2)(joblib.delayed(work)(os.getpid()) for _ in range(2))
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert [run.stdout.readline() for _ in range(2)] == [b"at work\n"] * 2
        run.kill()
        run.communicate(timeout=20)  # the pipe closes when the last worker is gone


def test_new_patients_are_added_and_the_others_keep_their_fold(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = prepare(raw, out, workers=1).index
    before = dict(zip(first.series_column("patient_id"), first.fold.tolist(), strict=True))
    add_patients(raw, range(PATIENTS, PATIENTS + 6))
    summary = prepare(raw, out, workers=1)
    assert (summary.read, summary.new_patients) == (6, 6)
    after = dict(zip(summary.index.series_column("patient_id"), summary.index.fold.tolist(), strict=True))
    assert {patient: after[patient] for patient in before} == before
    assert (
        np.bincount(list(after.values())).tolist() in ([3, 3, 3, 2, 2], sorted(np.bincount(list(after.values()))))
        or np.ptp(np.bincount(list(after.values()))) <= 1
    )


def test_all_series_of_a_patient_lie_in_one_fold(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    for p in range(4):
        for k in range(3):
            for n in (1, 2):
                uids = {
                    "SOPInstanceUID": f"{p}.{k}.{n}",
                    "StudyInstanceUID": f"{p}.{k}",
                    "SeriesInstanceUID": f"{p}.{k}.0",
                }
                (raw / f"{p}{k}{n}").write_bytes(slice_bytes(p, n, **uids))
    index = prepare(raw, tmp_path / "out", folds=4, workers=1).index
    assert (index.n_series, index.n_patients) == (12, 4)
    assert all(len(set(index.fold[index.patient_codes == code])) == 1 for code in range(4))
    assert np.isnan(index.labels).all()  # no label file: all unknown


def test_partly_labelled_slices_and_strangers_are_counted(raw: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    rows = [f"{slice_id(0, 1)},1,", f"{slice_id(0, 2)},0,0", "ID_nobody,1,1"]
    table.write_text("sop_uid,any,subdural\n" + "\n".join(rows) + "\n")
    summary = prepare(raw, tmp_path / "out", labels=table, workers=1)
    labels = summary.labels
    assert (labels.without_image, labels.without_label, labels.partly) == (1, PATIENTS * SLICES - 2, 2)
    known = ~np.isnan(summary.index.labels)
    assert known.sum(axis=0).tolist() == [0, 0, 0, 0, 1, 2]
    assert "1 labelled slices have no image" in summary.text()


def bad_files(folder: Path) -> Iterator[tuple[str, str]]:
    """Write files that cannot be used among the good ones; name and reason of each."""
    good = slice_bytes(0, 1)
    for name, data, reason in (
        ("note.txt", b"hello", "not a DICOM file"),
        ("short.dcm", good[:-50], "truncated"),
        ("shorter.dcm", good[:-60], "truncated"),
        ("mr.dcm", slice_bytes(0, 1, Modality="MR"), "modality MR"),
        ("slope.dcm", slice_bytes(0, 1, RescaleSlope=None), "no RescaleSlope"),
        ("nowhere.dcm", slice_bytes(0, 1, ImagePositionPatient=None), "no ImagePositionPatient"),
    ):
        (folder / name).write_bytes(data)
        yield name, reason


def test_what_cannot_be_used_is_left_out_with_its_reason(raw: Path, tmp_path: Path) -> None:
    expected = dict(bad_files(raw / "stage_2_train"))
    summary = prepare(raw, tmp_path / "out", workers=2)
    assert summary.index.n_slices == PATIENTS * SLICES
    found = {Path(item.file).name: item.reason for item in summary.left_out}
    assert found.keys() == expected.keys()
    assert all(expected[name] in found[name] for name in expected)
    written = (tmp_path / "out" / "left_out.csv").read_text().splitlines()
    assert written[0] == "file,reason"
    assert len(written) == 1 + len(expected)
    reasons = count_reasons(summary.left_out)
    assert reasons["truncated (details differ)"] == 2
    assert sum(reasons.values()) == len(expected)
    assert "6 files left out" in summary.text()


def test_a_slice_that_cannot_be_decoded_is_left_out_and_its_series_goes_on(raw: Path, tmp_path: Path) -> None:
    changes = {"PatientID": "ID_patient0", "StudyInstanceUID": "ID_study0", "SeriesInstanceUID": "ID_series0"}
    dataset = ct_dataset(np.zeros((16, 12), np.int16), number=3, SOPInstanceUID=slice_id(0, 3), **changes)
    packed = dicom_bytes(dataset, syntax="1.2.840.10008.1.2.5")
    at = packed.index(b"\x02\0\0\0\x40\0\0\0")  # RLE's table: two segments, the first at 64 (PS3.5 G.5)
    path = raw / "stage_2_train" / f"{slice_id(0, 3)}.dcm"
    path.write_bytes(packed[:at] + b"\xff" * 20 + packed[at + 20 :])
    out = tmp_path / "out"
    summary = prepare(raw, out, workers=1)
    assert [item.file for item in summary.left_out] == [str(path)]
    index = summary.index
    assert index.n_slices == PATIENTS * SLICES - 1
    assert index.sop_uids(0) == [slice_id(0, n) for n in (1, 2, 4)]
    assert "1 of 4 slices could not be read" in index.series_row(0)["warnings"]
    before = content(out)
    again = prepare(raw, out, workers=1)
    assert (again.read, [item.file for item in again.left_out]) == (1, [str(path)])  # the damage might have passed
    assert content(out) == before


def test_a_slice_that_ends_its_decoder_costs_that_slice_in_workers_too(tmp_path: Path) -> None:
    """Every third slice does; the process that decodes is started again for the next one."""
    (frame, pixels, _), source = frame_of(LOSSLESS), tmp_path / "scans"
    source.mkdir()
    for patient in range(4):
        ids = {"PatientID": f"P{patient}", "StudyInstanceUID": f"1.{patient}", "SeriesInstanceUID": f"2.{patient}"}
        for number in range(6):
            dataset = ct_dataset(pixels, number=number, SOPInstanceUID=f"2.{patient}.{number + 1}", **ids)
            data = file_of(crashing() if number % 3 == 1 else frame, dataset, LOSSLESS)
            (source / f"{patient}-{number}.dcm").write_bytes(data)
    summary = prepare(source, tmp_path / "out", workers=2, folds=2)
    assert [Path(item.file).name[2:] for item in summary.left_out] == ["1.dcm", "4.dcm"] * 4
    assert all("crash the decoder" in one.reason or "cannot be decoded" in one.reason for one in summary.left_out)
    hu = np.clip(pixels.astype(int) - 1024, *HU_RANGE)
    for k in range(4):
        stored = read_slices(summary.index.store_path(k), expected=summary.index.expected(k))
        assert np.array_equal(stored, np.stack([hu] * 4))


def test_an_error_that_passes_leaves_nothing_behind(raw: Path, tmp_path: Path) -> None:
    prepare(raw, tmp_path / "sound", workers=1)
    out = tmp_path / "out"
    path = raw / "stage_2_train" / f"{slice_id(0, 3)}.dcm"
    sound = path.read_bytes()

    def fail(done: int, total: int) -> None:
        if 2 * done == total:  # all headers are read
            path.write_bytes(sound[:-50])

    assert prepare(raw, out, workers=1, progress=fail).index.n_slices == PATIENTS * SLICES - 1
    path.write_bytes(sound)
    assert prepare(raw, out, workers=1).read == 1
    assert content(out) == content(tmp_path / "sound")


KILLED_BEFORE_THE_INDEX = """
import os, sys
import ichseq.data.prepare as module
from pathlib import Path
def die(*args, **settings):
    os._exit(9)
module.write_index = die
broken = Path(sys.argv[3])
def progress(done, total):
    if 2 * done == total:
        broken.write_bytes(broken.read_bytes()[:-50])
module.prepare(sys.argv[1], sys.argv[2], workers=1, progress=progress)
"""


def test_a_run_killed_before_its_index_leaves_the_old_index_its_pixels(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    index = prepare(raw, out, workers=1).index
    before = content(out)
    path = raw / "stage_2_train" / f"{slice_id(0, 3)}.dcm"
    sound = path.read_bytes()
    path.touch()  # so that its series is read again, and fails in its pixels
    run = subprocess.run([sys.executable, "-c", KILLED_BEFORE_THE_INDEX, str(raw), str(out), str(path)])
    assert run.returncode == 9
    assert len(list(out.glob("store/*/*"))) == PATIENTS + 1
    after = content(out)
    assert {name: after[name] for name in before if name != "left_out.csv"}.items() <= before.items()
    assert Index.load(out).key == index.key
    for i in range(index.n_series):
        assert len(read_slices(index.store_path(i))) == index.lengths[i]
    path.write_bytes(sound)
    prepare(raw, out, workers=1)
    assert content(out) == before  # and what the killed run wrote is gone


def test_a_source_without_a_usable_slice_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.txt").write_text("hello")
    with pytest.raises(ScanError, match="no DICOM file"):
        prepare(tmp_path / "raw", tmp_path / "out", workers=1)
    with pytest.raises(ScanError, match="no such file or folder"):
        prepare(tmp_path / "none", tmp_path / "out", workers=1)
    assert not (tmp_path / "out").exists()


def test_refusals_name_the_value_and_come_before_anything_is_written(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "other.csv").write_text("sop_uid,any\nx,1\n")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    cases: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (ConfigError, "8 folds asked for, but the source holds 7 patients; ask for at most 7", {"folds": 8}),
        (ConfigError, "at least 1", {"folds": 0}),
        (ConfigError, "at least 1", {"workers": 0}),
        (ConfigError, "--hu-range -100,3071: a set keeps from -200 or less", {"hu_range": (-100, 3071)}),
        (ConfigError, "--hu-range -1024,40000: a set keeps", {"hu_range": (-1024, 40000)}),
        (
            DataError,
            r"other\.csv: none of its 1 labelled slices is among the 28 images",
            {"labels": tmp_path / "other.csv"},
        ),
        (DataError, r"none\.csv: no such file", {"labels": tmp_path / "none.csv"}),
        (DataError, "full: holds other files", {"out": tmp_path / "full"}),
        (DataError, "file: is a file", {"out": tmp_path / "file"}),
        (DataError, "file: is a file", {"out": tmp_path / "file" / "below"}),
        (DataError, "lies inside the source", {"out": raw / "prepared"}),
        (DataError, "lies inside the output", {"out": tmp_path}),
    ]
    before = content(tmp_path)
    for error, message, options in cases:
        with pytest.raises(error, match=message):
            prepare(raw, **{"out": out, "workers": 1, **options})
    assert content(tmp_path) == before
    assert not out.exists()


def test_a_set_is_not_mixed_up_with_another_source_version_fold_or_run(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(raw, out, workers=1)
    before = content(out)
    fewer = write_layout(tmp_path / "fewer", PATIENTS - 1)
    with pytest.raises(DataError, match="was prepared from raw, and 1 of its 7 series are not in this source"):
        prepare(fewer, out, workers=1)
    with pytest.raises(ConfigError, match="drawn with folds 5 and are never drawn again; ask for folds 5 instead of 3"):
        prepare(raw, out, folds=3, workers=1)
    with pytest.raises(ConfigError, match="drawn with seed 0"):
        prepare(raw, out, seed=1, workers=1)
    (raw / "stage_2_train.csv").rename(tmp_path / "kept.csv")
    with pytest.raises(DataError, match=r"has labels from stage_2_train\.csv, and this run would lose them"):
        prepare(raw / "stage_2_train", out, workers=1)
    with (
        locked(out / ".lock", lambda: True),
        pytest.raises(DataError, match="another `ichseq prepare` is at work there"),
    ):
        prepare(raw, out, labels=tmp_path / "kept.csv", workers=1)
    assert content(out) == before
    settings = json.loads((out / "index.json").read_text())
    (out / "index.json").write_text(json.dumps(settings | {"format": 99}))
    with pytest.raises(DataError, match="prepared by another version"):
        prepare(raw, out, labels=tmp_path / "kept.csv", workers=1)


def test_a_set_that_another_run_finishes_meanwhile_is_kept(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    other = write_layout(tmp_path / "other", PATIENTS + 1)

    def meanwhile(done: int, total: int) -> None:
        if 2 * done == total and not out.exists():  # all headers are read, and the folder is not locked yet
            prepare(other, out, workers=1)

    with pytest.raises(DataError, match="was prepared from other, and 1 of its 8 series are not in this source"):
        prepare(raw, out, workers=1, progress=meanwhile)
    assert Index.load(out).n_series == PATIENTS + 1
    shutil.rmtree(out)
    with pytest.raises(ConfigError, match="drawn with folds 5"):
        prepare(raw, out, folds=3, workers=1, progress=meanwhile)
    assert Index.load(out).n_series == PATIENTS + 1


@pytest.mark.parametrize("limit", [600, 2500])
def test_a_full_disk_leaves_the_set_as_it_was(raw: Path, tmp_path: Path, limit: int) -> None:
    out = tmp_path / "out"
    prepare(raw, out, workers=1)
    before, key = content(out), Index.load(out).key
    add_patients(raw, range(PATIENTS, PATIENTS + 2))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
    try:
        with pytest.raises(DataError, match="cannot be written"):
            prepare(raw, out, workers=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert Index.load(out).key == key
    after = content(out)
    assert {name: after[name] for name in before} == before
    assert not [name for name in after if name.endswith(".part")]


def test_progress_ends_at_its_total(raw: Path, tmp_path: Path) -> None:
    bad = list(bad_files(raw / "stage_2_train"))
    calls: list[tuple[int, int]] = []
    prepare(raw, tmp_path / "out", workers=1, progress=lambda done, total: calls.append((done, total)))
    total = 2 * (PATIENTS * SLICES + len(bad))
    assert calls[-1] == (total, total)
    assert calls == sorted(calls)
    assert {whole for _, whole in calls} == {total}


def test_the_real_head_ct(head_ct: Path, tmp_path: Path) -> None:
    summary = prepare(head_ct, tmp_path / "out", folds=1, workers=1)
    index = summary.index
    assert (index.n_series, index.n_slices) == (1, 28)
    assert np.array_equal(read_slices(index.store_path(0)), np.clip(load_series(head_ct)[0].hu, *HU_RANGE))
