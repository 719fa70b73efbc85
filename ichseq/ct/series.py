"""Series of CT slices: found in any source, ordered, checked, read in Hounsfield units.

`load_series` is for a person with some scans; it reads headers, and pixels only when asked. To prepare a million
slices in parallel, use the flat layer below it: `list_files`, `scan_headers`, `group_headers`, `make_series`
(ichseq.ct.scan shows how they follow each other; all four can be imported from here).
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, overload

import numpy as np

from ichseq.ct.archive import FileList, list_files
from ichseq.ct.left_out import LeftOut, SliceError
from ichseq.ct.order import Order, arrange
from ichseq.ct.pixels import read_slice
from ichseq.ct.reconstruction import Reconstruction
from ichseq.ct.scan import Headers, check_unchanged, group_headers, nothing_usable, scan_headers
from ichseq.ct.streams import unpacked
from ichseq.ct.together import put_together
from ichseq.errors import ConfigError, ScanError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "FileList",
    "Headers",
    "LeftOut",
    "Series",
    "SeriesCollection",
    "SliceError",
    "group_headers",
    "list_files",
    "load_series",
    "make_series",
    "scan_headers",
]


KEPT_BYTES: Final = 256 << 20
"""A series with more bytes of pixels (as int16) is not kept in memory while it is read: 512 slices of 512 x 512."""


class Series:
    """Slices of one orientation and size, from the feet to the head (or as the user asked).

    Attributes:
        patient_id, study_uid, series_uid: as in the header. Parts of a split series share `series_uid`; `key` differs.
        sop_uids: SOPInstanceUID of each slice.
        files: file of each slice, as shown to the user; a member of an archive: "archive.zip/member".
        positions_mm: float64 (n,), position along the normal, ascending; NaN where the header has none.
        spacing_mm: (between rows, between columns); NaN where the header has none.
        orientation: float64 (6,), ImageOrientationPatient of the first slice; NaN where the header has none.
        shape: (slices, rows, columns).
        age_years: by PatientAge; NaN where the header has none.
        contrast: whether the header names a contrast medium.
        phantom: whether the slices are made up.
        reconstruction: how the series was made.

    Example:
        >>> import ichseq
        >>> series = ichseq.load_series("scans/stage_2_test")[0]
        >>> series.hu.shape == series.shape == (len(series), 64, 64)
        True
    """

    def __init__(self, files: FileList, headers: Headers, positions_mm: np.ndarray, warnings: Sequence[str]) -> None:
        """Slice k is entry k of `files`, of `headers` and of `positions_mm`; `make_series` sees to that."""
        self._files, self._headers, self._warnings = files, headers, list(warnings)
        self._repaired: set[int] = set()
        self._hu: np.ndarray | None = None
        self.positions_mm = positions_mm
        numbers = headers.numbers
        self.patient_id, self.study_uid = headers.text("patient_id", 0), headers.text("study_uid", 0)
        self.series_uid = headers.text("series_uid", 0)
        self.sop_uids = [headers.text("sop_uid", k) for k in range(len(headers))]
        self.files = [files.name(k) for k in range(len(headers))]
        self.spacing_mm = float(numbers["spacing"][0, 0]), float(numbers["spacing"][0, 1])
        self.orientation = np.array(numbers["orientation"][0], np.float64)
        self.shape = len(headers), int(numbers["rows"][0]), int(numbers["columns"][0])
        age = float(numbers["age_years"][0])
        self.age_years, self.contrast = age if age >= 0 else np.nan, bool(numbers["contrast"].any())
        self.phantom = bool(numbers["phantom"].any())
        self.reconstruction = Reconstruction.of(numbers)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"Series({self.shape[0]} slices of {self.shape[1]} x {self.shape[2]}, {len(self.warnings)} warnings)"

    def _repr_html_(self) -> str:
        """What a notebook shows: a few slices in the brain window, sizes and spacing, and nothing of the patient."""
        from ichseq.ct.picture import series_html

        return series_html(self)

    def plot(self, window: str = "brain", *, slices: int = 12) -> "Figure":
        """A matplotlib figure of evenly spaced slices, numbered from 1, feet to head.

        A notebook shows it, `savefig` writes it; it belongs to no window of pyplot.

        Args:
            window: a name of `ichseq.windows.WINDOWS`: "brain", "subdural", "soft_tissue" or "bone".
            slices: at most so many.

        Raises:
            ConfigError: there is no such window, or no slice is asked for.
            SliceError: a slice can't be read.

        Example:
            >>> import ichseq
            >>> series = ichseq.load_series("scans/stage_2_test")[0]
            >>> series.plot("subdural", slices=6).savefig("series.png")
        """
        from ichseq.ct.picture import series_figure

        return series_figure(self, window=window, slices=slices)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_hu": None}  # a worker reads the pixels itself

    @property
    def key(self) -> str:
        """Hash of the series' identity: its UIDs and those of its slices, in order. Differs between split parts."""
        identity = [self.patient_id, self.study_uid, self.series_uid, str(self.shape), *self.sop_uids]
        return hashlib.sha256("\0".join(identity).encode()).hexdigest()

    @property
    def warnings(self) -> list[str]:
        """What a person should know of the series. Repaired slices are found, and so reported, when they are read."""
        found = list(self._warnings)
        if self._repaired:
            found.append(f"{len(self._repaired)} of {len(self)} slices were wrapped 12-bit data and have been repaired")
        return found

    @property
    def hu(self) -> np.ndarray:
        """Hounsfield units, int16 (slices, rows, columns), rounded; read at first access and kept.

        Raises:
            SliceError: a slice cannot be read; `without(error.file)` is the series less that slice.
        """
        if self._hu is None:
            self._hu = self.read()
        return self._hu

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Read slices start to stop (as in a Python slice) without keeping them: int16 (stop - start, rows, columns).

        Raises:
            SliceError: as for `hu`.
        """
        wanted = range(len(self))[start:stop]
        hu = np.empty((len(wanted), *self.shape[1:]), np.int16)
        for k, number in enumerate(wanted):
            hu[k] = self._hu[number] if self._hu is not None else self._read_one(number)
        return hu

    def _read_one(self, number: int) -> np.ndarray:
        hu, repaired = read_slice(self._files, self._headers, number)
        if repaired:
            self._repaired.add(number)
        return hu

    def open_file(self, number: int) -> BinaryIO:
        """A slice's file, out of its archive and unpacked if need be, at its beginning; to be closed.

        Raises:
            ScanError: it can't be opened, or has changed since its header was read.
        """
        check_unchanged(self._files, self._headers, number)
        return unpacked(self._files.open(number), self.files[number])

    def without(self, file: str) -> "Series":
        """The series less one slice.

        Raises:
            ScanError: the series has no such file, or no other.
        """
        if file not in self.files:
            raise ScanError(file, "not a file of this series; take a name from its files")
        return self._subset([k for k, name in enumerate(self.files) if name != file])

    def only(self, files: Iterable[str]) -> "Series":
        """The slices of some of the series' files, in order, without pixels in memory.

        Raises:
            ScanError: none of the files is one of the series.
        """
        wanted = set(files)
        chosen, fresh = [k for k, name in enumerate(self.files) if name in wanted], _fresh(self)
        return fresh if len(chosen) == len(self) else fresh._subset(chosen)

    def _subset(self, numbers: list[int]) -> "Series":
        if not numbers:
            raise ScanError(self.files[0], "no slice of its series can be read; get the files again")
        files, headers = self._files.take(numbers), self._headers.take(numbers)
        subset = Series(files, headers, self.positions_mm[numbers], self._warnings)
        subset._repaired = {k for k, number in enumerate(numbers) if number in self._repaired}
        if self._hu is not None:
            subset._hu = self._hu[numbers]
        return subset

    def readable(self, look: Callable[[np.ndarray], None] | None = None) -> tuple["Series | None", list[LeftOut]]:
        """Read every slice once: the series less those that cannot be read, and those with their reasons.

        Pixels stay in memory (`hu`) if they are no more than `KEPT_BYTES`; of a longer series they are read again when
        they are asked for.

        Args:
            look: called with each slice that can be read, int16 (rows, columns), in order.

        Returns:
            The series, None if no slice can be read; and what was left out.
        """
        slices, rows, columns = self.shape
        hu = np.empty(self.shape, np.int16) if 2 * slices * rows * columns <= KEPT_BYTES else None
        left_out: list[LeftOut] = []
        good: list[int] = []
        for number in range(slices):
            try:
                one = self._read_one(number)
            except SliceError as error:
                left_out.append(error.left_out)
                continue
            if look is not None:
                look(one)
            if hu is not None:
                hu[len(good)] = one
            good.append(number)
        if not good:
            return None, left_out
        whole = self._subset(good)
        if left_out:
            whole._warnings.append(f"{len(left_out)} of {slices} slices could not be read and are left out")
        whole._hu = None if hu is None else hu[: len(good)]
        return whole, left_out


class SeriesCollection(Sequence[Series]):
    """The series of a source, by patient, study and series UID. Each access gives a Series with no pixels in memory.

    Attributes:
        left_out: every file that is in no series, with its reason.
    """

    def __init__(self, series: Sequence[Series], left_out: Sequence[LeftOut]) -> None:
        self._series, self.left_out = list(series), list(left_out)

    def __len__(self) -> int:
        return len(self._series)

    def __repr__(self) -> str:
        return f"SeriesCollection({len(self)} series, {len(self.left_out)} files left out)"

    @overload
    def __getitem__(self, index: int) -> Series: ...
    @overload
    def __getitem__(self, index: slice) -> "SeriesCollection": ...
    def __getitem__(self, index: int | slice) -> "Series | SeriesCollection":
        if isinstance(index, slice):
            return SeriesCollection(self._series[index], self.left_out)
        return _fresh(self._series[index])


def _fresh(series: Series) -> Series:
    """A copy whose pixels die with it, so that a loop over a collection holds one series at a time."""
    copy = Series.__new__(Series)
    copy.__dict__.update(series.__dict__, _hu=None, _repaired=set())
    return copy


def load_series(
    source: str | Path | Sequence[str | Path],
    *,
    order: Order = "position",
    progress: Callable[[int, int], None] | None = None,
) -> SeriesCollection:
    """Find the CT series of a source. Reads headers only.

    Args:
        source: a folder (any nesting and names), a zip or tar (not unpacked to disk), a DICOM file (which may be packed
            by gzip, bzip2 or xz), or a list of any of these.
        order: "position" along the patient. "instance" (by InstanceNumber) and "file" (by name) are for scans without
            positions, and only as good as these numbers and names.
        progress: called with (files done, files in all).

    Raises:
        ScanError: a path does not exist, there is no DICOM file, or none is a usable CT slice.
        ConfigError: an unknown order.

    Example:
        >>> import ichseq
        >>> found = ichseq.load_series("scans/stage_2_test")
        >>> len(found), found.left_out
        (1, [])
    """
    if order not in ("position", "instance", "file"):
        raise ConfigError(f"order {order!r} is unknown; use position, instance or file")
    files = list_files(source)
    report = None if progress is None else lambda done: progress(done, len(files))
    headers = put_together(scan_headers(files, need_position=order == "position", progress=report))
    left_out = [*files.left_out, *headers.left_out]
    series: list[Series] = []
    for group in group_headers(headers):
        part = headers.take(group)
        found, out = make_series(files.take(part.numbers["file"]), part, order=order)
        series += found
        left_out += out
    if not series:
        raise nothing_usable(files, headers.dicom_files, left_out)
    return SeriesCollection(series, left_out)


def make_series(files: FileList, headers: Headers, *, order: Order = "position") -> tuple[list[Series], list[LeftOut]]:
    """Make ordered series of the slices of one SeriesInstanceUID: one, or several if they differ in geometry.

    Reads pixels only of slices that lie at one place, to tell duplicates from different images.

    Args:
        files: entry k is the file of row k of `headers`.
        headers: one group of `group_headers`.
        order: as for `load_series`.
    """
    names = [files.name(k) for k in range(len(files))]
    parts, left_out = arrange(headers, names, lambda row: read_slice(files, headers, row)[0], order)
    series = [Series(files.take(p.rows), headers.take(p.rows), p.positions, p.warnings) for p in parts]
    return series, left_out
