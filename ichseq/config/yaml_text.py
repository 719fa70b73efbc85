"""YAML read as version 1.2 has it: 1e-4 is a number, and on, off, yes, no and dates are text.

A text is read within bounds: so many characters, values and levels, counted with what its aliases repeat.
"""

import re
from typing import Any, Final

import yaml

MOST_CHARACTERS: Final = 200_000
"""What a text may have; the longest configurations have some thousand."""

_MOST_VALUES: Final = 10_000
_MOST_LEVELS: Final = 50


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader is of version 1.1, which reads 1e-4 as text and `no` as false."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.")),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first)


def parse_yaml(text: str) -> Any:
    """The content of a YAML text.

    Raises:
        yaml.YAMLError: it is none, or too large, or a value that its tag asks for does not exist.
    """
    if len(text) > MOST_CHARACTERS:
        raise yaml.YAMLError(f"more than {MOST_CHARACTERS:,} characters")
    try:
        _count(text)
        return yaml.load(text, _Loader)
    except (
        ValueError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        # of a value with a tag, such as !!int many
        raise yaml.YAMLError(str(error)) from None


def _count(text: str) -> None:
    """See that a text has no more levels and values than the bounds; an alias counts as what it stands for.

    The parser's events are counted, which come one after the other however deep a text is nested.

    Raises:
        yaml.YAMLError: it has more, or is none.
    """
    sizes: dict[str, int] = {}  # of each anchor, the values below it
    open_anchors: list[tuple[str | None, int]] = []  # of each level that is open, and the count at its start
    count = 0
    for event in yaml.parse(text, _Loader):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise yaml.YAMLError(f"the alias {event.anchor} stands for nothing that is complete")
            count += sizes[event.anchor]
        elif isinstance(event, yaml.CollectionStartEvent):
            open_anchors.append((event.anchor, count))
            count += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_anchors.pop()
            if anchor is not None:
                sizes[anchor] = count - before
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        if count > _MOST_VALUES or len(open_anchors) > _MOST_LEVELS:
            raise yaml.YAMLError(f"more than {_MOST_VALUES:,} values or {_MOST_LEVELS} levels")
