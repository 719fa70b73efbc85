"""Series: one orientation and size, from feet to head, whatever the files' order; nothing lost without a reason."""

import os
import pickle
import random
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from dicom_files import AXIAL, ct_dataset, dicom_bytes, write_series

import ichseq
from ichseq.ct.dicom import PHANTOM_MARK
from ichseq.ct.left_out import SliceError
from ichseq.ct.scan import CHANGED
from ichseq.ct.series import Series, SeriesCollection, group_headers, list_files, load_series, make_series, scan_headers
from ichseq.errors import ConfigError, ScanError


def write(folder: Path, **slices) -> None:
    """Write name=dataset (or name=bytes) into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, dataset in slices.items():
        (folder / name).write_bytes(dataset if isinstance(dataset, bytes) else dicom_bytes(dataset))


def only(collection: SeriesCollection) -> Series:
    assert len(collection) == 1
    return collection[0]


def numbers(series: Series) -> list[int]:
    """The numbers that ct_dataset was given, in slice order."""
    return [int(uid.rpartition(".")[2]) for uid in series.sop_uids]


def reasons(collection: SeriesCollection) -> dict[str, str]:
    return {Path(item.file).name: item.reason for item in collection.left_out}


def without_folder(collection: SeriesCollection) -> list:
    """What must not depend on the files' names: everything but them."""
    return [(s.series_uid, s.sop_uids, s.positions_mm.tolist(), s.warnings, s.key, s.hu.tolist()) for s in collection]


# ---- order


@pytest.mark.parametrize("tilt", [0.0, 18.5, -21.0])
@pytest.mark.parametrize("flip", [1, -1], ids=["as seen from the feet", "as seen from the head"])
def test_order_and_distances_with_tilt_and_jitter(tmp_path, tilt, flip):
    """The table moves along z; the images lean by the tilt; x jitters by a micrometre."""
    lean = np.deg2rad(tilt)
    orientation = [flip, 0, 0, 0, np.cos(lean), -np.sin(lean)]
    steps = np.cumsum([4.0] * 6 + [7.0] * 6)
    rng = np.random.default_rng(0)
    for number, z in enumerate(steps, 1):
        position = [-125 + rng.normal(0, 1e-3), -120, 20 + z]
        dataset = ct_dataset(
            number=number,
            ImagePositionPatient=[f"{v:.6f}" for v in position],
            ImageOrientationPatient=[f"{v:.7f}" for v in orientation],
        )
        write(tmp_path, **{f"{rng.integers(10**9)}": dataset})
    series = only(load_series(tmp_path))
    assert numbers(series) == list(range(1, 13))
    np.testing.assert_allclose(np.diff(series.positions_mm), np.diff(steps) * np.cos(lean), atol=1e-4)


def test_names_folders_and_containers_change_nothing(tmp_path):
    """Two series, a duplicate, a tie and a localizer: the same result, however the files are named and packed."""
    different = np.full((16, 12), 7, "i2")
    first = [ct_dataset(number=k) for k in range(1, 6)]
    second = [ct_dataset(number=10 + k, SeriesInstanceUID="1.9", ImagePositionPatient=[0, 0, -k]) for k in range(4)]
    tie = ct_dataset(different, number=77, ImagePositionPatient=[-125, -125, 10])
    copy = ct_dataset(number=3)
    scout = ct_dataset(number=50, ImageOrientationPatient=[0, 1, 0, 0, 0, -1])
    blobs = [dicom_bytes(dataset) for dataset in [*first, *second, tie, copy, scout]]
    results = []
    for seed in range(6):
        rng = random.Random(seed)
        rng.shuffle(blobs)
        names = [f"{'abc'[rng.randrange(3)]}/{rng.randrange(10**9)}" for _ in blobs]
        source = tmp_path / (f"{seed}.zip" if seed % 2 else f"{seed}")
        if seed % 2:
            with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, blob in zip(names, blobs, strict=True):
                    archive.writestr(name, blob)
        else:
            for name, blob in zip(names, blobs, strict=True):
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                (source / name).write_bytes(blob)
        collection = load_series(source)
        assert len(collection.left_out) == 2
        results.append(without_folder(collection))
    assert all(result == results[0] for result in results)
    assert [numbers(series) for series in load_series(source)] == [[1, 2, 77, 3, 4, 5], [13, 12, 11, 10]]


def test_order_by_number_or_name_for_scans_without_positions(tmp_path):
    names = {3: "img10", 1: "img9", 2: "img100"}
    for number, name in names.items():
        changes = {"ImagePositionPatient": None, "ImageOrientationPatient": None, "InstanceNumber": number}
        write(tmp_path, **{name: ct_dataset(number=number, **changes)})
    with pytest.raises(ScanError, match="3 x no ImagePositionPatient"):
        load_series(tmp_path)
    series = only(load_series(tmp_path, order="instance"))
    assert numbers(series) == [1, 2, 3]
    assert np.isnan(series.positions_mm).all()
    assert "3 slices have no position" in series.warnings
    assert numbers(only(load_series(tmp_path, order="file"))) == [1, 3, 2]
    write(tmp_path, x=ct_dataset(number=4))
    assert "no InstanceNumber" in reasons(load_series(tmp_path, order="instance"))["x"]
    with pytest.raises(ConfigError, match="use position, instance or file"):
        load_series(tmp_path, order="z")  # type: ignore[arg-type]


# ---- grouping, ties, duplicates


def test_two_orientations_and_two_sizes_make_series_of_their_own(tmp_path):
    write_series(tmp_path / "a", range(1, 4))
    write_series(tmp_path / "b", range(4, 6), ImageOrientationPatient=[1, 0, 0, 0, 0.95, -0.31225])
    write(
        tmp_path / "c", c=ct_dataset(np.zeros((8, 8), "i2"), number=6), d=ct_dataset(np.ones((12, 16), "i2"), number=7)
    )
    collection = load_series(tmp_path)
    assert sorted(numbers(series) for series in collection) == [[1, 2, 3], [4, 5], [6], [7]]
    assert {series.series_uid for series in collection} == {"1.2.3.4.5"}
    assert len({series.key for series in collection}) == 4
    assert all("2 orientations: read as 2 series" in series.warnings[0] for series in collection)
    assert sum("3 image sizes: read as 3 series" in " ".join(series.warnings) for series in collection) == 3


def test_jitter_of_the_orientation_is_one_orientation(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(1, 20):
        jitter = [f"{v + rng.normal(0, 1e-5):.8f}" for v in AXIAL]
        write(tmp_path, **{str(number): ct_dataset(number=number, ImageOrientationPatient=jitter)})
    assert numbers(only(load_series(tmp_path))) == list(range(1, 20))


def test_identical_slice_is_kept_once_and_reported(tmp_path):
    write_series(tmp_path, range(1, 4))
    write(
        tmp_path,
        zz=ct_dataset(number=2),
        yy=ct_dataset(ct_dataset(number=3) and None, number=3, SOPInstanceUID="1.9.3"),
    )
    collection = load_series(tmp_path)
    assert numbers(only(collection)) == [1, 2, 3]
    assert len(collection.left_out) == 2
    assert all("duplicate: same place and pixels as" in reason for reason in reasons(collection).values())
    assert all(item.expected for item in collection.left_out)


@pytest.mark.parametrize("tag", ["AcquisitionNumber", "ConvolutionKernel"])
def test_two_reconstructions_under_one_uid_are_split(tmp_path, tag):
    for k, value in enumerate((1, 2) if tag == "AcquisitionNumber" else ("SOFT", "BONE")):
        for number in range(1, 5):
            pixels = np.full((16, 12), 10 * k + number, "i2")
            place = [0, 0, number + 0.003 * k]
            dataset = ct_dataset(pixels, number=10 * k + number, ImagePositionPatient=place, **{tag: value})
            write(tmp_path, **{f"{k}{number}": dataset})
    collection = load_series(tmp_path)
    assert [numbers(series) for series in collection] == [[1, 2, 3, 4], [11, 12, 13, 14]]
    assert all(f"2 sets of slices (by {tag}): read as 2 series" in series.warnings[0] for series in collection)


@pytest.mark.parametrize("count_up", [False, True])
def test_a_tie_that_nothing_tells_apart_is_kept_and_reported(tmp_path, count_up):
    """An AcquisitionNumber of its own for every slice, as the GE scan has, must not tear the series into slices."""
    for number, z in enumerate([1, 2, 2.005, 3], 1):
        acquisition = {"AcquisitionNumber": number} if count_up else {}
        place = {"ImagePositionPatient": [0, 0, z]}
        uid = {2: "1.2.3.4.5.3", 3: "1.2.3.4.5.2"}.get(number, f"1.2.3.4.5.{number}")
        write(tmp_path, **{str(number): ct_dataset(number=number, SOPInstanceUID=uid, **place, **acquisition)})
    series = only(load_series(tmp_path))
    assert numbers(series) == [1, 2, 3, 4]  # by UID, against the 0.005 mm
    assert series.warnings == ["2 slices with different pixels share 1 place(s); ordered there by SOPInstanceUID"]


def test_one_uid_for_two_slices_is_reported(tmp_path):
    write(tmp_path, a=ct_dataset(number=1), b=ct_dataset(number=2, SOPInstanceUID="1.2.3.4.5.1"))
    assert "1 slices repeat the SOPInstanceUID" in only(load_series(tmp_path)).warnings[0]


def test_a_series_uid_shared_by_two_patients_of_two_studies_makes_two_series(tmp_path):
    write_series(tmp_path / "a", range(1, 3))
    write_series(tmp_path / "b", range(1, 3), PatientID="P2", StudyInstanceUID="1.2.3.9")
    assert [(series.patient_id, series.warnings) for series in load_series(tmp_path)] == [("P1", []), ("P2", [])]


def test_one_slice_is_a_series(tmp_path):
    write(tmp_path, a=ct_dataset(PatientID=None, PixelSpacing=None))
    series = only(load_series(tmp_path / "a"))
    assert (len(series), series.hu.shape) == (1, (1, 16, 12))
    assert np.isnan(series.spacing_mm).all()
    assert series.warnings == ["1 slices have no PixelSpacing", "no PatientID"]


# ---- left out


def test_bad_files_among_good_ones(tmp_path):
    write_series(tmp_path, range(1, 4))
    good = dicom_bytes(ct_dataset(number=9))
    write(
        tmp_path / "more",
        text=b"some text",
        cut=good[:-50],
        mr=ct_dataset(number=10, Modality="MR"),
        slope=ct_dataset(number=11, RescaleSlope=None),
        archive=b"PK\x03\x04" + bytes(300),
        empty=b"",
    )
    collection = load_series(tmp_path)
    assert numbers(only(collection)) == [1, 2, 3]
    assert reasons(collection) == {
        "text": "not a DICOM file",
        "cut": "truncated: 334 of 384 bytes of pixel data; get the file again",
        "mr": "modality MR, not CT",
        "slope": "no RescaleSlope, so no Hounsfield units",
        "archive": "a zip inside the source; name it as a source of its own",
        "empty": "is empty; get the file again",
    }


def test_no_dicom_at_all(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ScanError, match=r"no DICOM file in .* \(1 file looked at\); check the path"):
        load_series(tmp_path)
    with pytest.raises(ScanError, match=r"missing: no such file or folder"):
        load_series(tmp_path / "missing")
    (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04")
    with pytest.raises(ScanError, match=r"no DICOM file in .*bad.zip: 1 x not a zip archive"):
        load_series(tmp_path / "bad.zip")


def test_empty_files_alone_are_said_to_be_empty(tmp_path):
    write(tmp_path, a=b"", b=b"")
    with pytest.raises(ScanError, match=r"no DICOM file in .*: 2 x is empty; get the file again"):
        load_series(tmp_path)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.1.99"])
def test_a_changed_bit_in_an_archive_is_no_picture(tmp_path, method, syntax):
    path = tmp_path / "scan.zip"
    with zipfile.ZipFile(path, "w", method, compresslevel=0) as archive:
        for number in (1, 2):
            archive.writestr(f"{number}", dicom_bytes(ct_dataset(number=number), syntax=syntax))
    good = only(load_series(path)).read()
    data = bytearray(path.read_bytes())
    at = data.find(b"PK\x03\x04", 10)  # the second member's header: before it lie the first one's last pixels
    data[at - 20] ^= 1
    path.write_bytes(data)
    collection = load_series(path)
    whole, lost = only(collection).readable()
    (item,) = [*collection.left_out, *lost]  # of a compressed member, the header's reading may have met it already
    assert item.file == f"{path}/1"
    assert item.reason.startswith("damaged")
    assert np.array_equal(whole.hu, good[1:])


def test_nothing_usable_says_why(tmp_path):
    write_series(tmp_path, range(1, 4), RescaleSlope=None)
    write(tmp_path, mr=ct_dataset(Modality="MR"))
    with pytest.raises(ScanError, match=r"no usable CT slice in .*: 3 x no RescaleSlope.*; 1 x modality MR, not CT"):
        load_series(tmp_path)


def test_unreadable_file_is_left_out(tmp_path):
    paths = write_series(tmp_path, range(1, 4))
    os.chmod(paths[0], 0)
    if os.access(paths[0], os.R_OK):
        pytest.skip("runs as a user who may read every file")
    assert "cannot be opened (Permission denied)" in reasons(load_series(tmp_path))[paths[0].name]


# ---- reading


def test_pixels_are_read_only_when_asked(tmp_path):
    paths = write_series(tmp_path)
    series = only(load_series(tmp_path))
    whole = series.read()
    np.testing.assert_array_equal(whole[1:3], series.read(1, 3))
    shutil.rmtree(tmp_path)
    with pytest.raises(SliceError, match=f"{paths[0]}: cannot be opened") as caught:
        _ = series.hu
    assert caught.value.file == series.files[0]


def test_pixels_are_kept_by_the_series_and_not_by_the_collection(tmp_path):
    write_series(tmp_path)
    collection = load_series(tmp_path)
    series = collection[0]
    assert series.hu is series.hu
    for again in collection:
        assert again.hu is not series.hu
    assert len(pickle.dumps(series)) < series.hu.nbytes + 10_000
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(series)).hu, series.hu)


def test_series_less_an_undecodable_slice(tmp_path):
    paths = write_series(tmp_path)
    series = only(load_series(tmp_path))
    whole = series.read()
    paths[2].write_bytes(paths[2].read_bytes()[:-100])
    with pytest.raises(SliceError) as caught:
        series.read(1, 4)
    assert str(caught.value) == f"{paths[2]}: {CHANGED}"
    rest = series.without(caught.value.file)
    np.testing.assert_array_equal(rest.hu, whole[[0, 1, 3, 4]])
    assert numbers(rest) == [1, 2, 4, 5]
    assert rest.positions_mm.tolist() == [5, 10, 20, 25]
    readable, left_out = series.readable()
    np.testing.assert_array_equal(readable.hu, rest.hu)
    assert [item.file for item in left_out] == [str(paths[2])]
    assert readable.warnings == ["1 of 5 slices could not be read and are left out"]
    with pytest.raises(ScanError, match="not a file of this series"):
        rest.without(caught.value.file)
    for path in paths:
        path.write_bytes(b"")
    none, left_out = series.readable()
    assert none is None
    assert [item.file for item in left_out] == [str(path) for path in paths]


def test_repairs_are_counted_once(tmp_path):
    pixels = np.full((16, 12), 3096, "u2")
    pixels[4:8, 4:8] = 40
    write_series(tmp_path, range(1, 3))
    for number in (3, 4):
        changes = {"BitsStored": 12, "RescaleIntercept": 0}
        write(tmp_path, **{f"w{number}": ct_dataset(pixels, number=number, **changes)})
    series = only(load_series(tmp_path))
    assert series.warnings == []
    series.read(2, 4)
    assert series.hu[2, 0, 0] == -1000
    assert series.warnings == ["2 of 4 slices were wrapped 12-bit data and have been repaired"]
    assert series.readable()[0].warnings == series.warnings
    assert series.without(series.files[3]).warnings[0].startswith("1 of 3 slices")


def test_made_up_scans_say_so(tmp_path):
    write(tmp_path, a=dicom_bytes(ct_dataset(), implementation=PHANTOM_MARK))
    assert only(load_series(tmp_path)).phantom
    write(tmp_path, a=dicom_bytes(ct_dataset()))
    assert not only(load_series(tmp_path)).phantom


def test_a_list_of_sources_and_the_progress(tmp_path):
    paths = write_series(tmp_path / "a", range(1, 4))
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("4", dicom_bytes(ct_dataset(number=4)))
    calls: list[tuple[int, int]] = []
    series = only(
        load_series([*paths, str(tmp_path / "b.zip")], progress=lambda done, total: calls.append((done, total)))
    )
    assert numbers(series) == [1, 2, 3, 4]
    assert series.files[3] == f"{tmp_path}/b.zip/4"
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]


# ---- the flat layer


def test_scanning_in_pieces_is_scanning_the_whole(tmp_path):
    for k in range(4):
        changes = {"SeriesInstanceUID": f"1.2.{k}{'0' * 5 * k}", "StudyInstanceUID": f"1.3.{k}"}
        write_series(tmp_path / str(k), range(1, 6), PatientID=f"P{k % 2}", **changes)
    write(tmp_path, bad=b"text")
    files = list_files(tmp_path)
    whole = scan_headers(files)
    pieces = [range(start, min(start + 6, len(files))) for start in range(0, len(files), 6)]
    parts = [scan_headers(files.take(list(piece)), first=piece[0]) for piece in pieces]
    joined = type(whole).concatenate(pickle.loads(pickle.dumps(parts)))
    np.testing.assert_array_equal(joined.numbers, whole.numbers)
    assert (joined.left_out, joined.dicom_files) == (whole.left_out, whole.dicom_files)
    found = []
    for group in group_headers(joined):
        part = joined.take(group)
        series, _ = make_series(files.take(part.numbers["file"]), part)
        found += pickle.loads(pickle.dumps(series))
    assert without_folder(found) == without_folder(load_series(tmp_path))  # type: ignore[arg-type]
    assert [series.patient_id for series in found] == ["P0", "P0", "P1", "P1"]
    assert group_headers(type(whole).concatenate([])) == []


def test_a_row_stays_small():
    headers = scan_headers(None)
    assert headers.numbers.dtype.itemsize <= 200  # 752,803 slices: 150 MB at most, once, in the parent


def test_reading_scans_needs_no_torch():
    code = "import sys, ichseq.ct.series; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- a real scan


@pytest.mark.parametrize("packed", [False, True])
def test_real_head_ct(head_ct, tmp_path, packed):
    """28 slices in the order of InstanceNumber, named and packed at random; 4 mm apart below, 7 mm above."""
    names = [f"{k:02d}.dcm" for k in range(1, 29)]
    shuffled = random.Random(3).sample(range(1000), 28)
    if packed:
        with zipfile.ZipFile(tmp_path / "scan.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, k in zip(names, shuffled, strict=True):
                archive.write(head_ct / name, f"dir/{k}")
    else:
        for name, k in zip(names, shuffled, strict=True):
            shutil.copy(head_ct / name, tmp_path / str(k))
    collection = ichseq.load_series(tmp_path / "scan.zip" if packed else tmp_path)
    series = only(collection)
    assert collection.left_out == []
    assert series.warnings == []
    assert [int(Path(file).name) for file in series.files] == shuffled
    np.testing.assert_allclose(np.diff(series.positions_mm), [4] * 13 + [1.08] + [7] * 13, atol=0.01)
    assert series.spacing_mm == pytest.approx((0.488, 0.488), abs=1e-3)
    hu = series.hu
    assert (hu.dtype, hu.shape, hu.min()) == (np.int16, (28, 512, 512), -1024)
    assert (hu[:, 0, 0] == -1024).all()  # padding
    brain = hu[18, 230:280, 200:310]
    assert 20 < np.median(brain) < 45
    assert hu.max() > 700  # bone
