"""The process that decodes: the same pixels as in this one, and its death costs a frame."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import numpy as np
import psutil
import pytest
from compressed_files import BASELINE, JPEG2000, JPEG_LS, LOSSLESS, frame_of
from pydicom.pixels import get_decoder

from ichseq.ct.compressed import decoder_of
from ichseq.ct.decoder_process import DecoderProcess, decode, dtype_of
from ichseq.ct.elements import Refused

POSIX = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


@pytest.fixture
def process() -> Iterator[DecoderProcess]:
    made = DecoderProcess()
    yield made
    made.close()


def decoded(process: DecoderProcess, syntax: str, *, signed: bool = False, side: int = 0) -> np.ndarray:
    frame, _, layout = frame_of(syntax, side, signed=signed)
    data = process.decode(frame, layout, decoder_of(syntax, layout.bits_stored))
    return np.frombuffer(data, dtype_of(layout)).reshape(layout.rows, layout.columns)


def test_it_gives_the_pixels_whatever_plugin_is_asked_and_stays(process: DecoderProcess) -> None:
    assert process.pid is None
    pids = set()
    for syntax in (JPEG_LS, JPEG2000, LOSSLESS, BASELINE):
        for signed in {False, syntax != BASELINE}:
            frame, pixels, layout = frame_of(syntax, signed=signed)
            for plugin in get_decoder(syntax).available_plugins:
                data = process.decode(frame, layout, plugin)
                found = np.frombuffer(data, dtype_of(layout)).reshape(pixels.shape)
                assert np.abs(found.astype(int) - pixels).max() <= (20 if syntax == BASELINE else 0)
                pids.add(process.pid)
    assert len(pids) == 1
    assert None not in pids


def test_what_a_decoder_raises_is_refused_and_the_process_stays(process: DecoderProcess) -> None:
    decoded(process, JPEG_LS)
    pid = process.pid
    frame, pixels, layout = frame_of(JPEG_LS)
    with pytest.raises(Refused, match=r"cannot be decoded \(\w+Error\); get the file again"):
        process.decode(frame[:40] + bytes(40) + frame[80:], layout, "pyjpegls")
    assert np.array_equal(decoded(process, JPEG_LS), pixels)
    assert process.pid == pid


def test_a_frame_that_crashes_its_decoder_costs_that_frame() -> None:
    """In gdcm 3.2 both abort; should a later one raise, they are refused all the same."""
    without_table, other_rows = frame_of(LOSSLESS), frame_of(JPEG_LS)
    place = without_table[0].index(b"\xff\xc4")
    for frame, layout in (
        (without_table[0][:place] + bytes(2) + without_table[0][place + 2 :], without_table[2]),
        (other_rows[0], other_rows[2]._replace(rows=49)),
    ):
        with pytest.raises(
            Refused, match=r"crash the decoder \(gdcm, SIG\w+\); get the file|cannot be decoded \(\w+\)"
        ):
            decode(frame, layout, "gdcm")
        frame, pixels, layout = frame_of(LOSSLESS)
        assert decode(frame, layout, "gdcm") == pixels.tobytes()


@POSIX
def test_one_that_is_killed_is_replaced(process: DecoderProcess) -> None:
    _, pixels, _ = frame_of(JPEG_LS)
    decoded(process, JPEG_LS)
    first = process.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    while process.pid is not None:
        time.sleep(0.01)
    assert np.array_equal(decoded(process, JPEG_LS), pixels)
    assert process.pid not in (None, first)


@POSIX
def test_one_that_is_killed_at_work_costs_the_frame(process: DecoderProcess) -> None:
    decoded(process, JPEG_LS)
    pid = process.pid
    assert pid is not None
    large = frame_of(JPEG2000, 2048)  # takes its decoder a tenth of a second or more

    def kill() -> None:
        busy = psutil.Process(pid)
        before = sum(busy.cpu_times()[:2])
        while sum(busy.cpu_times()[:2]) < before + 0.03:
            time.sleep(0.001)
        os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(Refused, match=r"crash the decoder \(pylibjpeg, killed, or out of memory\)"):
        process.decode(large[0], large[2], "pylibjpeg")
    thread.join()
    assert np.array_equal(decoded(process, JPEG_LS), frame_of(JPEG_LS)[1])


def test_one_that_takes_too_long_is_replaced() -> None:
    frame, _, layout = frame_of(JPEG2000, 2048)
    process = DecoderProcess(seconds=0.01)
    with pytest.raises(Refused, match=r"keep the decoder \(pylibjpeg\) busy for more than 0.01 s"):
        process.decode(frame, layout, "pylibjpeg")
    assert process.pid is None
    process.close()


def test_threads_get_each_their_own_pixels() -> None:
    frames = [frame_of(JPEG_LS, side) for side in range(40, 60)] * 4
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda one: decode(one[0], one[2], "pyjpegls"), frames))
    assert [bytes(data) for data in found] == [pixels.tobytes() for _, pixels, _ in frames]


def _in_a_worker(frame: bytes, pixels: np.ndarray, layout: tuple) -> tuple[int, bool]:
    from ichseq.ct.codestream import Layout
    from ichseq.ct.decoder_process import decode

    return os.getpid(), decode(frame, Layout(*layout), "pyjpegls") == pixels.tobytes()


def test_workers_have_each_their_own() -> None:
    frame, pixels, layout = frame_of(JPEG_LS)
    found = joblib.Parallel(n_jobs=2)(joblib.delayed(_in_a_worker)(frame, pixels, tuple(layout)) for _ in range(8))
    assert all(same for _, same in found)
    assert os.getpid() not in {pid for pid, _ in found}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_fork_starts_its_own() -> None:
    frame, pixels, layout = frame_of(JPEG_LS)
    decode(frame, layout, "pyjpegls")
    pid = os.fork()
    if pid == 0:
        os._exit(0 if decode(frame, layout, "pyjpegls") == pixels.tobytes() else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert decode(frame, layout, "pyjpegls") == pixels.tobytes()


PARENT = """
import sys
from compressed_files import JPEG_LS, frame_of
from ichseq.ct import decoder_process
frame, _, layout = frame_of(JPEG_LS)
decoder_process.decode(frame, layout, "pyjpegls")
print(decoder_process._process.pid, flush=True)
sys.stdin.read()
"""


@POSIX
@pytest.mark.parametrize("how", ["killed", "ended"])
def test_it_ends_with_its_parent(how: str) -> None:
    command = [sys.executable, "-c", PARENT]
    places = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    parent = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": places}, text=True
    )
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    assert child.is_running()
    if how == "killed":
        parent.kill()
    parent.communicate()
    for _ in range(600):
        if not child.is_running() or child.status() == psutil.STATUS_ZOMBIE:
            break
        time.sleep(0.05)
    else:
        pytest.fail("it outlives its parent")


def test_it_writes_no_file_and_imports_nothing_from_where_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(3)")
    (tmp_path / "pydicom.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    process = DecoderProcess()
    assert np.array_equal(decoded(process, JPEG_LS), frame_of(JPEG_LS)[1])
    if sys.platform == "linux":
        import resource

        for kind in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE):
            assert resource.prlimit(process.pid, kind) == (0, 0)  # type: ignore[arg-type]
        assert 1 << 30 < resource.prlimit(process.pid, resource.RLIMIT_AS)[0] < 8 << 30  # type: ignore[arg-type]
    process.close()
    assert process.pid is None


def test_a_process_that_cannot_start_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    frame, _, layout = frame_of(JPEG_LS)
    with pytest.raises(Refused, match=r"cannot be started \(No such file or directory\); see to it and run it again"):
        DecoderProcess().decode(frame, layout, "pyjpegls")
