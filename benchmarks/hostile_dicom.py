"""Hostile cases of DICOM files: mutated headers, damaged compressed pixels, each file between two sound ones."""

import io
import random
import shutil
import zlib
from pathlib import Path

import numpy as np
import pydicom
from hostile_bytes import ANYHOW, ELEMENTS, Body, flipped, overwritten, parsed
from hostile_child import REFUSED, SILENT, TAKEN, Fault, rng_of, writing_only
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from ichseq import Model, api, load_series
from ichseq.ct.left_out import LeftOut
from ichseq.ct.plausible import Plausibility
from ichseq.phantom import write_phantoms

_SIZE, _OTHERS = 64, 2
NAME = "hostile"
_PLAIN = {"explicit": ExplicitVRLittleEndian, "implicit": ImplicitVRLittleEndian, "big-endian": ExplicitVRBigEndian,
          "deflated": DeflatedExplicitVRLittleEndian}  # fmt: skip
_PREDICTED_TOO, _PREPARED_TOO = 4, 20  # one case of so many goes through predict, and through prepare
SYNTAXES = {JPEGLSLossless: "jpeg-ls", JPEG2000Lossless: "jpeg-2000", RLELossless: "rle", JPEGLosslessSV1: "jpeg-sv1",
            JPEGLossless: "jpeg-lossless", JPEGBaseline8Bit: "jpeg-baseline"}  # fmt: skip


def small_network() -> Model:
    """A network that answers in milliseconds; what it answers does not matter."""
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = Model("test_resnet", image_size=32, hidden_size=8, pretrained=False)
    model.trained_on["slice_distance_mm"] = [4.0, 6.0]
    return model.eval()


def one_head(work: Path, seed: int) -> list[Path]:
    """The first slices of a phantom, from a folder of all."""
    write_phantoms(work / "raw", patients=1, test_patients=0, size=_SIZE, seed=seed, workers=1)
    found = sorted((work / "raw" / "stage_2_train").iterdir(), key=lambda path: _height(path))
    return found[len(found) // 2 :][: _OTHERS + 1]


def _height(path: Path) -> float:
    return float(pydicom.dcmread(path, stop_before_pixels=True).ImagePositionPatient[2])


class _Files:
    """Files among sound ones, read by predict, some by prepare too. The sound bases are tried first."""

    kind = ""

    def __init__(self, work: Path, seed: int) -> None:
        self.work, self.seed, self.model = work, seed, small_network()
        self.others = sorted((work / "sound").glob("other-*"))
        self.bases = sorted((work / "bases").iterdir())

    def check_bases(self) -> None:
        """See that what is damaged later is taken while it is sound; what is imported meanwhile is no case's memory."""
        for base in self.bases:
            if self.tried(base.read_bytes(), 0) != (TAKEN, True):
                raise SystemExit(f"{base.name} is refused while it is sound")

    def tried(self, content: bytes, number: int) -> tuple[str, bool]:
        """REFUSED where the file stands among those left out, TAKEN else; and whether it gave pixels or an answer."""
        place = self.work / "case"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.work / "sound", place / "in")
        (place / "in" / NAME).write_bytes(content)
        with writing_only(place / "out"):
            left_out, used = _read(place / "in")
            if number % _PREDICTED_TOO == 0:
                table = place / "out" / "table.csv"
                outcome = api.predict_scans(self.model, place / "in", out=table, all_series=True, progress=False)
                outcome.remarks()
                left_out, used = [*left_out, *outcome.left_out], [*used, *outcome.slices["file"]]
            if number % _PREPARED_TOO == 0:
                api.prepare(place / "in", place / "out" / "set", folds=1, workers=1, progress=False).text()
        refused = any(Path(item.file).name == NAME for item in left_out)
        return REFUSED if refused else TAKEN, any(Path(file).name == NAME for file in used)


def _read(folder: Path) -> tuple[list[LeftOut], list[str]]:
    """What is left out of a folder's series as predict reads them, and the files that gave pixels."""
    found = load_series(folder)
    left_out, used = list(found.left_out), list[str]()
    for series in found:
        looks = Plausibility(series, None)
        whole, unread = series.readable(looks.add)
        left_out += unread
        if whole is not None:
            used += whole.files
            repr([whole, whole.warnings, whole.key, looks.warnings()])
    return left_out, used


class Dicom(_Files):
    """Headers changed in every way that `hostile_bytes` knows."""

    ground = kind = "dicom"

    @staticmethod
    def make(work: Path, seed: int) -> None:
        for name in ("sound", "bases"):
            (work / name).mkdir()
        first, *others = one_head(work, seed)
        for k, path in enumerate(others):
            shutil.copy(path, work / "sound" / f"other-{k}")
        shutil.copy(first, work / "bases" / "bare")
        for name, syntax in _PLAIN.items():
            dataset = pydicom.dcmread(first)
            _fill(dataset)
            if syntax == ExplicitVRBigEndian:
                pixels = np.frombuffer(dataset.PixelData, "<u2").astype(">u2")
                dataset.PixelData = pixels.tobytes()
            dataset.file_meta.TransferSyntaxUID = syntax
            again = _copied(dataset)
            pydicom.dcmwrite(work / "bases" / name, again, implicit_vr=syntax == ImplicitVRLittleEndian,
                             little_endian=syntax != ExplicitVRBigEndian, enforce_file_format=True)  # fmt: skip
        again = _copied(pydicom.dcmread(first))
        again.file_meta = pydicom.dataset.FileMetaDataset()
        pydicom.dcmwrite(work / "bases" / "no-meta", again, implicit_vr=True, little_endian=True,
                         enforce_file_format=False)  # fmt: skip
        shutil.rmtree(work / "raw")

    def __init__(self, work: Path, seed: int) -> None:
        super().__init__(work, seed)
        self.parts = [_split(path) for path in self.bases]
        self.check_bases()

    def __call__(self, number: int) -> str:
        rng = rng_of(self.seed, self.kind, number)
        prefix, body, deflated = rng.choice(self.parts)
        data = body.data
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            if data is body.data and rng.random() < 0.65:
                data = rng.choice(ELEMENTS)(body, rng)
            else:
                pixels = len(body.data) - body.elements[-1].value  # most of the file; a change of them is no news
                head = max(1, len(data) - (pixels if rng.random() < 0.9 else 0))
                data = rng.choice(ANYHOW)(data[:head], rng) + data[head:]
        if deflated:
            data = _deflated(data)
        if rng.random() < 0.1:
            prefix = rng.choice(ANYHOW)(prefix, rng) if prefix else rng.randbytes(rng.choice((1, 128, 132)))
        if rng.random() < 0.05 and deflated:
            data = rng.choice(ANYHOW)(data, rng)
        return self.tried(prefix + data, number)[0]


def _fill(dataset: Dataset) -> None:
    """What scanners write and phantoms don't: text, a sequence, private elements, numbers, padding."""
    dataset.PatientName, dataset.PatientAge, dataset.ImageType = "Doe^J", "050Y", ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.SOPClassUID, dataset.SeriesDescription, dataset.SeriesNumber = "1.2.840.10008.5.1.4.1.1.2", "Head", 2
    dataset.ConvolutionKernel, dataset.SliceThickness, dataset.InstanceNumber = "H30s", "5.0", 7
    dataset.AcquisitionNumber, dataset.AcquisitionTime, dataset.ContentTime = 1, "101010", "101011"
    dataset.FrameOfReferenceUID, dataset.SpecificCharacterSet = "1.2.3.9", "ISO_IR 100"
    dataset.RescaleType, dataset.ContrastBolusAgent = "HU", ""
    dataset.PixelPaddingValue = -2000 if dataset.PixelRepresentation else 63536
    item = Dataset()
    item.ReferencedSOPInstanceUID, item.ReferencedSOPClassUID = "1.2.3.4", "1.2.3"
    dataset.ReferencedImageSequence = Sequence([item, item])
    block = dataset.private_block(0x0009, "MAKER", create=True)
    block.add_new(0x01, "LO", "private")
    block.add_new(0x02, "UN", b"\1\2\3\4")


def _copied(dataset: Dataset) -> Dataset:
    """The same elements in a data set that knows nothing of how it was read."""
    again = Dataset()
    for element in dataset:
        again.add(element)
    again.file_meta = dataset.file_meta
    return again


def _split(path: Path) -> tuple[bytes, Body, bool]:
    """What stands before a file's data set, the data set, unpacked, and whether it was packed."""
    data = path.read_bytes()
    if data[128:132] != b"DICM":
        return b"", parsed(data, implicit=True, little=True), False
    stream = io.BytesIO(data)
    syntax = pydicom.filereader.read_file_meta_info(path).TransferSyntaxUID
    pydicom.filereader.read_preamble(stream, False)
    pydicom.filereader._read_file_meta_info(stream)
    prefix, rest = data[: stream.tell()], data[stream.tell() :]
    deflated = syntax == DeflatedExplicitVRLittleEndian
    rest = zlib.decompress(rest, -zlib.MAX_WBITS) if deflated else rest
    return prefix, parsed(rest, implicit=syntax.is_implicit_VR, little=syntax.is_little_endian), deflated


def _deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


class Compressed(_Files):
    """Streams of every codec that something here encodes, damaged, or contradicting their headers."""

    ground = kind = "compressed"

    @staticmethod
    def make(work: Path, seed: int) -> None:
        for name in ("sound", "bases"):
            (work / name).mkdir()
        first, *others = one_head(work, seed)
        for k, path in enumerate(others):
            shutil.copy(path, work / "sound" / f"other-{k}")
        for syntax, name in SYNTAXES.items():
            dataset = pydicom.dcmread(first)
            # Of other height than width, so that the two can be told apart.
            stored = dataset.pixel_array[: _SIZE * 3 // 4].astype(np.uint16) & 0x0FFF
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
