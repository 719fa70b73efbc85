"""Decoding by libraries in C, in a process of its own: a frame that crashes one costs that frame alone.

    pixels = decode(frame, layout, decoder_of(layout.syntax, layout.bits_stored))

The process starts with the first frame that needs it and stays; one that crashes, or takes too long, is replaced. It
ends with this process. What it gets is a line of JSON and the frame's bytes, what it gives "ok" and the pixels' bytes,
or the kind of the error; none of it is a pickle.

It contains faults, not attacks: it may do what this process may, but for files, of which it can write none.
"""

import atexit
import faulthandler
import json
import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from io import FileIO, RawIOBase
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder

from ichseq.ct.codestream import Layout
from ichseq.ct.elements import quiet_pydicom, refuse
from ichseq.workers import end_with

SECONDS: Final = 60.0
"""Longest that a frame may take; the largest that are read take a few seconds."""

_MEMORY: Final = 1 << 30  # bytes that decoding may take; the largest image is 64 MB
_LATE: Final = 1  # exit code of a process that took too long
_ENDING: Final = 5.0  # seconds that a process has to end whose pipe is closed
_ANSWER: Final = 80  # bytes that a line of an answer has at most
_RAISED: Final = "compressed pixel data cannot be decoded ({}); get the file again"
_NO_PROCESS: Final = "the process that decodes compressed pixel data cannot be started ({}); see to it and run it again"
_PIPE: Final = 1 << 20  # bytes, the most that Linux gives
_READY: Final = b"ready\n"
_MAIN: Final = "import sys; sys.path[:] = sys.argv[2:]; from ichseq.ct.decoder_process import _serve; _serve()"


def dtype_of(layout: Layout) -> np.dtype:
    """Type of the decoded pixels."""
    return np.dtype(f"{'i' if layout.signed else 'u'}{layout.bits_allocated // 8}")


def decode(frame: bytes, layout: Layout, plugin: str) -> bytes | bytearray:
    """Decode a frame, in the process if the plugin is one in C.

    Args:
        frame: checked by `ichseq.ct.codestream.check_frame`.
        layout: what the header says of it.
        plugin: pydicom's name of the one to ask.

    Returns:
        The pixels, row after row, of `dtype_of(layout)`.

    Raises:
        Refused: the frame is damaged.
    """
    if plugin != "pydicom":  # that one is Python and can only raise
        return _process.decode(frame, layout, plugin)
    try:
        with quiet_pydicom():
            return decode_here(frame, layout, plugin)
    except Exception as error:  # damaged data raise anything
        refuse(_RAISED.format(type(error).__name__))


class DecoderProcess:
    """The process; threads take turns.

    Args:
        seconds: longest that a frame may take.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Of the process, if it runs."""
        return self._child.pid if self._child is not None and self._child.poll() is None else None

    def decode(self, frame: bytes, layout: Layout, plugin: str) -> bytearray:
        """As the function `decode`, whatever the plugin."""
        with self._lock:
            if self.pid is None:
                self.close()
                self._child = _start()
            child = self._child
            assert child is not None
            try:
                error, pixels = _ask(child, frame, layout, plugin, self._seconds)
                if pixels is None and not error:
                    child.wait(_ENDING)  # it has closed its pipe
            except BaseException:  # Ctrl-C too: the answer to this frame would be taken for the next one's
                self.close()
                raise
            if pixels is not None:
                return pixels
            if error:
                refuse(_RAISED.format(error if re.fullmatch(r"\w{1,60}", error) else "unknown"))
            self.close()
            if child.returncode == _LATE:
                refuse(f"its compressed pixel data keep the decoder ({plugin}) busy for more than {self._seconds:g} s")
            refuse(f"its compressed pixel data crash the decoder ({plugin}, {_end_of(child)}); get the file again")

    def close(self) -> None:
        """End the process; the next frame starts another one."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            for stream in _pipes(child):
                stream.close()


_process = DecoderProcess()
atexit.register(lambda: _process.close())


def _of_a_fork() -> None:
    global _process  # what it started answers it alone, and another thread may have had the lock
    _process = DecoderProcess()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_of_a_fork)


def _start() -> "subprocess.Popen[bytes]":
    """Start the process; it imports from where this one does, and not from the folder that it stands in."""
    options = ("-I" if sys.flags.isolated else "-P", f"-Xutf8={sys.flags.utf8_mode}", "-c", _MAIN)
    apart = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0) | getattr(subprocess, "CREATE_NO_WINDOW", 0)
    try:
        child = subprocess.Popen(
            [sys.executable, *options, str(os.getpid()), *map(str, sys.path)],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # each thread would count as memory
            start_new_session=True,  # Ctrl-C is for this process, which may have a slice to finish
            creationflags=apart,
        )
    except OSError as error:
        refuse(_NO_PROCESS.format(error.strerror or error))
    with suppress(ImportError, AttributeError, OSError):  # Linux: an answer in one go, not in eight
        from fcntl import F_SETPIPE_SZ, fcntl

        for pipe in _pipes(child):
            fcntl(pipe.fileno(), F_SETPIPE_SZ, _PIPE)
    if _pipes(child)[1].read(len(_READY)) != _READY:
        refuse(_NO_PROCESS.format(f"exit code {child.wait()}"))
    return child


def _end_of(child: "subprocess.Popen[bytes]") -> str:
    code = child.returncode
    name = next((one.name for one in signal.Signals if one == -code), "")
    return "killed, or out of memory" if name == "SIGKILL" else name or f"exit code {code}"


def _ask(
    child: "subprocess.Popen[bytes]", frame: bytes, layout: Layout, plugin: str, seconds: float
) -> tuple[str, bytearray | None]:
    """The kind of the error, or the pixels; neither where the process has ended."""
    requests, answers = _pipes(child)
    head = json.dumps({"layout": layout, "plugin": plugin, "seconds": seconds, "size": len(frame)})
    try:
        for data in (f"{head}\n".encode(), frame):
            _send(requests, data)
        answer = bytearray()
        while not answer.endswith(b"\n") and len(answer) < _ANSWER:
            byte = answers.read(1)
            if not byte:
                return "", None
            answer += byte
        if answer != b"ok\n":
            return answer.decode("ascii", "replace").strip() or "unknown", None
        return "", _receive(answers, layout.rows * layout.columns * dtype_of(layout).itemsize)
    except OSError:  # the pipe is broken
        return "", None


def _pipes(child: "subprocess.Popen[bytes]") -> tuple[RawIOBase, RawIOBase]:
    """Where it is asked, and where it answers; without buffers, in which half a frame could stay."""
    assert isinstance(child.stdin, RawIOBase)
    assert isinstance(child.stdout, RawIOBase)
    return child.stdin, child.stdout


def _send(stream: RawIOBase, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[stream.write(left) or 0 :]


def _receive(stream: RawIOBase, size: int) -> bytearray | None:
    data = bytearray(size)
    left = memoryview(data)
    while left:
        count = stream.readinto(left)
        if not count:
            return None
        left = left[count:]
    return data


# What runs in the process.


def decode_here(frame: bytes, layout: Layout, plugin: str) -> bytes:
    """Decode a frame in this process, whatever the plugin does to it; raises anything."""
    options: dict[str, Any] = {
        "rows": layout.rows,
        "columns": layout.columns,
        "number_of_frames": 1,
        "samples_per_pixel": 1,
        "photometric_interpretation": "MONOCHROME2",
        "bits_allocated": layout.bits_allocated,
        "bits_stored": layout.bits_stored,
        "pixel_representation": int(layout.signed),
        "pixel_keyword": "PixelData",
    }
    decoder = get_decoder(layout.syntax)
    pixels, _ = decoder.as_array(encapsulate([frame]), index=0, raw=True, decoding_plugin=plugin, **options)
    if pixels.shape != (layout.rows, layout.columns):
        raise ValueError(f"{pixels.shape} pixels")
    return pixels.astype(dtype_of(layout), copy=False).tobytes()


def _serve() -> None:
    """Decode what comes until nothing more does."""
    requests, answers = os.fdopen(os.dup(0), "rb"), FileIO(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):  # what a library prints would be taken for an answer
        os.dup2(nothing, number)
    end_with(int(sys.argv[1]))
    _bound()
    _send(answers, _READY)
    while line := requests.readline():
        request = json.loads(line)
        frame = requests.read(request["size"])
        # A thread in C ends the process then, wherever it is, and though its parent may be gone.
        faulthandler.dump_traceback_later(request["seconds"], exit=True)
        try:
            with quiet_pydicom():
                data = b"ok\n" + decode_here(frame, Layout(*request["layout"]), request["plugin"])
        except Exception as error:
            data = f"{type(error).__name__}\n".encode()
        faulthandler.cancel_dump_traceback_later()
        _send(answers, data)


def _bound() -> None:
    """Take no more memory than decoding needs, write no file and no memory dump, where the system can see to it."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        for kind in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE):
            resource.setrlimit(kind, (0, 0))
        pages = int(Path("/proc/self/statm").read_text().split()[0])  # of Linux; elsewhere the limit does little
        most = pages * resource.getpagesize() + _MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
