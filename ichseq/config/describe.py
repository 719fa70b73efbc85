"""All settings of a section as a person reads them: in a terminal, and as a table of the documentation."""

import re
import textwrap
from collections.abc import Mapping
from typing import Any

from ichseq.config.fields import STAGES, ByStage, ReadBy, Setting, settings_of
from ichseq.config.types_in_words import range_in_words, type_in_words

_TABLE = re.compile(r"(<!-- settings: (\w+) -->\n).*?(<!-- end of settings -->)", re.DOTALL)


def settings_text(name: str, section: type[Any], *, stage: str | None = None, width: int = 100) -> str:
    """Every setting with its default, type, range and meaning, for a terminal.

    Args:
        name: of the section.
        section: its class.
        stage: list only what this stage reads, with its defaults.
        width: of a line.
    """
    blocks = []
    for setting in settings_of(section):
        read_by = setting.mark(ReadBy)
        if stage is not None and read_by is not None and stage not in read_by.stages:
            continue
        head = f"{name}.{setting.name} = {_default(setting, stage)}  ({_kind(setting)})"
        meaning = _meaning(setting) if stage is None else setting.meaning
        blocks.append("\n".join([
            *textwrap.wrap(head, width, subsequent_indent="    ", break_on_hyphens=False),
            *textwrap.wrap(meaning, width, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False),
        ]))  # fmt: skip
    return "\n".join(blocks)


def settings_table(section: type[Any]) -> str:
    """The same as a Markdown table."""
    rows = ["| Key | Values | Default | Meaning |", "|---|---|---|---|"]
    for setting in settings_of(section):
        cells = (f"`{setting.name}`", _kind(setting), f"`{_default(setting)}`", _meaning(setting))
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(rows) + "\n"


def with_tables(text: str, sections: Mapping[str, type[Any]]) -> str:
    """A Markdown text with its tables of settings made anew.

    A table stands between `<!-- settings: SECTION -->` and `<!-- end of settings -->`.
    """
    return _TABLE.sub(lambda found: found[1] + settings_table(sections[found[2]]) + found[3], text)


def _kind(setting: Setting) -> str:
    limits = range_in_words(setting.annotation)
    return type_in_words(setting.annotation) + (f", {limits}" if limits else "")


def _meaning(setting: Setting) -> str:
    read_by = setting.mark(ReadBy)
    if read_by is None:
        return setting.meaning
    stages = " and ".join(stage for stage in STAGES if stage in read_by.stages)
    return f"{setting.meaning} Read by the {stages} {'stage' if len(read_by.stages) == 1 else 'stages'}."


def _default(setting: Setting, stage: str | None = None) -> str:
    by_stage = setting.mark(ByStage)
    if by_stage is None:
        return _as_yaml(setting.default)
    if stage is not None:
        return _as_yaml(by_stage.of(stage))
    return ", ".join(f"{_as_yaml(by_stage.of(one))} ({one})" for one in STAGES)


def _as_yaml(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_as_yaml, value))}]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, float):
        return f"{value:g}".replace("e-0", "e-")
    return str(value) or '""'
