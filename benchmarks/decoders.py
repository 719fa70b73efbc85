"""What it costs to decode compressed slices in a process of its own, against decoding them in this one."""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import gdcm
import numpy as np
import psutil
from common import parser, phantoms, report

from ichseq.ct.archive import list_files
from ichseq.ct.codestream import Layout
from ichseq.ct.compressed import decoder_of, read_frame
from ichseq.ct.decoder_process import DecoderProcess, decode_here
from ichseq.ct.scan import scan_headers

CODECS = {
    "JPEG-LS": "JPEGLSLossless",
    "JPEG Lossless": "JPEGLosslessProcess14_1",
    "JPEG 2000": "JPEG2000Lossless",
}


def main() -> None:
    options = parser(__doc__, patients=6)
    options.add_argument("--slices", type=int, default=30)
    options.add_argument("--rounds", type=int, default=7)
    asked = options.parse_args()
    found = sorted(phantoms(asked.patients, asked.size).rglob("*.dcm"))[:: max(1, asked.patients)][: asked.slices]
    rows = [["codec", "plugin", "KB a slice", "here ms", "process ms", "ratio", "CPU here ms", "CPU process ms",
             "ratio of CPU", "start ms"]]  # fmt: skip
    for name, syntax in CODECS.items():
        rows.append([name, *measure(found, syntax, asked.rounds)])
    report("decoders", f"Decoding compressed slices of {asked.size} x {asked.size} in a process of its own", rows, [
        f"Median of {asked.rounds} rounds in turns over {asked.slices} slices. CPU: of this process and that one "
        "together, which a busy machine changes less than the time that a slice takes.",
    ])  # fmt: skip


def measure(paths: Sequence[Path], syntax: str, rounds: int) -> list[str]:
    frames = [frame_of(path, syntax) for path in paths]
    layout = frames[0][1]
    plugin = decoder_of(layout.syntax, layout.bits_stored)
    process = DecoderProcess()
    started = time.perf_counter()
    for frame, one in frames:  # the first one starts it
        assert bytes(process.decode(frame, one, plugin)) == decode_here(frame, one, plugin)
        started = started if frame is not frames[0][0] else time.perf_counter() - started
    ways: dict[str, Callable[..., object]] = {"here": decode_here, "process": process.decode}
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, run in ways.items():
            before = time.perf_counter(), cpu(process)
            for frame, one in frames:
                run(frame, one, plugin)
            after = time.perf_counter(), cpu(process)
            found[way].append(tuple(1000 * (b - a) / len(frames) for a, b in zip(before, after, strict=True)))
    process.close()
    (here, here_cpu), (there, there_cpu) = (
        [statistics.median(column) for column in zip(*found[way], strict=True)] for way in ways
    )
    size = np.mean([len(frame) for frame, _ in frames]) / 1000
    return [plugin, f"{size:.0f}", f"{here:.2f}", f"{there:.2f}", f"{there / here:.2f}", f"{here_cpu:.2f}",
            f"{there_cpu:.2f}", f"{there_cpu / here_cpu:.2f}", f"{1000 * started:.0f}"]  # fmt: skip


def cpu(process: DecoderProcess) -> float:
    """Seconds that this process and the other one have computed."""
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in (os.getpid(), process.pid) if pid)


def frame_of(path: Path, syntax: str) -> tuple[bytes, Layout]:
    """The slice's frame, compressed by gdcm."""
    with tempfile.TemporaryDirectory() as folder:
        packed = Path(folder) / "slice.dcm"
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(str(path))
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFileName(str(packed))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        headers = scan_headers(list_files(packed))
        image = headers.numbers[0]
        numbers = [int(image[name]) for name in ("rows", "columns", "bits_allocated", "bits_stored")]
        with packed.open("rb") as stream:
            frame = read_frame(stream, int(image["pixel_offset"]))
    return frame, Layout(headers.text("syntax", 0), *numbers, bool(image["signed"]))


if __name__ == "__main__":
    main()
