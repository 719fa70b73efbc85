"""Real DICOM bytes for tests, with the bare headers of the RSNA 2019 slices unless asked for others.

ct_dataset(...)     a pydicom data set of one slice; any tag can be changed, or removed with None
dicom_bytes(...)    a data set as the bytes of a file, in any transfer syntax that pydicom can write
write_series(...)   a folder of slices, one per position
"""

import copy
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

AXIAL = [1, 0, 0, 0, 1, 0]
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"


def ct_dataset(pixels: np.ndarray | None = None, *, number: int = 1, **changes: Any) -> Dataset:
    """One slice: 16 x 12 pixels (or those given, of any integer type), at z = 5 mm x number, intercept -1024.

    `changes` are DICOM keywords; a value of None removes the tag. Types follow `pixels`: signedness and allocated bits.
    """
    if pixels is None:
        pixels = np.random.default_rng(number).integers(0, 2000, (16, 12)).astype(np.int16)
    dataset = Dataset()
    tags: dict[str, Any] = {
        "SOPInstanceUID": f"1.2.3.4.5.{number}",
        "Modality": "CT",
        "PatientID": "P1",
        "StudyInstanceUID": "1.2.3.4",
        "SeriesInstanceUID": "1.2.3.4.5",
        "ImagePositionPatient": [-125, -125, 5 * number],
        "ImageOrientationPatient": AXIAL,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "PixelSpacing": [0.5, 0.5],
        "BitsAllocated": 8 * pixels.itemsize,
        "BitsStored": 8 * pixels.itemsize,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "WindowCenter": ["30", "40"],
        "RescaleIntercept": -1024,
        "RescaleSlope": 1,
        "PixelData": pixels.tobytes(),
        **changes,
    }
    tags.setdefault("HighBit", (tags["BitsStored"] or 16) - 1)
    with pydicom.config.disable_value_validation():
        for keyword, value in tags.items():
            if value is not None:
                setattr(dataset, keyword, value)
        if "PixelData" in dataset:
            dataset["PixelData"].VR = "OW"
    return dataset


def dicom_bytes(
    dataset: Dataset,
    *,
    syntax: str = ExplicitVRLittleEndian,
    sop_class: str = CT_IMAGE,
    implementation: str = "TEST",
    preamble: bool = True,
) -> bytes:
    """The data set as a file's bytes. A compressed `syntax` encodes the pixels; `preamble` False: the bare data set."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID") or "1.2"
    meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    meta.ImplementationClassUID = "1.2.3"
    meta.ImplementationVersionName = implementation
    stream = io.BytesIO()
    dataset = copy.deepcopy(dataset)
    with pydicom.config.disable_value_validation():
        if meta.TransferSyntaxUID.is_compressed and not meta.TransferSyntaxUID.is_deflated:
            meta.TransferSyntaxUID = ExplicitVRLittleEndian
            dataset.file_meta = meta
            dataset.compress(syntax, generate_instance_uid=False)
        if preamble:
            dataset.file_meta = meta
            pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
        else:
            implicit, little = meta.TransferSyntaxUID.is_implicit_VR, meta.TransferSyntaxUID.is_little_endian
            pydicom.dcmwrite(stream, dataset, implicit_vr=implicit, little_endian=little, enforce_file_format=False)
    return stream.getvalue()


def write_series(folder: Path, numbers: Iterable[int] = range(1, 6), **changes: Any) -> list[Path]:
    """Write a slice for each number, named so that the names' order is not the slices'. Returns the paths by number."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in numbers:
        path = folder / f"{number * 7919 % 1000:03d}_{number}"
        path.write_bytes(dicom_bytes(ct_dataset(number=number, **changes)))
        paths.append(path)
    return paths
