"""One DICOM file's header: what a CT slice needs, checked, as one flat record; or the reason for a refusal.

No tag that the RSNA 2019 slices lack is required.
"""

import math
import os
import re
from typing import Any, BinaryIO, Final, NamedTuple

import numpy as np

from ichseq.ct.compressed import find_fragments, missing_decoder
from ichseq.ct.elements import (
    BIG_ENDIAN,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    PIXEL_TAGS,
    UNDEFINED,
    Elements,
    Refused,
    floats_of,
    integer_of,
    quiet_pydicom,
    read_elements,
    read_meta,
    refuse,
    short_of,
    text_of,
)
from ichseq.ct.kinds import CT_IMAGE, MODALITY, MULTI_FRAME, what_else
from ichseq.ct.left_out import SliceError
from ichseq.ct.reconstruction import RECONSTRUCTION_FIELDS, reconstruction_of
from ichseq.ct.streams import MAX_IMAGE_BYTES, Inflated, size_of, unpacked
from ichseq.errors import ScanError

MAX_PIXELS: Final = 4096 * 4096
"""Most pixels of a slice; more are refused, whatever the file says."""

PHANTOM_MARK: Final = "ICHSEQ_PHANTOM"
"""ImplementationVersionName (0002,0013) in the file meta of a made-up scan."""

MIN_AXIAL: Final = 0.7
"""|n_z| below which a slice is no axial one: a localizer, a coronal or sagittal reformat."""

_MAX_INFLATED: Final = 4 * MAX_PIXELS + (16 << 20)  # the largest image that is taken, and 16 MB of header
NOTED_BY_PYDICOM, NO_END, PACKED = 1, 2, 64
"""Bits of `noted`: pydicom warned while reading; compressed pixel data without the mark of their end; the file is
packed by gzip, bzip2 or xz."""

IMAGE_DTYPE: Final = np.dtype(
    [
        ("rows", "i4"),
        ("columns", "i4"),
        ("bits_allocated", "u1"),
        ("bits_stored", "u1"),
        ("signed", "?"),
        ("big_endian", "?"),
        ("pixel_offset", "i8"),  # of the pixel data's value in the file (in the unpacked one, if deflated or packed)
        ("slope", "f8"),
        ("intercept", "f8"),
        ("padding_low", "i8"),  # stored values low..high are padding; low > high: none
        ("padding_high", "i8"),
        ("position", "f8", 3),  # mm; NaN where absent and not required
        ("orientation", "f8", 6),
        ("spacing", "f8", 2),  # mm between rows, between columns; NaN where absent
        ("instance", "i8"),  # NO_NUMBER where absent
        ("acquisition", "i8"),
        ("age_years", "f4"),  # -1 where absent
        ("contrast", "?"),  # a contrast medium is named
        ("phantom", "?"),
        ("noted", "u1"),  # NOTED_BY_PYDICOM, NO_END, PACKED and the bits of ichseq.ct.together, added up
        *RECONSTRUCTION_FIELDS,
    ]
)
"""The numbers of a slice that reading and ordering need: enough to read the pixels without the header."""


class Header(NamedTuple):
    """What a slice's header says; `numbers` has the fields of IMAGE_DTYPE in their order."""

    numbers: tuple[Any, ...]
    patient_id: str
    study_uid: str
    series_uid: str
    sop_uid: str
    kernel: str
    syntax: str


def read_header(stream: BinaryIO, name: str, *, size: int | None = None, need_position: bool = True) -> Header:
    """Read and check one file's header; its pixels are not read.

    Args:
        stream: the file, at its beginning; it may be packed by gzip, bzip2 or xz.
        name: the file's name, for messages.
        size: its length in bytes; None: found from the stream.
        need_position: whether position and orientation are required (they are not, if the user orders by number).

    Raises:
        SliceError: the file is no DICOM file, no CT slice, truncated, or lacks what Hounsfield units need.
    """
    try:
        file, stream = stream, unpacked(stream, name)
        if stream is not file:
            size = None if stream.read(1) else 0
            stream.seek(0)
        elif size is None:
            size = size_of(stream)
        if size == 0:  # what a broken copy leaves: no file is meant to be so
            raise Refused("is empty; get the file again", is_dicom=False)
        return _read(stream, name, size, need_position)
    except Refused as refused:
        raise SliceError(name, refused.reason, expected=refused.expected, is_dicom=refused.is_dicom) from None
    except SliceError:
        raise
    except ScanError as error:  # from a stream: damaged or endless compressed data
        raise SliceError(name, error.reason) from error
    except OSError as error:
        raise SliceError(name, f"cannot be read ({error.strerror or error})") from error
    except Exception as error:  # the parser fails in many ways on damaged bytes; whatever it is, this file is out
        raise SliceError(name, f"damaged header ({type(error).__name__} while parsing it)") from error


def _read(stream: BinaryIO, name: str, size: int | None, need_position: bool) -> Header:
    """`size` None: the file is packed, and its length not known."""
    with quiet_pydicom() as note:
        meta, syntax = read_meta(stream, MAX_IMAGE_BYTES if size is None else size)
        if text_of(meta, "MediaStorageSOPClassUID") == "1.2.840.10008.1.3.10":
            refuse("a DICOMDIR (a table of contents), not an image", expected=True)
        limit = size
        if syntax == DEFLATED:
            stream, limit = Inflated(stream, name, limit=_MAX_INFLATED), None  # type: ignore[assignment]
        syntax, element, dataset = read_elements(stream, syntax)
    _check_kind(dataset, meta)
    image = _check_image(dataset)
    pixel_offset, ended = _check_pixels(stream, element, syntax, image, limit)
    slope, intercept = _rescale(dataset)
    position, orientation, spacing = _geometry(dataset, need_position)
    sop_uid = text_of(dataset, "SOPInstanceUID") or text_of(meta, "MediaStorageSOPInstanceUID")
    series_uid = text_of(dataset, "SeriesInstanceUID")
    if not sop_uid or not series_uid:
        refuse(f"no {'SeriesInstanceUID' if sop_uid else 'SOPInstanceUID'} in the header")
    patient_id = text_of(dataset, "PatientID")
    numbers = (
        *image,
        syntax == BIG_ENDIAN,
        pixel_offset,
        slope,
        intercept,
        *_padding(dataset, bool(image[4]), image[2]),
        position,
        orientation,
        spacing,
        integer_of(dataset, "InstanceNumber"),
        integer_of(dataset, "AcquisitionNumber"),
        _age_years(text_of(dataset, "PatientAge")),
        _names_contrast(text_of(dataset, "ContrastBolusAgent")),
        text_of(meta, "ImplementationVersionName") == PHANTOM_MARK,
        NOTED_BY_PYDICOM * note.seen + NO_END * (not ended) + PACKED * (size is None),
        *reconstruction_of(dataset, patient_id),
    )
    uids = (patient_id, text_of(dataset, "StudyInstanceUID"), series_uid, sop_uid)
    return Header(numbers, *uids, text_of(dataset, "ConvolutionKernel"), syntax)


def _check_kind(dataset: Elements, meta: Elements) -> None:
    """Refuse what is no single-frame CT image: other modalities, reports, captures, localizers, multi-frame."""
    sop_class = text_of(dataset, "SOPClassUID") or text_of(meta, "MediaStorageSOPClassUID")
    modality = text_of(dataset, "Modality").upper()
    image_type = text_of(dataset, "ImageType").upper().split("\\")
    if sop_class != CT_IMAGE and (other := what_else(sop_class, has_rows=bool(short_of(dataset, "Rows")))):
        refuse(other, expected=True)
    if modality == "SR":
        refuse("a dose report or another structured report, not an image", expected=True)
    if modality and modality != "CT":
        refuse(f"modality {modality if MODALITY.fullmatch(modality) else 'unknown'}, not CT", expected=True)
    if not modality and sop_class not in (CT_IMAGE, *MULTI_FRAME):
        refuse("no Modality in the header, so not known to be CT")
    if "LOCALIZER" in image_type:
        refuse("a localizer (scout image), not an axial slice", expected=True)
    if "SCREEN SAVE" in image_type or "DOSE_INFO" in image_type:
        refuse("a screen capture (dose report), not a CT slice", expected=True)
    frames = text_of(dataset, "NumberOfFrames")
    if sop_class in MULTI_FRAME or frames not in ("", "1"):
        refuse("enhanced (multi-frame) CT, which is not read; convert it to single-frame CT first (dcm4che's emf2sf)")


def _check_image(dataset: Elements) -> tuple[int, int, int, int, bool]:
    """(rows, columns, bits allocated, bits stored, signed) of one grey image within the bounds."""
    samples, photometric = short_of(dataset, "SamplesPerPixel"), text_of(dataset, "PhotometricInterpretation")
    if samples not in (None, 1) or photometric not in ("", "MONOCHROME1", "MONOCHROME2"):
        refuse("a colour image (screen capture), not a CT slice", expected=True)
    found = {key: short_of(dataset, key) for key in ("Rows", "Columns", "BitsAllocated", "PixelRepresentation")}
    for key, value in found.items():
        if value is None:
            refuse(f"no {key} in the header (truncated, or not an image)")
    rows, columns, allocated, signed = (int(value or 0) for value in found.values())
    if not rows or not columns or rows * columns > MAX_PIXELS:
        refuse(f"{rows} x {columns} pixels; between 1 and {MAX_PIXELS} are read")
    stored, high = short_of(dataset, "BitsStored"), short_of(dataset, "HighBit")
    stored = allocated if stored is None else stored
    high = stored - 1 if high is None else high
    if allocated not in (8, 16, 32) or not 1 <= stored <= allocated or high != stored - 1 or signed > 1:
        refuse(f"pixel format not read ({stored} of {allocated} bits, high bit {high}, representation {signed})")
    return rows, columns, allocated, stored, bool(signed)


def _check_pixels(
    stream: BinaryIO,
    element: tuple[int, int, int] | None,
    syntax: str,
    image: tuple[int, int, int, int, bool],
    size: int | None,
) -> tuple[int, bool]:
    """Offset of the pixel data's value, and whether they end as they should; refuses what is absent, truncated, or
    without a decoder.

    `size` is the file's length; None where it is not known (deflated, packed): truncation then shows when it is read.
    """
    if element is None or element[2] == 0:
        refuse("no pixel data (truncated, or not an image)")
    tag, offset, length = element
    if tag != PIXEL_TAGS[0]:
        refuse("floating-point pixel data, which are not read; convert the file to integer CT")
    if syntax in (IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN):
        expected = image[0] * image[1] * image[2] // 8
        there = length if size is None else min(length, size - offset)
        if length == UNDEFINED:
            refuse("damaged: compressed pixel data under an uncompressed transfer syntax")
        if there < expected:
            refuse(f"truncated: {max(there, 0)} of {expected} bytes of pixel data; get the file again")
        if length >= 2 * expected:
            refuse(f"{length} bytes of pixel data, where one slice has {expected}: more than one frame")
        return offset, True
    if missing := missing_decoder(syntax, image[3]):
        refuse(missing)
    if length != UNDEFINED:
        refuse("damaged: pixel data are not encapsulated, though the transfer syntax is a compressed one")
    return offset, find_fragments(stream, offset, stream.seek(0, os.SEEK_END) if size is None else size).ended


def _rescale(dataset: Elements) -> tuple[float, float]:
    """Slope and intercept to Hounsfield units. Never guessed: 1024 HU would be at stake."""
    slope, intercept = (floats_of(dataset, name, 1) for name in ("RescaleSlope", "RescaleIntercept"))
    if slope is None or intercept is None:
        refuse(f"no {'RescaleSlope' if slope is None else 'RescaleIntercept'}, so no Hounsfield units")
    kind = text_of(dataset, "RescaleType").upper()
    if slope[0] == 0:
        refuse("RescaleSlope is 0, so no Hounsfield units")
    if kind not in ("", "HU", "HU_MOD", "US"):
        refuse("RescaleType is not HU (a material or energy map), so no Hounsfield units")
    return slope[0], intercept[0]


def _padding(dataset: Elements, signed: bool, allocated: int) -> tuple[int, int]:
    """Lowest and highest stored value that is padding (PS3.3 C.7.5.1.1.2); (0, -1) for none.

    The bytes are read in the pixels' own signedness, as some writers put a US where an SS belongs.
    """
    value = short_of(dataset, "PixelPaddingValue", signed=signed)
    if value is None or allocated > 16:
        return 0, -1
    limit = short_of(dataset, "PixelPaddingRangeLimit", signed=signed)
    return min(value, value if limit is None else limit), max(value, value if limit is None else limit)


def _age_years(text: str) -> float:
    """An age string (PS3.5 6.2: three digits and D, W, M or Y) in years; -1 for anything else."""
    found = re.fullmatch(r"(\d{1,3})([DWMY])", text.upper())
    return int(found[1]) / {"D": 365.25, "W": 52.18, "M": 12, "Y": 1}[found[2]] if found else -1


def _names_contrast(text: str) -> bool:
    """Whether a contrast medium is named; some scanners write that there was none."""
    return re.fullmatch(r"(NO|NONE|NIL|N|N/A|-*|0|W/O|WITHOUT|UNENHANCED)( .*)?", text.upper()) is None


def _geometry(dataset: Elements, required: bool) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
    """Position, orientation and spacing in mm; NaN for what is absent and not required.

    PixelSpacing is never required: neither order nor Hounsfield units need it.
    """
    names = (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6))
    position, orientation = (floats_of(dataset, name, count) for name, count in names)
    if required and (position is None or orientation is None):
        absent = names[0][0] if position is None else names[1][0]
        refuse(f"no {absent}, so no place in the series; predict --order instance (or file) reads it all the same")
    if orientation is not None:
        row, column = orientation[:3], orientation[3:]
        off_unit = max(abs(math.hypot(*row) - 1), abs(math.hypot(*column) - 1))
        if off_unit > 0.01 or abs(sum(a * b for a, b in zip(row, column, strict=True))) > 0.01:
            refuse("ImageOrientationPatient is not a pair of perpendicular unit vectors")
        if abs(row[0] * column[1] - row[1] * column[0]) < MIN_AXIAL:
            refuse("not axial (a localizer, or a coronal or sagittal image)", expected=True)
    spacing = floats_of(dataset, "PixelSpacing", 2)
    if spacing is not None and min(spacing) <= 0:
        refuse("PixelSpacing is not positive")
    return position or (math.nan,) * 3, orientation or (math.nan,) * 6, spacing or (math.nan,) * 2
