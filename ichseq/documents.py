"""JSON documents: read strictly and within bounds, and sealed, so that a changed one is an error.

A sealed document is a JSON object that holds, under "sha256", the hash of all else in it. The seal is of the content,
not of its layout. It tells damage and a slip of the hand; it is no signature, since whoever changes a document on
purpose can seal it again.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

SEAL: Final = "sha256"
"""The key of a document's own hash."""

MOST_BYTES: Final = 64 << 20
"""What a document may take; the longest are those of runs, with 20 bytes a patient."""


def parse_document(text: str | bytes) -> Any:
    """The content of a strict JSON text: no NaN, no infinity.

    Raises:
        ValueError: it is none, holds a number that is not finite, or is nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_document(path: Path, *, most: int = MOST_BYTES) -> Any:
    """The content of a strict JSON file of `most` bytes.

    Raises:
        OSError: it can't be read.
        ValueError: it is damaged, or larger.
    """
    with open(path, "rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"more than {most} bytes")
    return parse_document(data.decode("utf-8"))


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content with its seal, which comes last."""
    plain = {key: value for key, value in content.items() if key != SEAL}
    return {**plain, SEAL: _digest(plain)}


def unsealed(content: Any) -> dict[str, Any]:
    """What a sealed document holds, without the seal.

    Raises:
        ValueError: it is no object, has no seal, or is not what was sealed.
    """
    if not isinstance(content, dict):
        raise ValueError("no object")
    plain = {key: value for key, value in content.items() if key != SEAL}
    if content.get(SEAL) != _digest(plain):
        raise ValueError("not what was sealed")
    return plain


def file_digest(path: Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits.

    Raises:
        OSError: it can't be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no finite number")
    return number
