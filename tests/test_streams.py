"""Packed bytes as streams: what other programs pack is read, in any order, whole, and within bounds."""

import bz2
import gzip
import importlib.util
import io
import itertools
import lzma
import random
import subprocess
import sys
import tracemalloc
from collections.abc import Callable

import pytest

from ichseq.ct.streams import unpacked, unpacking
from ichseq.errors import ScanError

PACK = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}
CONTENT = bytes(random.Random(0).choices(range(16), k=70_000))
each = pytest.mark.parametrize(("kind", "pack"), PACK.items(), ids=PACK)


@each
@pytest.mark.parametrize("between", [b"", bytes(512)], ids=["", "zeros"])
def test_parts_that_follow_each_other_are_one_file(kind: str, pack: Callable[[bytes], bytes], between: bytes) -> None:
    cuts = [0, 1, 30_000, 30_000, len(CONTENT)]
    parts = [pack(CONTENT[start:end]) for start, end in itertools.pairwise(cuts)]
    with unpacked(io.BytesIO(between.join(parts) + between), "file") as stream:
        assert stream.read() == CONTENT
        for place in (65_000, 10, 0):
            stream.seek(place)
            assert stream.read(4000) == CONTENT[place : place + 4000]
        assert stream.seek(-5, io.SEEK_END) == len(CONTENT) - 5
    assert b"".join(unpacking(io.BytesIO(b"".join(parts)), "file", kind, len(CONTENT)).pieces()) == CONTENT


@each
def test_more_than_the_bound_is_refused_and_takes_no_memory(kind: str, pack: Callable[[bytes], bytes]) -> None:
    bomb = pack(bytes(200_000_000))
    tracemalloc.start()
    stream = unpacking(io.BytesIO(bomb), "bomb", kind, 20_000_000)
    for _ in range(2):  # a caller that goes on gets no further
        with pytest.raises(ScanError, match=r"bomb: unpacks to more than 20000000 bytes; refused"):
            stream.check()
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


@each
def test_every_flipped_bit_and_every_cut_is_noticed(kind: str, pack: Callable[[bytes], bytes]) -> None:
    packed = pack(CONTENT[:500])
    noticed = 0
    for k in range(len(packed) * 8):
        flipped = bytearray(packed)
        flipped[k // 8] ^= 1 << k % 8
        try:
            found = b"".join(unpacking(io.BytesIO(flipped), "file", kind, 10_000).pieces())
        except ScanError:
            noticed += 1
        else:
            assert found == CONTENT[:500]  # the header of gzip has a time and the like, which change nothing
    assert noticed > 0.8 * len(packed) * 8
    for end in range(1, len(packed)):
        with pytest.raises(ScanError, match="truncated"):
            unpacking(io.BytesIO(packed[:end]), "file", kind, 10_000).check()


def test_an_xz_that_asks_for_much_memory_is_refused() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 29}]
    packed = lzma.compress(CONTENT, filters=filters)
    with pytest.raises(ScanError, match="file: damaged"):
        unpacking(io.BytesIO(packed), "file", "xz", 1 << 20).check()


@each
def test_empty_parts_without_end_are_refused(kind: str, pack: Callable[[bytes], bytes]) -> None:
    with pytest.raises(ScanError, match=r"unpacks to more than 5000 bytes; refused"):
        unpacking(io.BytesIO(pack(b"") * 1000), "file", kind, 5000).check()


def test_where_there_is_no_wheel_of_isal_zlib_does_the_same() -> None:
    code = (
        "import sys, gzip, io, zlib\n"
        "if sys.argv[1] == 'without':\n"
        "    sys.modules['isal'] = None\n"
        "from ichseq.ct import streams\n"
        "content = bytes(range(256)) * 300\n"
        "read = lambda packed: b''.join(streams.unpacking(io.BytesIO(packed), 'file', 'gzip', 10**6).pieces())\n"
        "assert read(gzip.compress(content)) == content\n"
        "print(streams.zlib.__name__, end=' ')\n"
        "packed = gzip.compress(content)\n"
        "for damaged in (packed[:-9], packed[:10] + b'\\xff' * 8 + packed[18:]):\n"
        "    try:\n"
        "        read(damaged)\n"
        "    except streams.ScanError as error:\n"
        "        print(error)\n"
    )
    words = [
        subprocess.run([sys.executable, "-c", code, how], capture_output=True, text=True, check=True).stdout.split(
            " ", 1
        )
        for how in ("with", "without")
    ]
    assert words[0][0] == ("isal.isal_zlib" if importlib.util.find_spec("isal") else "zlib")
    assert words[1][0] == "zlib"
    assert words[0][1] == words[1][1]
    assert "truncated" in words[0][1].splitlines()[0]
    assert "damaged compressed data" in words[0][1].splitlines()[1]
