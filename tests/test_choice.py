"""Which series of a study is asked: the one that the network answers best on, with the reason; and none is lost."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest
from click.testing import CliRunner
from dicom_files import ct_dataset, dicom_bytes, write_series

from ichseq.api import predict_scans
from ichseq.cli import main
from ichseq.ct.choice import choose
from ichseq.ct.reconstruction import ENHANCED, MAP, REFORMATTED, SHARP, SOFT, marks_of
from ichseq.ct.series import load_series
from ichseq.model import Model

THICK = {"SliceThickness": 5, "ConvolutionKernel": "H31s", "SeriesNumber": 2}
THIN = {"SliceThickness": 1, "ConvolutionKernel": "H60s", "SeriesNumber": 3}


def stack(folder: Path, name: str, step: float, count: int, start: float = 0, **changes: Any) -> Path:
    """A series `name` of `count` slices, `step` mm apart, of the study that all stacks are of."""
    (folder / name).mkdir(parents=True)
    number = sum(name.encode())
    for k in range(count):
        uids = {"SeriesInstanceUID": f"1.2.3.{number}", "SOPInstanceUID": f"1.2.3.{number}.{k}"}
        place = {"ImagePositionPatient": [-3, -4, start + step * k]}
        (folder / name / f"{k}").write_bytes(dicom_bytes(ct_dataset(number=k, **uids | place | changes)))
    return folder


def asked(folder: Path) -> list[str]:
    """Names of the stacks that are chosen."""
    found = load_series(folder)
    return sorted({Path(found[k].files[0]).parent.name for k in choose(found).asked})


def four_series(folder: Path) -> Path:
    """Thin slices with a kernel for bone, thick ones for the brain, a localizer and a coronal reformat."""
    stack(folder, "thin bone", 1, 150, **THIN)
    stack(folder, "thick brain", 5, 30, 2, **THICK)
    stack(folder, "localizer", 1, 1, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], SeriesNumber=1)
    coronal = {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1], "ImageType": ["DERIVED", "SECONDARY", "REFORMATTED"]}
    return stack(folder, "coronal", 3, 20, **coronal, SeriesNumber=4)


def test_of_four_series_the_thick_one_for_the_brain_is_asked(tmp_path: Path) -> None:
    found = load_series(four_series(tmp_path))
    choice = choose(found)
    (number,) = choice.asked
    assert Path(found[number].files[0]).parent.name == "thick brain"
    (why,) = choice.why
    assert why == "chosen of 2 axial series of its study: soft kernel, 5 mm thick; not asked: sharp kernel (bone)"
    (other,) = choice.passed_over
    assert (other.by, other.reason) == (number, "sharp kernel (bone)")
    assert Path(found[other.number].files[0]).parent.name == "thin bone"
    out = {Path(item.file).parent.name: item.reason for item in found.left_out}
    assert "localizer" in out["localizer"]
    assert "not axial" in out["coronal"]


@pytest.mark.filterwarnings("ignore:these weights")
def test_the_reason_stands_in_the_tables_and_on_the_terminal(run: Path, tmp_path: Path) -> None:
    source = four_series(tmp_path / "study")
    arguments = ["predict", str(source), "--run", str(run), "-o", str(tmp_path / "p.csv")]
    done = CliRunner().invoke(main, [*arguments, "--report", str(tmp_path / "report")])
    assert done.exit_code == 0, done.output
    assert re.search(
        r"<li>not asked: 1 series: sharp kernel \(bone\)", (tmp_path / "report" / "index.html").read_text()
    )
    exams = pd.read_csv(tmp_path / "p-exams.csv")
    assert exams["n_slices"].tolist() == [30]
    assert exams["chosen"][0].startswith("chosen of 2 axial series of its study: soft kernel, 5 mm thick")
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("not asked")]
    assert str(source / "thin bone") in line
    assert "sharp kernel (bone); --all-series asks all" in line
    done = CliRunner().invoke(main, [*arguments, "--all-series"])
    exams = pd.read_csv(tmp_path / "p-exams.csv")
    assert (done.exit_code, sorted(exams["n_slices"])) == (0, [30, 150])
    assert set(exams["chosen"]) == {"all series of its study were asked for"}
    assert "not asked" not in done.stderr
    given = predict_scans(run, load_series(source), progress=False)
    assert sorted(given.exams["n_slices"]) == [30, 150]  # who names series has chosen
    assert "chosen" not in given.exams


@pytest.mark.parametrize(
    ("better", "worse", "reason"),
    [
        ({}, {"ContrastBolusAgent": "Iopamidol"}, "with contrast medium"),
        ({}, {"SeriesDescription": "CTA Head"}, "with contrast medium"),
        ({}, {"ConvolutionKernel": "BONEPLUS"}, "sharp kernel"),
        ({"ConvolutionKernel": "BONE"}, {"ImageType": ["DERIVED", "SECONDARY", "AXIAL", "CBF"]}, "no plain picture"),
        ({"ConvolutionKernel": "Hr68h"}, {"ConvolutionKernel": "FC21", "ContrastBolusAgent": "yes"}, "with contrast"),
        ({}, {"ConvolutionKernel": None}, "kernel not known"),
        ({}, {"SliceThickness": 10}, "thickness farther from the 2.5 to 6 mm .*: 10 mm, the other's 5 mm"),
        ({}, {"SliceThickness": 0.6}, "thickness farther .*: 0.6 mm, the other's 5 mm"),
        ({"SliceThickness": 4}, {"ImageType": ["DERIVED", "PRIMARY", "AXIAL"]}, "reformatted"),
        ({"SeriesNumber": 1}, {}, "higher series number"),
    ],
)  # fmt: skip
def test_what_makes_a_series_the_better_one(
    better: dict[str, Any], worse: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    stack(tmp_path, "a", 5, 30, **THICK | worse)
    stack(tmp_path, "b", 5, 30, **THICK | better)
    assert asked(tmp_path) == ["b"]
    (other,) = choose(load_series(tmp_path)).passed_over
    assert re.search(reason, other.reason)


def test_the_thickness_that_the_network_learned_on_decides(tmp_path: Path) -> None:
    stack(tmp_path, "five", 5, 30, **THICK)
    found = load_series(stack(tmp_path, "one", 1, 150, **THICK | {"SliceThickness": 1}))
    names = [[Path(found[k].files[0]).parent.name for k in choose(found, of).asked] for of in ((4, 6), (0.5, 1.5))]
    assert names == [["five"], ["one"]]


@pytest.mark.parametrize("worse", [{}, THIN, {"ContrastBolusAgent": "Iopamidol"}, {"ImageType": ["DERIVED", "MIP"]}])
def test_the_only_series_is_asked_whatever_it_is(worse: dict[str, Any], tmp_path: Path) -> None:
    found = load_series(stack(tmp_path, "only", 1, 20, **worse))
    assert choose(found) == ([0], ["the only axial series of its study"], [])


def test_what_no_better_series_shows_is_asked_too(tmp_path: Path) -> None:
    """The base in thin slices and the vertex in thick ones; a neck below the head; few slices again of a whole head."""
    stack(tmp_path / "parts", "vertex", 5, 20, 60, **THICK)
    stack(tmp_path / "parts", "base", 2.5, 24, **THICK)
    assert asked(tmp_path / "parts") == ["base", "vertex"]
    stack(tmp_path / "parts", "whole", 1, 160, **THIN)
    assert asked(tmp_path / "parts") == ["base", "vertex"]
    stack(tmp_path / "neck", "head", 5, 30, **THICK)
    stack(tmp_path / "neck", "neck", 3, 60, -160, **THIN)
    assert asked(tmp_path / "neck") == ["head", "neck"]
    stack(tmp_path / "again", "whole", 5, 30, **THICK | {"ConvolutionKernel": None})
    stack(tmp_path / "again", "few", 5, 4, 50, **THICK)
    assert asked(tmp_path / "again") == ["few", "whole"]


def test_an_angiography_from_the_arch_up_stands_behind_the_head(tmp_path: Path) -> None:
    stack(tmp_path, "head", 5, 30, 200, **THICK)
    stack(tmp_path, "angiography", 5, 72, ContrastBolusAgent="Iopamidol", **THICK)
    assert asked(tmp_path) == ["head"]


def test_other_frames_of_reference_patients_and_studies_are_other_scans(tmp_path: Path) -> None:
    stack(tmp_path, "a", 5, 10, FrameOfReferenceUID="1.2.3.7", **THICK)
    stack(tmp_path, "b", 5, 10, FrameOfReferenceUID="1.2.3.8", **THIN)
    assert asked(tmp_path) == ["a", "b"]
    stack(tmp_path, "c", 5, 10, **THIN)  # without one, it is taken to be in the same
    assert asked(tmp_path) == ["a", "b"]
    stack(tmp_path, "d", 5, 10, PatientID="P2", StudyInstanceUID="1.2.6", **THIN)
    stack(tmp_path, "e", 5, 10, StudyInstanceUID="1.2.5", **THIN)
    stack(tmp_path, "f", 5, 10, StudyInstanceUID=None, **THIN)
    stack(tmp_path, "g", 5, 10, StudyInstanceUID=None, **THIN)
    assert asked(tmp_path) == ["a", "b", "d", "e", "f", "g"]


def test_a_series_uid_for_each_slice_loses_no_slice(tmp_path: Path) -> None:
    """Put together where slices lie evenly, and else each asked."""
    for k in range(6):
        stack(tmp_path / "even", f"{k}", 5, 1, 5 * k, **THICK)
        stack(tmp_path / "uneven", f"{k}", 5, 1, [0, 4, 11, 13, 22, 24][k], **THICK)
    (series,) = load_series(tmp_path / "even")
    assert [Path(file).parent.name for file in series.files] == list("012345")
    assert asked(tmp_path / "uneven") == list("012345")


def test_without_positions_nothing_is_known_to_show_the_same(tmp_path: Path) -> None:
    bare = {"ImagePositionPatient": None}
    stack(tmp_path, "a", 5, 4, **THICK | bare, InstanceNumber=1)
    stack(tmp_path, "b", 5, 4, **THIN | bare, InstanceNumber=1)
    assert len(choose(load_series(tmp_path, order="file")).asked) == 2


def test_tilted_and_upright_slices_of_one_head_show_the_same(tmp_path: Path) -> None:
    c, s = np.cos(0.35), np.sin(0.35)
    stack(tmp_path, "upright", 1, 150, **THIN, PixelSpacing=[15, 15])
    (tmp_path / "tilted").mkdir()
    for k in range(30):  # the first pixels lie 100 mm before the middle of the head, and so lower by sin * 100
        changes = {"ImagePositionPatient": [-90, -120 * c, 5 * k - 120 * s], "SeriesInstanceUID": "1.2.9",
                   "ImageOrientationPatient": [1, 0, 0, 0, c, s], "PixelSpacing": [15, 15],
                   "SOPInstanceUID": f"1.2.9.{k}"}  # fmt: skip
        (tmp_path / "tilted" / f"{k}").write_bytes(dicom_bytes(ct_dataset(number=k, **THICK | changes)))
    assert asked(tmp_path) == ["tilted"]


def test_a_chosen_series_that_cannot_be_read_is_stood_in_for(tmp_path: Path) -> None:
    stack(tmp_path, "good", 5, 10, **THIN)
    stack(tmp_path, "chosen", 5, 10, **THICK)
    assert asked(tmp_path) == ["chosen"]
    model = Model("test_resnet", image_size=32, hidden_size=8)
    for file in (tmp_path / "chosen").iterdir():
        slice_ = pydicom.dcmread(file)
        slice_.file_meta.TransferSyntaxUID = pydicom.uid.JPEG2000Lossless
        slice_.PixelData = pydicom.encaps.encapsulate([b"no picture"])
        slice_["PixelData"].is_undefined_length = True
        slice_.save_as(file)
    assert asked(tmp_path) == ["chosen"]  # its headers are sound
    outcome = predict_scans(model, tmp_path, progress=False)
    assert {Path(file).parent.name for file in outcome.slices["file"]} == {"good"}
    assert outcome.exams["chosen"][0].startswith("a better series could not be predicted; ")
    assert (len(outcome.failed), outcome.not_asked) == (10, [])


def test_the_order_of_files_changes_no_choice(tmp_path: Path) -> None:
    source = four_series(tmp_path)
    folders = sorted(source.iterdir())
    one, other = (load_series(order) for order in (folders, folders[::-1]))
    assert [one[k].key for k in choose(one).asked] == [other[k].key for k in choose(other).asked]


@pytest.mark.parametrize(
    ("kernel", "marks"),
    [("H31s", SOFT), ("J40s", SOFT), ("HR38F\\3", SOFT), ("H60S", SHARP), ("BR69", SHARP), ("STANDARD", SOFT),
     ("SOFT", SOFT), ("STD+", SOFT), ("BONE", SHARP), ("BONEPLUS", SHARP), ("LUNG", SHARP), ("FC21", SOFT),
     ("FC68", SOFT), ("FC30", SHARP), ("FC81", SHARP), ("UB", SOFT), ("YB", SHARP), ("D", SHARP), ("", 0),
     ("DETAIL", 0), ("Q", 0)],
)  # fmt: skip
def test_kernels(kernel: str, marks: int) -> None:
    assert marks_of(kernel.upper().partition("\\")[0], "", [""]) == marks


@pytest.mark.parametrize(
    ("description", "kinds", "marks"),
    [
        ("HEAD BRAIN W/O", ["ORIGINAL", "PRIMARY", "AXIAL"], SOFT),
        ("BRAIN BONE WINDOW", ["ORIGINAL", "PRIMARY", "AXIAL"], SHARP),
        ("HEAD WITHOUT CONTRAST", ["ORIGINAL", "PRIMARY", "AXIAL"], 0),
        ("HEAD WITH CONTRAST", ["ORIGINAL", "PRIMARY", "AXIAL"], ENHANCED),
        ("CIRCLE OF WILLIS", ["ORIGINAL", "PRIMARY", "AXIAL"], ENHANCED),
        ("", ["DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE"], REFORMATTED),
        ("", ["DERIVED", "SECONDARY", "AXIAL", "CT_SOM5 MIP"], REFORMATTED | MAP),
        ("", ["DERIVED", "SECONDARY", "AXIAL", "PERFUSION", "CBF"], REFORMATTED | MAP),
        ("SIMPLE HEAD", [""], 0),
    ],
)
def test_descriptions_and_kinds(description: str, kinds: list[str], marks: int) -> None:
    assert marks_of("", description, kinds) == marks


@pytest.mark.parametrize(
    ("sound", "changed"),
    [({"SliceThickness": "12.345"}, b"thick "), ({"SliceThickness": "12.345"}, b"-5.345"),
     ({"SliceThickness": "12.345"}, b"nan   "), ({"SeriesNumber": "987654"}, b"two   "),
     ({"SeriesDescription": "x" * 5000}, b"x"), ({"FrameOfReferenceUID": "123.45"}, b"none\0\0"),
     ({"ConvolutionKernel": "H31s/3"}, b"H31s\\3")],
)  # fmt: skip
def test_nothing_of_it_is_a_reason_to_refuse_a_slice(sound: dict[str, Any], changed: bytes, tmp_path: Path) -> None:
    (value,) = sound.values()
    for path in write_series(tmp_path, **sound):
        path.write_bytes(path.read_bytes().replace(value.encode()[: len(changed)], changed))
    (series,) = load_series(tmp_path)
    assert len(series) == 5
    assert np.isnan(series.reconstruction.thickness_mm)
