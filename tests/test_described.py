"""How a series is called in its header: read in the file's character set, and never an error."""

import gzip
from pathlib import Path
from typing import Any

import pytest
from dicom_files import ct_dataset, dicom_bytes

from ichseq.ct.described import Described, described, manufacturer_of
from ichseq.ct.series import Series, load_series


def series(tmp_path: Path, *, syntax: str = "1.2.840.10008.1.2.1", **changes: Any) -> Series:
    (tmp_path / "slice").write_bytes(dicom_bytes(ct_dataset(**changes), syntax=syntax))
    return load_series(tmp_path)[0]


@pytest.mark.parametrize("syntax", [f"1.2.840.10008.1.2{end}" for end in ("", ".1", ".2", ".1.99", ".5")])
def test_what_the_header_says_in_any_syntax(tmp_path: Path, syntax: str) -> None:
    tags = {"SeriesDescription": "Head 5.0 ", "ConvolutionKernel": ["J40s", "3"], "AcquisitionDate": "20190301",
            "Manufacturer": "SIEMENS"}  # fmt: skip
    found = described(series(tmp_path, syntax=syntax, **tags, AcquisitionTime="123456.789"))
    assert found == Described("Head 5.0", "J40s\\3", "Siemens", "2019-03-01", "12:34:56")


@pytest.mark.parametrize(
    ("text", "manufacturer"),
    [
        ("GE MEDICAL SYSTEMS", "GE"),
        ("Siemens Healthineers", "Siemens"),
        ("  Philips  ", "Philips"),
        ("CANON_MEC", "Canon"),
        ("GE_MEDICAL_SYSTEMS", "GE"),
        ("TOSHIBA_MEC_CT3", "Canon"),
        ("TOSHIBA", "Canon"),
        ("UIH", "United Imaging"),
        ("General Hospital, J. Doe", "other"),
        ("Geneva", "other"),
        ("", ""),
    ],
)
def test_a_manufacturer_is_known_or_other_and_never_free_text(text: str, manufacturer: str) -> None:
    assert manufacturer_of(text) == manufacturer


def test_what_is_packed_is_described_too(tmp_path: Path) -> None:
    (tmp_path / "slice.gz").write_bytes(gzip.compress(dicom_bytes(ct_dataset(SeriesDescription="Head"))))
    assert described(load_series(tmp_path)[0]).description == "Head"


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"AcquisitionDateTime": "20190301123456.5+0100"}, ("2019-03-01", "12:34:56")),
        ({"AcquisitionDateTime": "2019"}, ("", "")),
        ({"AcquisitionDate": "2019.03.01", "AcquisitionTime": "12:34:56"}, ("2019-03-01", "12:34:56")),
        ({"AcquisitionDate": "yesterday", "AcquisitionTime": "noon"}, ("", "")),
        ({}, ("", "")),
    ],
)
@pytest.mark.filterwarnings("ignore")  # pydicom's, of the values that the test writes
def test_dates_and_times_in_all_their_forms(tmp_path: Path, tags: dict[str, str], expected: tuple[str, str]) -> None:
    found = described(series(tmp_path, **tags))
    assert (found.date, found.time) == expected


@pytest.mark.parametrize(
    ("charset", "text"),
    [("ISO_IR 100", "Schädel nativ"), ("ISO_IR 192", "头部 5.0"), ("ISO_IR 144", "Голова"), ("GB18030", "头部"),
     (["", "ISO 2022 IR 87"], "頭部"), ("ISO_IR 6", "plain")],
)  # fmt: skip
def test_letters_are_those_of_the_file_s_character_set(tmp_path: Path, charset: Any, text: str) -> None:
    assert described(series(tmp_path, SpecificCharacterSet=charset, SeriesDescription=text)).description == text


@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_read_is_empty_and_nothing_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    data = dicom_bytes(
        ct_dataset(SpecificCharacterSet="ISO_IR 100", SeriesDescription="SECRET \xe4", PatientName="SECRET")
    )
    (tmp_path / "slice").write_bytes(data.replace(b"ISO_IR 100", b"SECRETSECR"))
    (strange,) = load_series(tmp_path)
    assert described(strange).description in ("", "SECRET \xe4")
    (long,) = load_series(tmp_path)
    (tmp_path / "slice").write_bytes(b"another")
    assert described(long) == Described()
    assert described(series(tmp_path, SeriesDescription="x" * 2000)) == Described()
    assert "SECRET" not in "".join(capfd.readouterr()) + caplog.text
