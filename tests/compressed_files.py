"""Frames of every codec that is read, made by the encoders that come with the decoders.

frame_of(syntax)         a frame of 48 x 36 pixels, the pixels, and what the header says of them
file_of(frame, ...)      a data set as the bytes of a file, with the frame, or several pieces of it, as its pixels
crashing()               a frame of JPEG Lossless that ends the process of the decoder (gdcm 3.2), or that it refuses
"""

import io
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import ct_dataset, dicom_bytes
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import UID

from ichseq.ct.codestream import Layout

RLE = "1.2.840.10008.1.2.5"
JPEG_LS = "1.2.840.10008.1.2.4.80"
JPEG2000 = "1.2.840.10008.1.2.4.90"
LOSSLESS = "1.2.840.10008.1.2.4.70"
BASELINE = "1.2.840.10008.1.2.4.50"


@cache
def frame_of(syntax: str, side: int = 0, *, signed: bool = False) -> tuple[bytes, np.ndarray, Layout]:
    """A frame of 48 x 36 pixels of 12 bits (8 for BASELINE, 16 if signed), or of `side` x `side`."""
    shape = (side, side) if side else (48, 36)
    pixels = np.random.default_rng(0).integers(0, 4096, shape).astype(np.uint16)
    bits = 8 if syntax == BASELINE else 16 if signed else 12
    if syntax == BASELINE:
        pixels = np.linspace(0, 255, pixels.size).reshape(shape).astype(np.uint8)
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "JPEG", quality=95)
        frame = out.getvalue()
    else:
        pixels = pixels.astype(np.int16) - 2048 if signed else pixels
        data = dicom_bytes(ct_dataset(pixels, BitsStored=bits))
        if syntax == LOSSLESS:
            frame = _by_gdcm(data)
        else:
            data = dicom_bytes(ct_dataset(pixels, BitsStored=bits), syntax=syntax)
            frame = get_frame(pydicom.dcmread(io.BytesIO(data)).PixelData, 0, number_of_frames=1)
    return frame, pixels, Layout(syntax, *shape, 8 * pixels.itemsize, bits, signed)


def crashing() -> bytes:
    """The frame less the mark of its Huffman table."""
    frame, _, _ = frame_of(LOSSLESS)
    place = frame.index(b"\xff\xc4")
    return frame[:place] + bytes(2) + frame[place + 2 :]


def file_of(frame: bytes, dataset: Dataset, syntax: str, *, pieces: int = 1, table: bool = True) -> bytes:
    """The bytes of a file with this frame in `pieces` fragments, with or without a table of offsets."""
    file = pydicom.dcmread(io.BytesIO(dicom_bytes(dataset)))
    file.PixelData = encapsulate([frame], fragments_per_frame=pieces, has_bot=table)
    file["PixelData"].VR = "OB"
    file["PixelData"].is_undefined_length = True
    file.file_meta.TransferSyntaxUID = UID(syntax)
    out = io.BytesIO()
    file.save_as(out)
    return out.getvalue()


def _by_gdcm(data: bytes) -> bytes:
    gdcm = pytest.importorskip("gdcm")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(data)
        reader = gdcm.ImageReader()
        reader.SetFileName(str(path))
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFileName(str(path))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        return get_frame(pydicom.dcmread(path).PixelData, 0, number_of_frames=1)
