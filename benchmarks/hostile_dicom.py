"""Hostile cases of DICOM files: mutated headers, each file between two sound ones."""

import io
import shutil
import zlib
from pathlib import Path

import numpy as np
import pydicom
from hostile_bytes import ANYHOW, ELEMENTS, Body, parsed
from hostile_child import REFUSED, TAKEN, rng_of, writing_only
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from ichseq import Model, api, load_series
from ichseq.ct.left_out import LeftOut
from ichseq.ct.plausible import Plausibility
from ichseq.phantom import write_phantoms

SIZE, _OTHERS = 64, 2
NAME = "hostile"
_PLAIN = {"explicit": ExplicitVRLittleEndian, "implicit": ImplicitVRLittleEndian, "big-endian": ExplicitVRBigEndian,
          "deflated": DeflatedExplicitVRLittleEndian}  # fmt: skip
_PREDICTED_TOO, _PREPARED_TOO = 4, 20  # one case of so many goes through predict, and through prepare


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
    write_phantoms(work / "raw", patients=1, test_patients=0, size=SIZE, seed=seed, workers=1)
    found = sorted((work / "raw" / "stage_2_train").iterdir(), key=lambda path: _height(path))
    return found[len(found) // 2 :][: _OTHERS + 1]


def _height(path: Path) -> float:
    return float(pydicom.dcmread(path, stop_before_pixels=True).ImagePositionPatient[2])


class Files:
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


def begun(work: Path, seed: int) -> Path:
    """The folders of sound slices and of bases, made; gives the head's first slice, which the others stand beside."""
    for name in ("sound", "bases"):
        (work / name).mkdir()
    first, *others = one_head(work, seed)
    for k, path in enumerate(others):
        shutil.copy(path, work / "sound" / f"other-{k}")
    return first


class Dicom(Files):
    """Headers changed in every way that `hostile_bytes` knows."""

    ground = kind = "dicom"

    @staticmethod
    def make(work: Path, seed: int) -> None:
        first = begun(work, seed)
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
