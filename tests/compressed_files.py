"""Frames of every codec that is read, made by the encoders that come with the decoders.

frame_of(syntax)     a frame of 48 x 36 pixels (or of those given), the pixels, and what the header says of them
"""

import io
from functools import cache

import numpy as np
import pydicom
import pytest
from dicom_files import ct_dataset, dicom_bytes
from PIL import Image
from pydicom.encaps import get_frame

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


def _by_gdcm(data: bytes) -> bytes:
    gdcm = pytest.importorskip("gdcm")
    import tempfile
    from pathlib import Path

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
