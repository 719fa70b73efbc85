"""One file: Hounsfield units right to the unit, or a refusal that says why."""

import io
import logging
import random
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zlib

import numpy as np
import pydicom
import pytest
from dicom_files import CT_IMAGE, ct_dataset, dicom_bytes
from pydicom import uid

from ichseq.ct.dicom import IMAGE_DTYPE, read_header
from ichseq.ct.left_out import SliceError
from ichseq.ct.pixels import read_hu


def read(data: bytes, **options) -> np.ndarray:
    return read_with_flag(data, **options)[0]


def read_with_flag(data: bytes, **options) -> tuple[np.ndarray, bool]:
    header = read_header(io.BytesIO(data), "file", **options)
    image = np.array([header.numbers], IMAGE_DTYPE)[0]
    hu, repaired = read_hu(io.BytesIO(data), "file", image, header.syntax)
    assert hu.dtype == np.int16
    return hu, repaired


def reason(data: bytes, **options) -> str:
    with pytest.raises(SliceError) as caught:
        read(data, **options)
    assert str(caught.value) == f"file: {caught.value.reason}"
    return caught.value.reason


def grid(*values: int, dtype: str = "i2") -> np.ndarray:
    """A 16 x 12 image of the values, repeated."""
    return np.resize(np.array(values, dtype), (16, 12))


@pytest.mark.parametrize(
    ("dtype", "bits", "intercept", "stored"),
    [
        ("i2", 16, -1024, -2000),
        ("u2", 12, -1024, 0),
        ("i2", 12, 0, -1024),
        ("u2", 12, -1000, 4095),
        ("u2", 16, -1024, 0),
        ("u1", 8, -100, 255),
        ("i4", 32, 0, -900),
        ("u4", 20, -1024, 1000),
    ],
)
def test_hu_of_every_pixel_format(dtype, bits, intercept, stored):
    pixels = grid(stored, stored + 1 if stored < 255 else stored - 1, dtype=dtype)
    dataset = ct_dataset(pixels, BitsStored=bits, RescaleIntercept=intercept)
    for syntax in (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian):
        hu = read(dicom_bytes(dataset, syntax=syntax))
        np.testing.assert_array_equal(hu, pixels.astype(int) + intercept)


def test_big_endian():
    pixels = grid(1, 300, -5)
    dataset = ct_dataset(pixels, PixelPaddingValue=-5)
    dataset.PixelData = pixels.astype(">i2").tobytes()
    np.testing.assert_array_equal(
        read(dicom_bytes(dataset, syntax=uid.ExplicitVRBigEndian)), np.where(pixels == -5, -1024, pixels - 1024)
    )


def test_bits_above_the_stored_ones_are_ignored():
    wanted = grid(-1024, -1, 0, 2047)
    unextended = (wanted.view("u2") & 0x0FFF).view("i2")  # negative numbers of 12 bits, not carried to the 16th
    overlay = (wanted.view("u2") & 0x0FFF | 0x3000).view("i2")
    for pixels in (wanted, unextended, overlay):
        dataset = ct_dataset(pixels, BitsStored=12, RescaleIntercept=0)
        np.testing.assert_array_equal(read(dicom_bytes(dataset)), wanted)


def test_fractions_are_rounded_and_the_extremes_clipped():
    dataset = ct_dataset(grid(-32768, 3, 7, 32767), RescaleSlope="1.5", RescaleIntercept="-0.75")
    assert read(dicom_bytes(dataset))[0, :4].tolist() == [-32768, 4, 10, 32767]  # 3.75 and 9.75 between
    dataset = ct_dataset(grid(-32768, 3), RescaleSlope="1e30")
    assert read(dicom_bytes(dataset))[0, :2].tolist() == [-32768, 32767]


def test_padding_is_found_in_the_stored_values():
    """1500 + -3000 would be the padding's number after rescale: it must stay."""
    pixels = grid(-1500, 0, 1500)
    dataset = ct_dataset(pixels, PixelPaddingValue=-1500, RescaleIntercept=-3000)
    assert read(dicom_bytes(dataset))[0, :3].tolist() == [-1024, -3000, -1500]


@pytest.mark.parametrize(("low", "high"), [(-2000, -1500), (-1500, -2000)])
def test_padding_range(low, high):
    dataset = ct_dataset(
        grid(-2001, -2000, -1700, -1500, -1499), PixelPaddingValue=low, PixelPaddingRangeLimit=high, RescaleIntercept=0
    )
    assert read(dicom_bytes(dataset))[0, :5].tolist() == [-2001, -1024, -1024, -1024, -1499]


def test_padding_written_in_the_wrong_signedness():
    dataset = ct_dataset(grid(-2000, 5), RescaleIntercept=0)
    dataset.add_new(0x00280120, "US", 63536)
    assert read(dicom_bytes(dataset))[0, :2].tolist() == [-1024, 5]


def test_padding_that_needs_more_than_the_stored_bits():
    dataset = ct_dataset(grid(63536, 5, dtype="u2"), BitsStored=12, RescaleIntercept=-1024, PixelPaddingValue=63536)
    assert read(dicom_bytes(dataset))[0, :2].tolist() == [-1024, -1019]


def test_monochrome1_has_the_same_hu():
    one, two = (read(dicom_bytes(ct_dataset(PhotometricInterpretation=f"MONOCHROME{k}"))) for k in (1, 2))
    np.testing.assert_array_equal(one, two)


def wrapped(border: int) -> np.ndarray:
    pixels = grid(40, dtype="u2")
    pixels[[0, -1]] = pixels[:, [0, -1]] = border
    pixels[5, 5:8] = 3095, 3096, 4095
    return pixels


def test_wrapped_scan_is_repaired():
    hu, repaired = read_with_flag(dicom_bytes(ct_dataset(wrapped(3096), BitsStored=12, RescaleIntercept=0)))
    assert repaired
    assert (hu[0, 0], hu[8, 8], *hu[5, 5:8]) == (-1000, 40, 3095, -1000, -1)


@pytest.mark.parametrize(
    ("border", "changes"),
    [(0, {}), (3096, {"RescaleIntercept": -1024}), (3096, {"BitsStored": 16}), (2999, {})],
    ids=["metal in air", "usual intercept", "16 bits", "border not air"],
)
def test_real_metal_is_not_repaired(border, changes):
    changes = {"BitsStored": 12, "RescaleIntercept": 0, **changes}
    hu, repaired = read_with_flag(dicom_bytes(ct_dataset(wrapped(border), **changes)))
    assert not repaired
    np.testing.assert_array_equal(hu, wrapped(border).astype(int) + changes["RescaleIntercept"])


def test_padding_does_not_count_as_border():
    pixels = wrapped(3096)
    pixels[:, :5] = pixels[:, -5:] = 0
    dataset = ct_dataset(pixels, BitsStored=12, RescaleIntercept=0, PixelPaddingValue=0)
    hu, repaired = read_with_flag(dicom_bytes(dataset))
    assert repaired
    assert (hu[8, 0], hu[0, 6]) == (-1024, -1000)


REFUSALS = {
    "no slope": ({"RescaleSlope": None}, "no RescaleSlope, so no Hounsfield units"),
    "empty intercept": ({"RescaleIntercept": ""}, "no RescaleIntercept"),
    "infinite slope": ({"RescaleSlope": "inf"}, "RescaleSlope is not 1 finite number"),
    "nan intercept": ({"RescaleIntercept": "nan"}, "RescaleIntercept is not 1 finite number"),
    "slope 0": ({"RescaleSlope": 0}, "RescaleSlope is 0"),
    "not HU": ({"RescaleType": "Z_EFF"}, "RescaleType is not HU"),
    "no position": ({"ImagePositionPatient": None}, "no ImagePositionPatient, so no place in the series"),
    "nan position": ({"ImagePositionPatient": ["0", "nan", "0"]}, "ImagePositionPatient is not 3 finite numbers"),
    "short position": ({"ImagePositionPatient": [0, 0]}, "ImagePositionPatient is not 3 finite numbers"),
    "no orientation": ({"ImageOrientationPatient": None}, "no ImageOrientationPatient"),
    "zero orientation": ({"ImageOrientationPatient": [0] * 6}, "not a pair of perpendicular unit vectors"),
    "skewed": ({"ImageOrientationPatient": [1, 0, 0, 0.6, 0.8, 0]}, "not a pair of perpendicular unit vectors"),
    "sagittal": ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, "not axial"),
    "localizer": ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "a localizer"),
    "MR": ({"Modality": "MR"}, "modality MR, not CT"),
    "unknown modality": ({"Modality": "Jane Doe"}, "modality unknown, not CT"),
    "name for a modality": ({"Modality": "JANE"}, "modality unknown, not CT"),
    "no modality": ({"Modality": None}, "no Modality in the header"),
    "report": ({"Modality": "SR"}, "a dose report or another structured report"),
    "capture": ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "a secondary capture"),
    "dose screen": ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "a screen capture"),
    "colour": ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "a colour image"),
    "enhanced": ({"SOPClassUID": f"{CT_IMAGE}.1"}, "enhanced .multi-frame. CT, which is not read; convert"),
    "frames": ({"NumberOfFrames": 2}, "enhanced .multi-frame. CT"),
    "no rows": ({"Rows": None}, "no Rows in the header"),
    "no pixels wide": ({"Columns": 0}, "16 x 0 pixels; between 1 and"),
    "huge": ({"Rows": 65535, "Columns": 65535}, "65535 x 65535 pixels; between 1 and 16777216 are read"),
    "bits": ({"BitsStored": 17}, "pixel format not read .17 of 16 bits"),
    "high bit": ({"HighBit": 11}, "pixel format not read .16 of 16 bits, high bit 11"),
    "no pixel data": ({"PixelData": None}, "no pixel data"),
    "short pixel data": ({"PixelData": bytes(100)}, "truncated: 100 of 384 bytes of pixel data"),
    "more frames": ({"PixelData": bytes(384 * 3)}, "1152 bytes of pixel data, where one slice has 384"),
    "no SOP UID": ({"SOPInstanceUID": ""}, "no SOPInstanceUID"),
    "no series UID": ({"SeriesInstanceUID": None}, "no SeriesInstanceUID"),
    "spacing": ({"PixelSpacing": [0, 0.5]}, "PixelSpacing is not positive"),
    "long id": ({"PatientID": "x" * 5000}, "PatientID is 5000 bytes long, more than 1024"),
}  # fmt: skip
NO_SLICES = {"sagittal", "localizer", "MR", "unknown modality", "name for a modality", "report", "capture",
             "dose screen", "colour"}  # fmt: skip
"""What is rightly no slice of an axial series; every other refusal may mean that a slice is missing."""


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(name):
    changes, message = REFUSALS[name]
    sop_class = {"Modality": "1.2"} if changes.get("Modality", "") is None else {}
    data = dicom_bytes(ct_dataset(**changes), sop_class=sop_class.get("Modality", CT_IMAGE))
    if "SOPInstanceUID" in changes:  # the file meta would stand in for it
        data = dicom_bytes(ct_dataset(**changes), preamble=False)
    with pytest.raises(SliceError, match=message) as caught:
        read_header(io.BytesIO(data), "file")
    assert caught.value.expected == (name in NO_SLICES)


def test_the_refused_file_is_otherwise_good():
    """Else every refusal above would prove nothing."""
    read_header(io.BytesIO(dicom_bytes(ct_dataset())), "file")
    read_header(io.BytesIO(dicom_bytes(ct_dataset(), preamble=False)), "file")


def test_position_is_not_needed_where_the_user_orders_by_number():
    data = dicom_bytes(ct_dataset(ImagePositionPatient=None, ImageOrientationPatient=None))
    assert read(data, need_position=False).shape == (16, 12)


def test_directory_of_files_is_no_image():
    data = dicom_bytes(ct_dataset(), sop_class="1.2.840.10008.1.3.10")
    assert reason(data) == "a DICOMDIR (a table of contents), not an image"


def test_an_empty_file_is_a_broken_one():
    with pytest.raises(SliceError, match="file: is empty; get the file again") as caught:
        read_header(io.BytesIO(b""), "file")
    assert (caught.value.is_dicom, caught.value.expected) == (False, False)


@pytest.mark.parametrize("content", [b"ID,Label\n" * 50, bytes(5000), b"\x89PNG" + bytes(500)])
def test_other_files_are_no_dicom(content):
    with pytest.raises(SliceError, match="not a DICOM file") as caught:
        read_header(io.BytesIO(content), "file")
    assert (caught.value.is_dicom, caught.value.expected) == (False, True)


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian])
def test_bare_data_set_without_preamble(syntax):
    dataset = ct_dataset()
    wanted = read(dicom_bytes(dataset))
    np.testing.assert_array_equal(read(dicom_bytes(dataset, syntax=syntax, preamble=False)), wanted)


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian, uid.RLELossless])
def test_every_truncation_is_noticed(syntax):
    data = dicom_bytes(ct_dataset(), syntax=syntax)
    whole = len(data) - (8 if syntax == uid.RLELossless else 0)  # without the mark of their end, pixels are whole
    for length in range(0, whole - 1, 7):
        assert reason(data[:length])


def test_truncation_is_noticed_in_the_header_where_sizes_tell():
    data = dicom_bytes(ct_dataset())
    with pytest.raises(SliceError, match="truncated: 334 of 384 bytes"):
        read_header(io.BytesIO(data[:-50]), "file")


def test_deflated_file_that_grows_without_end_is_bounded():
    start = dicom_bytes(ct_dataset(), syntax=uid.DeflatedExplicitVRLittleEndian)
    meta = start[: 144 + struct.unpack("<L", start[140:144])[0]]
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    element = struct.pack("<HH2sHL", 0x0008, 0x0008, b"OB", 0, 1_000_000_000)
    bomb = packer.compress(element)
    for _ in range(60):
        bomb += packer.compress(bytes(10_000_000))
    tracemalloc.start()
    with pytest.raises(SliceError, match="unpacks to more than"):
        read_header(io.BytesIO(meta + bomb), "file")
    assert tracemalloc.get_traced_memory()[1] < 300_000_000
    tracemalloc.stop()


def real_slice() -> np.ndarray:
    x = np.random.default_rng(0).normal(0, 3, (64, 48))
    return (x.cumsum(0).cumsum(1) / 10).astype(np.int16)


@pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless], ids=lambda s: s.name)
@pytest.mark.parametrize(("signed", "bits"), [(True, 16), (False, 16), (False, 12), (True, 12)])
def test_compressed_files_hold_the_same_hu(syntax, signed, bits):
    pixels = np.clip(real_slice(), -2000, 2000)
    pixels = pixels if signed else (pixels + 2000).astype("u2")
    changes = {"BitsStored": bits, "PixelPaddingValue": int(pixels[0, 0])}
    wanted = read(dicom_bytes(ct_dataset(pixels, **changes)))
    data = dicom_bytes(ct_dataset(pixels, **changes), syntax=syntax)
    assert read_header(io.BytesIO(data), "file").syntax == syntax
    np.testing.assert_array_equal(read(data), wanted)


@pytest.mark.parametrize("signed", [True, False])
def test_jpeg_lossless_as_most_archives_write_it(tmp_path, signed):
    """Process 14, selection value 1; pydicom cannot encode it, so gdcm does."""
    gdcm = pytest.importorskip("gdcm", reason="gdcm encodes the file")
    pixels = real_slice() if signed else (real_slice() + 3000).astype("u2")
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    plain.write_bytes(dicom_bytes(ct_dataset(pixels, SOPClassUID=CT_IMAGE)))
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(plain))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(packed))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    assert read_header(io.BytesIO(packed.read_bytes()), "file").syntax == uid.JPEGLosslessSV1
    np.testing.assert_array_equal(read(packed.read_bytes()), read(plain.read_bytes()))


@pytest.mark.parametrize("syntax", [uid.JPEGLSLossless, uid.JPEG2000Lossless], ids=lambda s: s.name)
def test_damaged_compressed_pixels_are_a_refusal(syntax):
    data = dicom_bytes(ct_dataset(real_slice()), syntax=syntax)
    at = data.rindex(b"\xff\xd8" if syntax == uid.JPEGLSLossless else b"\xff\x4f")
    assert "compressed pixel data are not what" in reason(data[:at] + bytes(40) + data[at + 40 :])
    within = at + (60 if syntax == uid.JPEGLSLossless else 50)  # in the coded pixels; how JPEG 2000 has coded them
    assert "compressed pixel data cannot be decoded" in reason(data[:within] + b"\xee" * 6 + data[within + 6 :])


@pytest.mark.parametrize("syntax", [uid.JPEGLSLossless, uid.JPEG2000Lossless], ids=lambda s: s.name)
def test_without_decoders_the_error_names_syntax_and_command(tmp_path, syntax):
    path = tmp_path / "slice.dcm"
    path.write_bytes(dicom_bytes(ct_dataset(real_slice()), syntax=syntax))
    script = (
        "import sys\n"
        "for name in ('gdcm', 'jpeg_ls', 'openjpeg', 'libjpeg', 'pylibjpeg', 'PIL'):\n"
        "    sys.modules[name] = None\n"
        "import ichseq\n"
        f"ichseq.load_series({str(path)!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert f"compressed as {syntax.name} ({syntax}), and no decoder is installed" in done.stderr
    assert "pip install 'ichseq[decoders]'" in done.stderr


def test_an_unknown_transfer_syntax_is_named():
    data = dicom_bytes(ct_dataset()).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.9.9.9\0")
    assert "transfer syntax 1.2.840.10008.9.9.9 is not one that is read" in reason(data)


def test_no_value_of_a_header_reaches_a_log(caplog, recwarn):
    secret = "Jane-Doe-1970"
    changes = {name: f"ID_{secret}" for name in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")}
    dataset = ct_dataset(**changes, SpecificCharacterSet=secret, StudyTime=secret)
    private = dataset.private_block(0x0009, secret, create=True)
    for number, vr in enumerate(("LO", "UI", "DS", "UN")):
        private.add_new(number, vr, secret.encode() if vr == "UN" else f"9{secret}" if vr != "DS" else "1" * 17)
    data = dicom_bytes(dataset)
    caplog.clear()  # what pydicom logged while it wrote them
    recwarn.clear()
    with caplog.at_level(logging.DEBUG):
        header = read_header(io.BytesIO(data), "file")
    assert header.sop_uid == f"ID_{secret}"
    assert not caplog.records
    assert not recwarn.list
    noted = dict(zip(IMAGE_DTYPE.names, header.numbers, strict=True))["noted"]
    assert noted  # pydicom doubted the character set: noted, without the value
    with pytest.warns(UserWarning, match=secret):  # and outside of the reader its warnings are as they were
        str(pydicom.dcmread(io.BytesIO(data)))


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")  # while writing it
def test_an_invalid_uid_alone_is_nothing_to_note():
    header = read_header(io.BytesIO(dicom_bytes(ct_dataset(SOPInstanceUID="ID_0"))), "file")
    assert not dict(zip(IMAGE_DTYPE.names, header.numbers, strict=True))["noted"]


def test_the_fewest_tags_are_enough():
    """The RSNA headers have no number, thickness, class or type; StudyID and the rest of the identity may lack too."""
    data = dicom_bytes(ct_dataset(PatientID=None, StudyInstanceUID=None, PixelSpacing=None, WindowCenter=None))
    header = read_header(io.BytesIO(data), "file")
    assert (header.patient_id, header.study_uid) == ("", "")
    assert np.isnan(dict(zip(IMAGE_DTYPE.names, header.numbers, strict=True))["spacing"]).all()


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.RLELossless])
def test_random_damage_is_read_or_refused_never_worse(syntax, caplog):
    rng = random.Random(0)
    good = dicom_bytes(ct_dataset(), syntax=syntax)
    refused = 0
    caplog.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(400):
            data = bytearray(good)
            for _ in range(rng.randrange(1, 6)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            try:
                read(bytes(data))
            except SliceError:
                refused += 1
    assert 0 < refused < 400
    assert not caplog.records


def test_same_hu_as_pydicom_on_a_real_slice(head_ct):
    path = head_ct / "10.dcm"
    dataset = pydicom.dcmread(path)
    stored = dataset.pixel_array.astype(int)
    hu = read(path.read_bytes())
    np.testing.assert_array_equal(hu, np.where(stored == -1500, -1024, stored))
    assert (stored == -1500).any()
