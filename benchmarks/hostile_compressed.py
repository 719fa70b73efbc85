"""Hostile cases of compressed pixels: streams that are damaged, or that their headers contradict."""

import io
import random
import shutil
from pathlib import Path

import numpy as np
import pydicom
from hostile_bytes import flipped, overwritten
from hostile_child import SILENT, Fault, rng_of
from hostile_dicom import SIZE, Files, begun
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

SYNTAXES = {JPEGLSLossless: "jpeg-ls", JPEG2000Lossless: "jpeg-2000", RLELossless: "rle", JPEGLosslessSV1: "jpeg-sv1",
            JPEGLossless: "jpeg-lossless", JPEGBaseline8Bit: "jpeg-baseline"}  # fmt: skip


class Compressed(Files):
    """Streams of every codec that something here encodes, damaged, or contradicting their headers."""

    ground = kind = "compressed"

    @staticmethod
    def make(work: Path, seed: int) -> None:
        first = begun(work, seed)
        for syntax, name in SYNTAXES.items():
            dataset = pydicom.dcmread(first)
            # Higher than wide or the other way round, so that a swap shows.
            stored = dataset.pixel_array[: SIZE * 3 // 4].astype(np.uint16) & 0x0FFF
            if frame := _encoded(dataset, stored, syntax):
                dataset.PixelData = encapsulate([frame])
                dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
                dataset.file_meta.TransferSyntaxUID = syntax
                dataset.save_as(work / "bases" / name)
        shutil.rmtree(work / "raw")

    def __init__(self, work: Path, seed: int) -> None:
        super().__init__(work, seed)
        self.sound = [pydicom.dcmread(path) for path in self.bases]
        self.frames = [next(generate_frames(one.PixelData, number_of_frames=1)) for one in self.sound]
        self.check_bases()

    def __call__(self, number: int) -> str:
        rng = rng_of(self.seed, self.kind, number)
        k = number % len(self.bases)
        dataset, frame = pydicom.dcmread(self.bases[k]), self.frames[k]
        damage = rng.choice((_flip, _flip_head, _overwrite, _cut, _lie, _lie, _fragments, None))
        pixels = encapsulate([rng.choice(self.frames)]) if damage is None else damage(dataset, frame, rng)
        dataset.PixelData = pixels
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
        stream = io.BytesIO()
        dataset.save_as(stream)
        content = stream.getvalue()
        if damage is _fragments:
            start = content.find(pixels[:8], len(content) - len(pixels) - 64)
            content = content[:start] + flipped(content[start : start + 40], rng) + content[start + 40 :]
        how, used = self.tried(content, number // len(self.bases))
        if damage is _lie and used:
            header = f"{dataset.Rows} x {dataset.Columns}"
            raise Fault(SILENT, f"{self.bases[k].name}: the header says {header}, the stream does not, and it is used")
        return how


def _encoded(dataset: Dataset, stored: np.ndarray, syntax: pydicom.uid.UID) -> bytes:
    """A slice as a stream of a codec, its header changed to fit; nothing where no encoder is there."""
    rows, columns = stored.shape
    dataset.Rows, dataset.Columns, dataset.PixelRepresentation = rows, columns, 0
    dataset.BitsStored, dataset.HighBit = 12, 11
    dataset.pop("PixelPaddingValue", None)
    dataset.PixelData = stored.tobytes()
    if syntax == JPEGBaseline8Bit:
        from PIL import Image

        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
        dataset.RescaleSlope = 16
        stream = io.BytesIO()
        Image.fromarray((stored >> 4).astype(np.uint8)).save(stream, "JPEG", quality=90)
        return stream.getvalue()
    if syntax in (JPEGLossless, JPEGLosslessSV1):
        return _by_gdcm(dataset, syntax)
    dataset.compress(syntax, generate_instance_uid=False)
    return next(generate_frames(dataset.PixelData, number_of_frames=1))


def _by_gdcm(dataset: Dataset, syntax: pydicom.uid.UID) -> bytes:
    try:
        import gdcm
    except ImportError:
        return b""
    fits = {JPEGLossless: gdcm.TransferSyntax.JPEGLosslessProcess14,
            JPEGLosslessSV1: gdcm.TransferSyntax.JPEGLosslessProcess14_1}  # fmt: skip
    place = Path(str(dataset.filename)).with_name("to-encode")
    dataset.save_as(place)
    reader = gdcm.ImageReader()
    reader.SetFileName(str(place))
    change = gdcm.ImageChangeTransferSyntax()
    if not reader.Read():
        return b""
    change.SetTransferSyntax(gdcm.TransferSyntax(fits[syntax]))
    change.SetInput(reader.GetImage())
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(place))
    if not change.Change():
        return b""
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    if not writer.Write():
        return b""
    frame = next(generate_frames(pydicom.dcmread(place).PixelData, number_of_frames=1))
    place.unlink()
    return frame


def _flip(dataset: Dataset, frame: bytes, rng: random.Random) -> bytes:
    return encapsulate([flipped(frame, rng, most=20)])


def _flip_head(dataset: Dataset, frame: bytes, rng: random.Random) -> bytes:
    """In the first bytes, where a stream says what it is."""
    return encapsulate([flipped(frame[:100], rng, most=3) + frame[100:]])


def _overwrite(dataset: Dataset, frame: bytes, rng: random.Random) -> bytes:
    return encapsulate([overwritten(frame, rng)])


def _cut(dataset: Dataset, frame: bytes, rng: random.Random) -> bytes:
    return encapsulate([frame[: rng.randrange(1, len(frame))]])


def _fragments(dataset: Dataset, frame: bytes, rng: random.Random) -> bytes:
    """In several pieces, the items' heads changed afterwards."""
    return encapsulate([frame], fragments_per_frame=rng.choice((1, 2, 5)))


def _lie(dataset: Dataset, frame: bytes, rng: random.Random) -> bytes:
    """The header says other rows or columns than the stream."""
    name = rng.choice(("Rows", "Columns"))
    was = int(dataset[name].value)
    dataset[name].value = rng.choice([n for n in (1, was // 2, was - 1, was + 1, 2 * was, 2048) if n != was])
    return encapsulate([frame])
