"""The slices that results refer to: of their headers what results take over, checked and made clean.

Patient and study of a result are those of the exam, so their elements are taken as they are. What is not as the
standard wants it, a date that is none or a sex of another letter, is left empty: an archive might refuse the result.
"""

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID, CTImageStorage

from ichseq.ct.elements import quiet_pydicom
from ichseq.ct.series import Series
from ichseq.errors import ScanError

CHARACTER_SET: Final = "ISO_IR 192"
"""Results are written in UTF-8, whatever the exam's character set."""

_TEXTS: Final = {
    "PatientName": 64 * 5,
    "PatientID": 64,
    "IssuerOfPatientID": 64,
    "AccessionNumber": 16,
    "StudyID": 16,
    "ReferringPhysicianName": 64 * 5,
    "StudyDescription": 64,
    "Manufacturer": 64,
}
"""Texts and the most characters that the standard gives them (PS3.5, 6.2)."""

_REQUIRED: Final = ("PatientName", "PatientID", "AccessionNumber", "StudyID", "ReferringPhysicianName", "Manufacturer")
"""Of these, what is absent is written as empty (type 2)."""

_FORMS: Final = {
    "PatientBirthDate": r"\d{4}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])",
    "StudyDate": r"\d{4}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])",
    "StudyTime": r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?",
    "PatientSex": r"[MFO]",
}
_UIDS: Final = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the warnings and log lines of pydicom and of highdicom private: they print values of headers."""
    log = logging.getLogger("highdicom")
    level = log.level
    with quiet_pydicom():
        warnings.simplefilter("ignore")
        log.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            log.setLevel(level)


def reference(series: Series, number: int) -> Dataset:
    """What a result takes over from a slice, and how it refers to it.

    Raises:
        ScanError: the file can't be read again, or its UIDs are none, so that nothing can refer to it.
    """
    file = series.files[number]
    with quiet():
        try:
            with series.open_file(number) as stream:
                header = pydicom.dcmread(stream, stop_before_pixels=True, force=True)
                made = _taken(header)
        except OSError as error:
            raise ScanError(file, f"cannot be read again ({error.strerror or error})") from None
        except ScanError:
            raise
        except Exception as error:  # the parser fails in many ways on damaged bytes
            raise ScanError(file, f"its header cannot be read again ({type(error).__name__})") from None
    if not made.PatientID and series.patient_id:
        raise ScanError(
            file, "its PatientID is longer than 64 characters, or no text, so no result can be the patient's"
        )
    for keyword in _UIDS:
        if not UID(made[keyword].value).is_valid:
            raise ScanError(file, f"its {keyword} is no valid UID, so no DICOM result can refer to it")
    if made.SOPInstanceUID != series.sop_uids[number]:
        raise ScanError(file, "is another slice than the one that was predicted; leave the files as they are meanwhile")
    return made


def _taken(header: Dataset) -> Dataset:
    made = Dataset()
    made.SpecificCharacterSet = CHARACTER_SET
    meta = getattr(header, "file_meta", Dataset())
    for keyword, most in _TEXTS.items():
        text = _text(header, keyword)
        text = text if len(text) <= most else ""
        if text or keyword in _REQUIRED:
            setattr(made, keyword, text)
    for keyword, form in _FORMS.items():
        text = _text(header, keyword)
        setattr(made, keyword, text if re.fullmatch(form, text) else "")
    for keyword in _UIDS:
        setattr(made, keyword, _text(header, keyword))
    made.SOPInstanceUID = made.SOPInstanceUID or _text(meta, "MediaStorageSOPInstanceUID")
    made.SOPClassUID = _text(header, "SOPClassUID") or _text(meta, "MediaStorageSOPClassUID") or CTImageStorage
    made.Modality = "CT"
    made.Rows, made.Columns = int(header.Rows), int(header.Columns)
    return made


def _text(dataset: Dataset, keyword: str) -> str:
    """An element as one line of text; "" where it is absent, empty, several values, or no text."""
    value = dataset.get(keyword)
    text = "" if value is None else str(value).strip(" \0")
    return text if text.isprintable() and "\\" not in text and not isinstance(value, list) else ""
