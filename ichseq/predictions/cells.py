r"""Text in the cells of a CSV file, so that a spreadsheet shows it and never runs it.

A cell that begins with = + - @ is a formula to a spreadsheet, and a control character hides what follows, so an id out
of a DICOM file could run a command on the desk of whoever opens the table. Such a text gets an apostrophe in front, as
spreadsheets have it, and its control characters are written as \x1b. Reading the table with ichseq takes both back.
"""

import re
from collections.abc import Callable, Hashable, Iterable
from typing import Final

import pandas as pd

_FORMULA: Final = re.compile(r"'*[=+\-@＝＋－＠]")
_GUARDED: Final = re.compile(r"'+[=+\-@＝＋－＠]")
_LITERAL: Final = r"\\(?=x(?:[01][0-9a-f]|7f|5c))"  # a backslash that would be taken for an escape's
_CONTROL: Final = re.compile(rf"[\x00-\x1f\x7f]|{_LITERAL}")
_ESCAPED: Final = re.compile(r"\\x([01][0-9a-f]|7f|5c)")
_TO_CHANGE: Final = re.compile(rf"^{_FORMULA.pattern}|[\x00-\x09\x0b-\x1f\x7f]|{_LITERAL}", re.M)
_CHANGED: Final = re.compile(rf"^{_GUARDED.pattern}|{_ESCAPED.pattern}", re.M)


def to_cell(text: str) -> str:
    r"""The text as it stands in a cell.

    Example:
        >>> to_cell("=HYPERLINK(A1)"), to_cell("ID_1"), to_cell("a\x1bb")
        ("'=HYPERLINK(A1)", 'ID_1', 'a\\x1bb')
    """
    text = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
    return f"'{text}" if _FORMULA.match(text) else text


def from_cell(text: str) -> str:
    """The text that `to_cell` was given."""
    text = text[1:] if _GUARDED.match(text) else text
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)


def as_cells(table: pd.DataFrame) -> pd.DataFrame:
    """The table with every column of text as cells; the same table where none has to change."""
    texts = [name for name, kind in table.dtypes.items() if not pd.api.types.is_numeric_dtype(kind)]
    return _changed(table, texts, to_cell, _TO_CHANGE)


def from_cells(table: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    """The table with some columns of text as they were before `as_cells`."""
    return _changed(table, [name for name in columns if name in table.columns], from_cell, _CHANGED)


def _changed(
    table: pd.DataFrame, columns: Iterable[Hashable], change: Callable[[str], str], where: re.Pattern[str]
) -> pd.DataFrame:
    """The table with texts changed in the columns in which `where` finds any, a text a line."""
    new = {}
    for name in columns:
        values = list(table[name])
        texts = [one for one in values if isinstance(one, str)]
        lines = "\n".join(texts)
        if texts and (where.search(lines) or lines.count("\n") >= len(texts)):  # a text that holds a line's end
            changed = [change(one) if isinstance(one, str) else one for one in values]
            new[name] = pd.Series(changed, index=table.index, dtype=table[name].dtype)
    return table.assign(**{str(name): column for name, column in new.items()}) if new else table
