"""Ids as pseudonyms: keyed hashes. Who has the salt can compute them; without it, known ids can't be tried on them.

The salt is 32 random bytes in a file of its own, a line of 64 hexadecimal digits, which its owner alone may read.
"""

import hmac
import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self
from uuid import UUID

from ichseq.errors import DataError
from ichseq.files import replacing

SALT: Final = "salt"
"""Name of the file, where no other is given."""

_SALT: Final = re.compile(r"[0-9a-f]{64}")
_PATIENT: Final = re.compile(r"P-[0-9a-f]{16}")
_MOST_BYTES: Final = 65 * 1000


@dataclass(frozen=True)
class Pseudonyms:
    """What one salt makes of ids; the same id gives the same pseudonym, by HMAC-SHA256.

    Attributes:
        salt: 32 bytes.

    Example:
        >>> from ichseq.pseudonyms import Pseudonyms
        >>> names = Pseudonyms(bytes(32))
        >>> names.patient("ID_1"), names.uid("1.2.3")
        ('P-4bea4c07fa5968e5', '2.25.234032717547690397412713252077312254305')
    """

    salt: bytes = field(repr=False)

    @classmethod
    def draw(cls) -> Self:
        """Those of a new salt."""
        return cls(secrets.token_bytes(32))

    @property
    def salt_id(self) -> str:
        """Tells whether two salts are the same, and nothing of them."""
        return self.key_for("salt id")[:16]

    def key_for(self, purpose: str) -> str:
        """A key of 64 hexadecimal digits that follows from the salt and does not give it away."""
        return self._digest("key", purpose).hex()

    def patient(self, patient: str) -> str:
        """P- and 16 hexadecimal digits.

        Args:
            patient: PatientID, or where that is empty StudyInstanceUID, as `patients_of` has it.
        """
        return f"P-{self._digest('patient', patient).hex()[:16]}"

    def uid(self, uid: str) -> str:
        """A valid UID of the form 2.25.<number> (PS3.5, B.2); "" stays so."""
        return f"2.25.{UUID(bytes=self._digest('uid', uid)[:16], version=4).int}" if uid else ""

    def file(self, name: str) -> str:
        """F- and 16 hexadecimal digits, for a file as it was named."""
        return f"F-{self._digest('file', name).hex()[:16]}"

    def exam(self, patient_id: str, study_uid: str, series_uid: str) -> tuple[str, str, str]:
        """The three ids of a series."""
        return self.patient(patient_id or study_uid), self.uid(study_uid), self.uid(series_uid)

    def _digest(self, kind: str, text: str) -> bytes:
        return hmac.digest(self.salt, f"{kind}\0{text}".encode("utf-8", "surrogateescape"), "sha256")


def is_pseudonym(patient_id: str) -> bool:
    """Whether an id looks as `Pseudonyms.patient` makes them."""
    return _PATIENT.fullmatch(patient_id) is not None


def read_salts(path: Path) -> list[Pseudonyms]:
    """The salts of a file, a line each.

    Raises:
        DataError: it is missing, or holds something else.
    """
    try:
        with open(path, "rb") as file:
            lines = file.read(_MOST_BYTES).decode("ascii", "replace").split()
    except OSError as error:
        raise DataError(f"{path}: the salt can't be read ({error.strerror}); restore it from a copy") from None
    if not lines or not all(map(_SALT.fullmatch, lines)):
        raise DataError(f"{path}: is no salt (64 hexadecimal digits); restore it from a copy, or name another file")
    return [Pseudonyms(bytes.fromhex(line)) for line in lines]


def write_salts(path: Path, salts: Sequence[Pseudonyms]) -> None:
    """Write a file of salts that its owner alone may read.

    Raises:
        DataError: it can't be written.
    """
    try:
        with replacing(path, several_writers=True) as beside:
            handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.writelines(f"{one.salt.hex()}\n" for one in salts)
    except OSError as error:
        raise DataError(f"{path}: the salt can't be written ({error.strerror}); make room, or name another file") from (
            None
        )


def kept_salt(path: Path) -> Pseudonyms:
    """The pseudonyms of the salt in a file; where there is none, of a new one that is written there.

    Raises:
        DataError: it can't be read or written, or holds something else.
    """
    if not path.exists():
        write_salts(path, [Pseudonyms.draw()])
    return read_salts(path)[0]
