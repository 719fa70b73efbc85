"""Key slices as pictures (Secondary Capture): the slice, and beside it the same with the heat map of what is found."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from highdicom.sc import SCImage
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

import ichseq
from ichseq.ct.series import Series
from ichseq.dicom_results.identity import NAME, Answerer
from ichseq.dicom_results.words import RESEARCH_ONLY, equipment
from ichseq.windows import WINDOWS

SIDE: Final = 512
"""Pixels of the longer side of a slice in the picture."""

_STRIP: Final = 52  # pixels above and below the slices, for two lines of text
_LINE: Final = 20
_WHITE: Final = (255, 255, 255)
_YELLOW: Final = (255, 220, 0)
_OPAQUE: Final = 0.55  # how much of the slice a map hides at its strongest place

Picture = NDArray[np.uint8]


def draw_capture(
    hu: NDArray[np.int16],
    heat: NDArray[np.float32] | None,
    *,
    above: Sequence[str],
    below: Sequence[str],
    aspect: float = 1.0,
) -> Picture:
    """The picture of a key slice, with what it shows burnt in and nothing of the patient.

    Args:
        hu: the slice, (rows, columns).
        heat: 0 to 1, of the same size; None: the second picture is left out.
        above: lines of text above the picture, below the notice that it is for research.
        below: lines of text below the picture.
        aspect: height of a pixel over its width.

    Returns:
        (rows, columns, 3), red, green and blue.
    """
    grey = _sized(_window(hu), aspect)
    panels = [np.repeat(grey[:, :, None], 3, axis=2)]
    if heat is not None:
        panels.append(_overlaid(panels[0], _sized(heat, aspect)))
    picture = np.concatenate(panels, axis=1)
    strip = np.zeros((_STRIP, picture.shape[1], 3), np.float32)
    whole = np.rint(np.concatenate([strip, picture, strip])).astype(np.uint8)
    _write_lines(whole, [(RESEARCH_ONLY, _YELLOW), *((line, _WHITE) for line in above)], 0)
    _write_lines(whole, [(line, _WHITE) for line in below], whole.shape[0] - _STRIP)
    return whole


def capture(picture: Picture, source: Dataset, series: Series, number: int, answerer: Answerer, place: int) -> SCImage:
    """A picture as a Secondary Capture of the exam's study.

    Args:
        picture: as `draw_capture` gives it.
        source: the slice, as `reference` gives it.
        series: the exam's.
        number: of the slice in the series.
        answerer: what answered.
        place: of the picture among those of the exam, from 1.
    """
    orientation = _directions(series.orientation)
    made = SCImage.from_ref_dataset(
        source,
        picture,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        series_instance_uid=answerer.uid_in(series, "capture series"),
        sop_instance_uid=answerer.uid_in(series, "capture", series.sop_uids[number]),
        instance_number=place,
        patient_orientation=orientation or ("L", "P"),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **equipment("captures"),
    )
    if orientation is None:
        made.PatientOrientation = []
    made.Laterality = ""
    made.ConversionType = "WSD"
    made.BurnedInAnnotation = "NO"  # none that tells who the patient is
    made.DerivationDescription = f"Key slice of {NAME} {ichseq.__version__}, brain window, with a heat map of evidence"
    made.ImageComments = RESEARCH_ONLY
    image = Dataset()
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    made.SourceImageSequence = [image]
    return made


def _window(hu: NDArray[np.int16]) -> NDArray[np.float32]:
    """0 to 255 in the brain window."""
    centre, width = WINDOWS["brain"]
    share = np.clip((hu.astype(np.float32) - (centre - width / 2)) / width, 0, 1)
    return np.asarray(255 * share, np.float32)


def _sized(image: NDArray[np.float32], aspect: float) -> NDArray[np.float32]:
    """An image whose longer side is `SIDE` pixels, with square pixels."""
    import cv2

    height, width = image.shape[0] * aspect, float(image.shape[1])
    scale = SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size, interpolation=how), np.float32)


def _overlaid(grey: NDArray[np.float32], heat: NDArray[np.float32]) -> NDArray[np.float32]:
    """A map over a slice: from a faint red to yellow."""
    share = np.clip(heat, 0, 1)[:, :, None]
    colour = np.concatenate([np.full_like(share, 255), 60 + 170 * share**1.5, np.zeros_like(share)], axis=2)
    hidden = _OPAQUE * share**2  # what is half as strong hides a quarter as much
    return np.asarray((1 - hidden) * grey + hidden * colour, np.float32)


def _write_lines(picture: Picture, lines: Sequence[tuple[str, tuple[int, int, int]]], top: int) -> None:
    import cv2

    for k, (line, colour) in enumerate(lines):
        place = (8, top + _LINE * (k + 1))
        cv2.putText(picture, line, place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, 1, cv2.LINE_AA)


def _directions(orientation: NDArray[np.float64]) -> tuple[str, str] | None:
    """Towards which part of the patient rows and columns run, by their main axes; None where it is not known."""
    if not np.isfinite(orientation).all():
        return None
    ends = (("L", "R"), ("P", "A"), ("H", "F"))
    main = [int(np.abs(one).argmax()) for one in (orientation[:3], orientation[3:])]
    signs = [orientation[axis + 3 * k] < 0 for k, axis in enumerate(main)]
    row, column = (ends[axis][int(sign)] for axis, sign in zip(main, signs, strict=True))
    return row, column
