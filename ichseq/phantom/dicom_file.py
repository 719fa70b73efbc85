"""One DICOM file a slice, with the few tags of the RSNA 2019 set and the phantoms' marker."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.config import IGNORE
from pydicom.dataelem import DataElement
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from ichseq.phantom.head import Array
from ichseq.phantom.scanner import Stack

MARKER = "ICHSEQ_PHANTOM"
"""ImplementationVersionName (0002,0013) of every phantom file, by which a reader knows that its bleeding is made up."""


class SliceWriter:
    """Writes a series' slices with the few tags of the RSNA 2019 set; what the slices share is encoded once."""

    def __init__(self, names: list[str], stack: Stack, *, unsigned: bool, padded: bool) -> None:
        """`names` are PatientID, StudyInstanceUID and SeriesInstanceUID; `padded` cuts the image to a circle."""
        self.unsigned = unsigned
        grid = (np.arange(stack.size) - (stack.size - 1) / 2) ** 2
        self.outside = grid[:, None] + grid[None, :] > (stack.size / 2) ** 2
        # Scanners that cut the image to a circle pad with a value of their own, which unsigned images can't hold.
        self.padding = -2000 if padded and not unsigned else None
        bits = 12 if unsigned else 16
        self.identity = _encode(
            (0x00080060, "CS", "CT"),
            (0x00100020, "LO", names[0]),
            (0x0020000D, "UI", names[1]),
            (0x0020000E, "UI", names[2]),
            (0x00200010, "SH", ""),
        )
        self.description = _encode(
            (0x00200037, "DS", [f"{v:.6f}" for v in (1, 0, 0, *stack.down_column)]),
            (0x00280002, "US", 1),
            (0x00280004, "CS", "MONOCHROME2"),
            (0x00280010, "US", stack.size),
            (0x00280011, "US", stack.size),
            (0x00280030, "DS", [f"{stack.pixel:.6f}"] * 2),
            (0x00280100, "US", 16),
            (0x00280101, "US", bits),
            (0x00280102, "US", bits - 1),
            (0x00280103, "US", int(not unsigned)),
            (0x00281050, "DS", "40"),
            (0x00281051, "DS", "80"),
            (0x00281052, "DS", "-1024"),
            (0x00281053, "DS", "1"),
        )

    def write(self, path: Path, sop: str, origin: NDArray[np.float64], hu: Array) -> None:
        """Write one slice: origin is ImagePositionPatient (mm), hu the image."""
        stored = np.clip(np.rint(hu), -1024, 3071) + 1024
        if self.padding is not None:
            stored[self.outside] = self.padding
        pixels = stored.astype("<u2" if self.unsigned else "<i2").tobytes()
        meta = _encode(
            (0x00020001, "OB", b"\0\1"),
            (0x00020002, "UI", CTImageStorage),
            (0x00020003, "UI", sop),
            (0x00020010, "UI", ExplicitVRLittleEndian),
            (0x00020012, "UI", "2.25.190267518246813577246920475823406921337"),
            (0x00020013, "SH", MARKER),
        )
        parts = (
            b"\0" * 128 + b"DICM",
            _encode((0x00020000, "UL", len(meta))),
            meta,
            _encode((0x00080018, "UI", sop)),
            self.identity,
            _encode((0x00200032, "DS", [f"{v:.6f}" for v in origin])),
            self.description,
            _encode((0x7FE00010, "OW", pixels)),
        )
        path.write_bytes(b"".join(parts))


def _encode(*elements: tuple[int, str, Any]) -> bytes:
    """Data elements (tag, VR, value) in explicit VR little endian.

    One by one and not through dcmwrite, which warns, with its value, of every UID that is none by the standard's rules.
    """
    file = DicomBytesIO()
    file.is_implicit_VR, file.is_little_endian = False, True
    for tag, vr, value in elements:
        write_data_element(file, DataElement(tag, vr, value, validation_mode=IGNORE))
    return file.getvalue()
