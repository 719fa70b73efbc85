"""DICOM results: of the exam's patient and study, read by what departments have, the same from the same input."""

import json
import logging
import shutil
import socket
import subprocess
import time
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pandas as pd
import pydicom
import pytest
import torch
from click.testing import CliRunner
from dicom_files import CT_IMAGE, ct_dataset, dicom_bytes
from phantom_heads import known_volume
from pydicom.dataset import Dataset
from pydicom.uid import UID

from ichseq.api import predict_scans
from ichseq.cli import main
from ichseq.dicom_results.capture import draw_capture
from ichseq.errors import ConfigError, DataError
from ichseq.inference.predict import Predictions
from ichseq.labels import LABELS
from ichseq.model import Model

STUDY = "1.2.826.0.1.3680043.8.498.99.7"
PATIENT = {"PatientName": "Müller^Jürgen", "PatientID": "Geheim-12", "PatientBirthDate": "19500203", "PatientSex": "M",
           "StudyDate": "20240105", "StudyTime": "101500", "AccessionNumber": "A17", "StudyID": "S3",
           "ReferringPhysicianName": "Weiß^Anna"}  # fmt: skip
FLAGGED = ("intraparenchymal", "any")


def network(flagged: tuple[str, ...] = FLAGGED, seed: int = 0, **settings: Any) -> Model:
    """A network that flags some labels in every slice."""
    torch.manual_seed(seed)
    model = Model("test_resnet", image_size=32, hidden_size=8, sequence="none", **settings).eval()
    with torch.no_grad():
        model.slice_head.bias.copy_(torch.tensor([4.0 if label in flagged else -4.0 for label in LABELS]))
    return model


def write_scan(folder: Path, count: int = 8, **changes: Any) -> Path:
    """A made-up head, `count` slices 5 mm apart, with a patient."""
    volume = known_volume(5, 96)
    folder.mkdir()
    stored = (np.clip(np.round(volume.hu[::3]), -1024, 3000) + 1024).astype(np.int16)[:count]
    tags = PATIENT | {
        "SOPClassUID": CT_IMAGE,
        "SpecificCharacterSet": "ISO_IR 100",
        "StudyInstanceUID": STUDY,
        "SeriesInstanceUID": f"{STUDY}.1",
    }
    for k, pixels in enumerate(stored, 1):
        uid = {"SOPInstanceUID": f"{STUDY}.1.{k}", "PixelSpacing": [round(volume.pixel_mm, 4)] * 2}
        (folder / f"{k:02d}").write_bytes(dicom_bytes(ct_dataset(pixels, number=k, **tags | uid | changes)))
    return folder


def made(out: Path) -> dict[str, Dataset]:
    """The results of the only exam, by name."""
    (folder,) = out.iterdir()
    return {path.stem: pydicom.dcmread(path) for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scan; not to be changed."""
    return write_scan(tmp_path_factory.mktemp("scan") / "scan")


@pytest.fixture(scope="module")
def written(scan: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Predictions]:
    """The folder of its results, and what was predicted; not to be changed."""
    out = tmp_path_factory.mktemp("results") / "out"
    return out, predict_scans(network(), scan, dicom=out, progress=False)


def test_the_results_are_of_the_exams_patient_and_study_in_series_of_their_own(
    written: tuple[Path, Predictions],
) -> None:
    results = made(written[0])
    assert {name.partition("_")[0] for name in results} == {"report", "capture", "key"}
    for dataset in results.values():
        assert dataset.StudyInstanceUID == STUDY
        assert {key: str(dataset[key].value) for key in PATIENT} == PATIENT
        assert dataset.SpecificCharacterSet == "ISO_IR 192"
        assert "RESEARCH ONLY" in dataset.SeriesDescription
        assert UID(dataset.SOPInstanceUID).is_valid
    series = {dataset.SeriesInstanceUID for dataset in results.values()}
    assert len(series) == 3
    assert f"{STUDY}.1" not in series
    names = [path.name for path in written[0].rglob("*")]
    assert not any("Geheim" in name or "ller" in name for name in names)


def test_the_same_input_gives_the_same_uids_and_another_network_others(
    written: tuple[Path, Predictions], scan: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(scan, tmp_path / "moved"))
    predict_scans(network(), moved, dicom=tmp_path / "same", progress=False)
    predict_scans(network(seed=1), moved, dicom=tmp_path / "other", progress=False)
    first, same, other = ({n: d.SOPInstanceUID for n, d in made(out).items()}
                          for out in (written[0], tmp_path / "same", tmp_path / "other"))  # fmt: skip
    assert first == same
    assert not set(first.values()) & set(other.values())
    assert len(set(first.values())) == len(first)


def test_the_report_says_what_the_tables_say_and_points_to_the_key_slices(written: tuple[Path, Predictions]) -> None:
    out, outcome = written
    report = highdicom.sr.srread(next(out.glob("*/report.dcm")))
    exam, groups = outcome.exams.iloc[0], report.content.get_image_measurement_groups()
    assert [group.tracking_identifier for group in groups] == list(LABELS)
    for group, label in zip(groups, LABELS, strict=True):
        score, slices = group.get_measurements()
        assert float(score.value) == pytest.approx(100 * exam[label], abs=0.051)
        assert int(slices.value) == (outcome.slices[label] >= 0.5).sum()
        (flag,) = [one for one in group.get_qualitative_evaluations() if one.name.value == "flagged"]
        assert flag.value.meaning == ("Yes" if label in FLAGGED else "No")
        (image,) = group.source_images
        highest = outcome.slices["sop_uid"].iloc[int(outcome.slices[label].argmax())]
        assert image.referenced_sop_instance_uid == highest
    assert groups[0].finding_type.meaning == "Epidural hemorrhage"
    comments = [item.TextValue for item in report.ContentSequence if item.ValueType == "TEXT"]
    assert any("RESEARCH ONLY" in text and "no probability" in text for text in comments)


def test_the_key_objects_are_the_key_slices_and_their_pictures(written: tuple[Path, Predictions]) -> None:
    results, slices = made(written[0]), written[1].slices
    document = highdicom.ko.KeyObjectSelectionDocument.from_dataset(results["key_objects"])
    key = {slices["sop_uid"].iloc[int(slices[label].argmax())] for label in FLAGGED}
    captures = {dataset.SOPInstanceUID for name, dataset in results.items() if name.startswith("capture")}
    found = {uid: document.resolve_reference(uid) for uid in key | captures}
    assert {study for study, _, _ in found.values()} == {STUDY}
    assert {found[uid][1] for uid in key} == {f"{STUDY}.1"}
    content = results["key_objects"].ContentSequence
    referenced = [item.ReferencedSOPSequence[0] for item in content if item.ValueType == "IMAGE"]
    assert {item.ReferencedSOPInstanceUID for item in referenced} == key | captures
    sources = {dataset.SourceImageSequence[0].ReferencedSOPInstanceUID for name, dataset in results.items()
               if name.startswith("capture")}  # fmt: skip
    assert sources == key


def test_a_picture_shows_the_slice_the_map_and_that_it_is_for_research() -> None:
    hu = np.full((40, 60), 40, np.int16)
    hu[:, 30:] = 80
    heat = np.zeros((40, 60), np.float32)
    heat[10:20, 5:15] = 1
    plain = draw_capture(hu, None, above=["a"], below=["b"])
    both = draw_capture(hu, heat, above=["a"], below=["b"])
    rows, columns, _ = plain.shape
    assert (both.shape, both.dtype) == ((rows, 2 * columns, 3), np.uint8)
    strip = (rows - round(512 * 40 / 60)) // 2
    left, right = both[strip:-strip, :columns].astype(int), both[strip:-strip, columns:].astype(int)
    assert np.array_equal(left, plain[strip:-strip])
    assert np.ptp(left, axis=2).max() == 0  # grey
    assert (left[50, 50, 0], left[50, 450, 0]) == (128, 255)  # 40 and 80 HU in the brain window, 0 to 80
    there = enlarged(heat, left.shape[:2])
    assert np.array_equal(left[there == 0], right[there == 0])
    assert np.abs(left - right)[there == 1].min(axis=0).max() > 30
    assert both[:strip].max() == 255
    assert both[-strip:].max() == 255
    upright = draw_capture(hu, None, above=[], below=[], aspect=3.0)
    assert upright.shape[0] - 2 * strip > upright.shape[1]


def enlarged(heat: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A map as large as its picture: 1 and 0 where it is that all around, and a half elsewhere."""
    places = [np.arange(n) * m / n for n, m in zip(shape, heat.shape, strict=True)]
    near = [[np.clip(one + step, 0, n - 1).round().astype(int) for step in (-1.5, 1.5)]
            for one, n in zip(places, heat.shape, strict=True)]  # fmt: skip
    corners = np.array([heat[np.ix_(rows, columns)] for rows in near[0] for columns in near[1]])
    return np.where(corners.min(0) == 1, 1.0, np.where(corners.max(0) == 0, 0.0, 0.5))


def test_where_nothing_is_flagged_there_is_a_report_alone(scan: Path, tmp_path: Path) -> None:
    outcome = predict_scans(network(flagged=()), scan, dicom=tmp_path / "out", progress=False)
    assert list(made(tmp_path / "out")) == ["report"]
    assert outcome.dicom_remarks == []


def tool(name: str) -> str:
    """A program's path; without it the test is skipped."""
    return shutil.which(name) or pytest.skip(f"{name} is not there: apt-get install dcmtk dicom3tools orthanc")


def test_dciodvfy_finds_no_error(written: tuple[Path, Predictions], tmp_path: Path) -> None:
    program = tool("dciodvfy")
    bare = dict.fromkeys(PATIENT, None) | {"PatientID": "P1", "SpecificCharacterSet": None, "PatientSex": "unknown"}
    predict_scans(network(), write_scan(tmp_path / "bare", **bare), dicom=tmp_path / "out", progress=False)
    for path in [*written[0].rglob("*.dcm"), *(tmp_path / "out").rglob("*.dcm")]:
        done = subprocess.run([program, "-new", str(path)], capture_output=True, text=True)
        assert "Error" not in done.stderr + done.stdout, (path.name, done.stderr)
        assert done.stderr or done.stdout


def test_dcmtk_renders_the_report_and_the_pictures(written: tuple[Path, Predictions], tmp_path: Path) -> None:
    for path in written[0].rglob("*.dcm"):
        if path.stem == "report":
            subprocess.run([tool("dsr2html"), "+Cn", str(path), str(tmp_path / "a.html")], check=True)
            page = (tmp_path / "a.html").read_text(encoding="utf-8", errors="replace")
            assert all(word in page for word in ("Intraparenchymal hemorrhage", "RESEARCH ONLY", "Geheim-12"))
        elif path.stem.startswith("capture"):
            subprocess.run([tool("dcmj2pnm"), "--write-raw-pnm", str(path), str(tmp_path / "a.ppm")], check=True)
            pixels = pydicom.dcmread(path).pixel_array
            assert (tmp_path / "a.ppm").read_bytes()[-pixels.size :] == pixels.tobytes()


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[tuple[int, str]]:
    """An archive that runs here: its DICOM port and the address of its REST interface."""
    program = tool("Orthanc")
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        ports = one.getsockname()[1], other.getsockname()[1]
    settings = {"StorageDirectory": str(tmp_path / "archive"), "IndexDirectory": str(tmp_path / "archive"),
                "DicomPort": ports[0], "HttpPort": ports[1], "RemoteAccessAllowed": False,
                "AuthenticationEnabled": False, "Plugins": [], "DicomCheckCalledAet": False}  # fmt: skip
    (tmp_path / "orthanc.json").write_text(json.dumps(settings))
    address = f"http://127.0.0.1:{ports[1]}"
    log = (tmp_path / "orthanc.log").open("w")
    with log, subprocess.Popen([program, str(tmp_path / "orthanc.json")], stdout=log, stderr=log) as process:
        try:
            for _ in range(100):
                try:
                    ask(f"{address}/system")
                    break
                except OSError:
                    assert process.poll() is None, (tmp_path / "orthanc.log").read_text()
                    time.sleep(0.3)
            yield ports[0], address
        finally:
            process.terminate()
            process.wait(30)


def ask(address: str, **body: Any) -> Any:
    """What the REST interface answers."""
    data = json.dumps(body).encode() if body else None
    with urllib.request.urlopen(urllib.request.Request(address, data=data), timeout=20) as answer:
        return json.load(answer)


def test_an_archive_takes_the_results_and_finds_them_under_the_patients_study(
    written: tuple[Path, Predictions], scan: Path, orthanc: tuple[int, str]
) -> None:
    port, address = orthanc
    send = [tool("storescu"), "-v", "+sd", "+r", "-R", "127.0.0.1", str(port)]
    for folder in (scan, written[0], written[0]):  # twice: the archive takes the second for what it has
        done = subprocess.run([*send, str(folder)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    (study,) = ask(f"{address}/tools/find", Level="Study", Query={"StudyInstanceUID": STUDY})
    (patient,) = ask(f"{address}/tools/find", Level="Patient", Query={"PatientID": PATIENT["PatientID"]})
    assert study in ask(f"{address}/patients/{patient}")["Studies"]
    series = ask(f"{address}/studies/{study}/series")
    counts = {one["MainDicomTags"]["Modality"]: len(one["Instances"]) for one in series}
    captures = sum(name.startswith("capture") for name in made(written[0]))
    assert counts == {"CT": 8, "SR": 1, "OT": captures, "KO": 1}


@pytest.mark.filterwarnings("ignore:these weights", "ignore:Invalid value for VR UI")
@pytest.mark.parametrize(
    ("changes", "words"),
    [({"StudyInstanceUID": "ID_1234"}, "StudyInstanceUID is no valid UID"),
     ({"PatientID": "A" * 65}, "PatientID is longer than 64 characters")],
)  # fmt: skip
def test_an_exam_to_which_no_result_can_refer_is_named_and_predicted(
    changes: dict[str, str], words: str, run: Path, tmp_path: Path
) -> None:
    source = write_scan(tmp_path / "scan", **changes)
    out = tmp_path / "out"
    arguments = ["predict", str(source), "--run", str(run), "-o", str(tmp_path / "p.csv"), "--dicom", str(out)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 3, done.output
    assert len(pd.read_csv(tmp_path / "p.csv")) == 8
    (line,) = [line for line in done.stderr.splitlines() if line.startswith(f"dicom: {source}")]
    assert words in line
    assert list(out.iterdir()) == []


def test_a_header_that_is_doubtful_reaches_no_log_and_no_result(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    changes = {"PatientSex": "Secret", "PatientBirthDate": "Secretday", "StudyTime": "Secrettime", "AccessionNumber":
               "Secret" * 5, "PatientName": "Secret^A^B^C^D^E^F"}  # fmt: skip
    source = write_scan(tmp_path / "scan", **changes)
    capfd.readouterr()
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        predict_scans(network(), source, dicom=tmp_path / "out", progress=False)
    shown = caplog.text + "".join(str(one.message) for one in caught) + "".join(capfd.readouterr())
    assert "Secret" not in shown
    report = made(tmp_path / "out")["report"]
    assert (report.PatientSex, report.PatientBirthDate, report.StudyTime) == ("", "", "")


def test_what_cannot_be_written_is_found_out_before_the_work(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="is no folder; choose another --dicom"):
        predict_scans("absent", scan, dicom=tmp_path / "file", progress=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'ichseq\[dicom\]'"):
        predict_scans("absent", scan, dicom=tmp_path / "new", progress=False)
    assert not (tmp_path / "new").exists()


def test_what_else_is_in_the_folder_stays(scan: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    for flagged in (FLAGGED, ()):
        predict_scans(network(flagged), scan, dicom=tmp_path, progress=False)
    (tmp_path / "letter.txt").unlink()
    assert list(made(tmp_path)) == ["report"]  # that of the first time is replaced as a whole
