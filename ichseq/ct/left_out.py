"""Files that are not used: why, and whether that was to be expected."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from ichseq.errors import ScanError


class LeftOut(NamedTuple):
    """A file that was not used.

    Attributes:
        file: as shown to the user (a member of an archive: "archive.zip/member").
        reason: what is wrong with it and, where the user can do something, what.
        expected: whether it is rightly no slice of an axial series, such as a localizer, a dose report, a text file or
            a duplicate. False: a slice may be missing.
    """

    file: str
    reason: str
    expected: bool = False


class SliceError(ScanError):
    """One file that is no usable CT slice.

    Attributes:
        file, reason, expected: as in `LeftOut`.
        is_dicom: False: not a DICOM file at all.
    """

    def __init__(self, file: str, reason: str, *, expected: bool = False, is_dicom: bool = True) -> None:
        super().__init__(file, reason)
        self.expected, self.is_dicom = expected, is_dicom

    @property
    def left_out(self) -> LeftOut:
        """The entry for a list of files that are not used."""
        return LeftOut(self.file, self.reason, self.expected)


def count_reasons(left_out: Sequence[LeftOut]) -> dict[str, int]:
    """Number of files left out for each kind of reason, the most frequent first.

    Reasons that differ only after a colon (byte counts, names of other files) are of one kind.
    """
    kinds: dict[str, Counter[str]] = {}
    for item in left_out:
        kinds.setdefault(item.reason.partition(":")[0], Counter())[item.reason] += 1
    shown = {min(found) if len(found) == 1 else f"{kind} (details differ)": found for kind, found in kinds.items()}
    totals = {reason: found.total() for reason, found in shown.items()}
    return dict(sorted(totals.items(), key=lambda pair: (-pair[1], pair[0])))
