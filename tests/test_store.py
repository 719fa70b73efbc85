"""The store: exact within its range, deterministic, read in pieces and from threads; damage never becomes a picture."""

import resource
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import blosc2
import numpy as np
import pytest

from ichseq.ct.series import load_series
from ichseq.data.store import CODEC, Expected, read_slices, read_stored, write_series, write_whole
from ichseq.documents import sealed
from ichseq.errors import DataError
from ichseq.windows import BONE_RANGE, HU_RANGE


def clipped(hu: np.ndarray) -> np.ndarray:
    return np.clip(hu, *HU_RANGE)


def volume(*shape: int) -> np.ndarray:
    """Smooth anatomy-like values with noise, reaching beyond the store's range on both sides."""
    generator = np.random.default_rng(sum(shape))
    ramp = np.linspace(-2000, 3000, shape[-1])
    return (ramp + generator.normal(0, 5, shape)).astype(np.int16)


@pytest.mark.parametrize("shape", [(3, 64, 64), (2, 509, 311), (1, 7, 300), (4, 1, 5), (2, 512, 512)])
def test_what_is_read_is_what_was_written_clipped(tmp_path: Path, shape: tuple[int, ...]) -> None:
    hu = volume(*shape)
    write_series(tmp_path / "a.b2nd", hu)
    assert np.array_equal(read_slices(tmp_path / "a.b2nd"), np.clip(hu, *HU_RANGE))


def test_a_wider_range_is_kept_to_its_ends(tmp_path: Path) -> None:
    hu = volume(2, 64, 64)
    sums = write_series(tmp_path / "a", hu, hu_range=BONE_RANGE).sums
    assert np.array_equal(read_slices(tmp_path / "a"), np.clip(hu, *BONE_RANGE))
    assert not set(sums.tolist()) & set(write_series(tmp_path / "b", hu).sums.tolist())


def test_some_slices_and_into_a_given_array(tmp_path: Path) -> None:
    path, hu = tmp_path / "a.b2nd", np.clip(volume(6, 40, 30), *HU_RANGE)
    write_series(path, hu)
    assert np.array_equal(read_slices(path, 2, 5), hu[2:5])
    assert np.array_equal(read_slices(path, 4), hu[4:])
    assert read_slices(path, 3, 3).shape == (0, 40, 30)
    out = np.empty((2, 40, 30), np.int16)
    assert read_slices(path, 1, 3, out=out) is out
    assert np.array_equal(out, hu[1:3])
    with pytest.raises(ValueError, match="out must be"):
        read_slices(path, 0, 3, out=out)


def test_a_file_of_another_shape_than_the_index_has_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.b2nd"
    sums = write_series(path, volume(6, 40, 30)).sums
    assert len(read_slices(path, 2, 4, expected=Expected((6, 40, 30), sums))) == 2
    for shape in ((7, 40, 30), (6, 30, 40)):
        with pytest.raises(DataError, match=r"a\.b2nd: holds 6 slices of 40 x 30, .*; run `ichseq prepare` again"):
            read_slices(path, 2, 4, expected=Expected(shape, sums))


def test_a_sound_file_of_other_slices_than_the_index_has_is_refused(tmp_path: Path) -> None:
    one, other = volume(6, 40, 30), volume(6, 40, 30)
    other[3, 20, 10] = 41 if one[3, 20, 10] != 41 else 42
    sums = write_series(tmp_path / "a", one).sums
    write_series(tmp_path / "b", other)
    assert np.array_equal(read_slices(tmp_path / "b", 0, 3, expected=Expected((6, 40, 30), sums)), clipped(one)[:3])
    with pytest.raises(DataError, match="b: holds other slices than the set's index says"):
        read_slices(tmp_path / "b", 3, 4, expected=Expected((6, 40, 30), sums))


@pytest.mark.parametrize("shape", [(64, 64), (7, 300), (512, 512), (3, 5)])
def test_a_checksum_sees_every_pixel_and_the_order_of_all(tmp_path: Path, shape: tuple[int, int]) -> None:
    generator = np.random.default_rng(3)
    hu = generator.integers(-200, 823, (1, *shape)).astype(np.int16)
    flat = hu.reshape(-1)
    variants = [hu, hu[:, ::-1], hu[:, :, ::-1], np.roll(hu, 1, axis=1), np.roll(hu, 4, axis=2)]
    for _ in range(40):
        one, two = generator.choice(flat.size, 2, replace=False)
        changed, swapped = flat.copy(), flat.copy()
        changed[one] ^= 1 << generator.integers(0, 8)
        swapped[[one, two]] = flat[[two, one]]
        variants += [changed.reshape(hu.shape)] + [swapped.reshape(hu.shape)] * int(flat[one] != flat[two])
    distinct = {variant.tobytes() for variant in map(clipped, variants)}
    sums = {int(write_series(tmp_path / "a", variant).sums[0]) for variant in variants}
    assert len(sums) == len(distinct) > 40


def test_the_same_content_gives_the_same_bytes_however_it_arrives(tmp_path: Path) -> None:
    hu = volume(7, 64, 48)
    notes = {"warnings": ["no PatientID"], "left_out": [[2, "why"]]}
    first = write_series(tmp_path / "a", hu, notes=notes)
    write_series(tmp_path / "b", (hu[k : k + 3] for k in range(0, 7, 3)), notes=notes)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    again = read_stored(tmp_path / "b")
    assert (again.shape, again.notes) == ((7, 64, 48), notes)
    assert np.array_equal(first.sums, again.sums)


def test_threads_read_one_file_at_once(tmp_path: Path) -> None:
    hu = np.clip(volume(8, 128, 128), *HU_RANGE)
    write_series(tmp_path / "a", hu)
    with ThreadPoolExecutor(4) as pool:
        for k, got in enumerate(pool.map(lambda k: read_slices(tmp_path / "a", k % 8, k % 8 + 1), range(64))):
            assert np.array_equal(got[0], hu[k % 8])


def test_a_changed_byte_is_an_error_or_harmless_but_never_another_picture(tmp_path: Path) -> None:
    path, hu = tmp_path / "a", np.clip(volume(3, 64, 64), *HU_RANGE)
    write_series(path, hu)
    sound = path.read_bytes()
    generator = np.random.default_rng(0)
    errors = 0
    for at in generator.integers(0, len(sound), 150):
        damaged = bytearray(sound)
        damaged[at] ^= 0xFF
        path.write_bytes(damaged)
        try:
            assert np.array_equal(read_slices(path), hu)
        except DataError:
            errors += 1
    assert errors > 100


def test_missing_truncated_foreign_and_older_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with pytest.raises(DataError, match="a: missing"):
        read_slices(path)
    write_series(path, volume(2, 32, 32))
    sound = path.read_bytes()
    for length in (0, 10, len(sound) // 2, len(sound) - 1):
        path.write_bytes(sound[:length])
        with pytest.raises(DataError, match="a: damaged"):
            read_slices(path)
    foreign = blosc2.asarray(np.zeros((2, 4, 4), np.int16), urlpath=str(tmp_path / "b.b2nd"), mode="w")
    with pytest.raises(DataError, match="not a series of the store"):
        read_slices(tmp_path / "b.b2nd")
    foreign.schunk.vlmeta["ichseq"] = {"codec": "older", "sums": b"", "notes": {}}
    with pytest.raises(DataError, match="written as older, this version reads"):
        read_slices(tmp_path / "b.b2nd")


def test_a_file_that_would_run_code_is_refused_unrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def attack(inputs: tuple, output: np.ndarray, offset: tuple) -> None:
        import pathlib

        pathlib.Path("RAN").touch()
        output[:] = inputs[0]

    source = blosc2.asarray(np.zeros((2, 4, 4), np.int16), urlpath=str(tmp_path / "source.b2nd"), mode="w")
    lazy = blosc2.lazyudf(attack, (source,), dtype=np.int16, shape=source.shape)
    lazy.save(urlpath=str(tmp_path / "a.b2nd"))
    assert isinstance(
        blosc2.open(str(tmp_path / "a.b2nd"), deserialize="full"), blosc2.LazyArray
    )  # its source is there
    with pytest.raises(DataError, match=r"a\.b2nd: damaged or not a series of the store"):
        read_slices(tmp_path / "a.b2nd")
    assert not Path("RAN").exists()


@pytest.mark.parametrize(("shape", "sums"), [((1, 8192, 4096), 8), ((2**20, 64, 64), 0)])
def test_what_a_file_claims_costs_no_memory(tmp_path: Path, shape: tuple[int, int, int], sums: int) -> None:
    path = tmp_path / "a.b2nd"
    huge = blosc2.zeros(shape, np.int16, urlpath=str(path), mode="w", chunks=(1, *shape[1:]))
    huge.schunk.vlmeta["ichseq"] = sealed({"codec": CODEC, "sums": bytes(sums).hex(), "notes": {}})
    assert path.stat().st_size < 20_000_000
    tracemalloc.start()
    with pytest.raises(DataError, match="do not fit together"):
        read_slices(path)
    assert tracemalloc.get_traced_memory()[1] < 50_000_000
    tracemalloc.stop()


def test_a_full_disk_leaves_the_earlier_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_whole(path, b"earlier")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)  # as a full disk: a write that stops half way
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(DataError, match="a: cannot be written"):
            write_whole(path, b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_a_slice_of_the_real_head_ct_takes_at_most_100_kilobytes(head_ct: Path, tmp_path: Path) -> None:
    hu = load_series(head_ct)[0].hu
    write_series(tmp_path / "a", hu)
    assert np.array_equal(read_slices(tmp_path / "a"), np.clip(hu, *HU_RANGE))
    assert (tmp_path / "a").stat().st_size <= 100_000 * len(hu)
