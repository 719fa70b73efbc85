"""A fold, as a person names it."""

from numbers import Integral
from typing import Literal

from ichseq.errors import ConfigError

Fold = int | Literal["all", "all-patients"]
"""A fold by its number; "all": every fold in turn; "all-patients": none is kept for validation."""


def as_fold(value: int | str) -> Fold:
    """The fold that a number or a word stands for.

    Raises:
        ConfigError: it stands for none.
    """
    if value == "all":
        return "all"
    if value == "all-patients":
        return "all-patients"
    if isinstance(value, Integral) and not isinstance(value, bool) and value >= 0:  # numpy's too
        return int(value)
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    raise ConfigError(f"{value!r} is no fold; give a number, all or all-patients")


def fold_number(fold: Fold) -> int | None:
    """The number by which an index knows a fold; None for all of them.

    Raises:
        ConfigError: it is no fold.
    """
    from ichseq.data.index import ALL_PATIENTS

    fold = as_fold(fold)
    return None if fold == "all" else ALL_PATIENTS if fold == "all-patients" else fold
