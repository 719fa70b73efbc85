"""Seeds: every random draw follows from what it is for, so that an order of events changes none."""

import hashlib
from typing import Final

DEFAULT_SEED: Final = 0
"""Where none is given."""


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from numbers and words; different parts give unrelated seeds."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
