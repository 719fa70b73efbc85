"""A setting's type, range and value in words, for errors and for the list of all settings."""

import types
import typing
from collections.abc import Sequence
from typing import Annotated, Any, Literal


def type_in_words(annotation: Any, *, choices: bool = False) -> str:
    """A type as a person calls it: "int or auto", "list of flip, transpose".

    Args:
        annotation: as it stands at a field.
        choices: of a list, its items' choices alone.
    """
    parts = typing.get_args(annotation)
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        if names := next((part.names for part in parts[1:] if hasattr(part, "names")), None):
            return ", ".join(names)
        return type_in_words(parts[0], choices=choices)
    if origin is Literal:
        return ", ".join(map(str, parts))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_in_words(part, choices=choices) for part in parts)
    if origin is not None and issubclass(origin, Sequence):
        inner = type_in_words(parts[0], choices=choices)
        return inner if choices else f"list of {inner}"
    return "null" if annotation is type(None) else str(annotation.__name__)


def range_in_words(annotation: Any) -> str:
    """The range of a type's numbers: "at least 1", "between 0 and 1"; empty without one."""
    limits: dict[str, Any] = {}
    for part in _parts(annotation):
        for constraint in (part, *getattr(part, "metadata", ())):
            for name in ("ge", "gt", "le", "lt"):
                if (value := getattr(constraint, name, None)) is not None:
                    limits[name] = value
    low, most, below = limits.get("ge"), limits.get("le"), limits.get("lt")
    if "gt" in limits:
        return f"above {limits['gt']}" + ("" if most is None else f" and at most {most}")
    if low is not None and most is not None:
        return f"between {low} and {most}"
    if low is not None and below is not None:
        return f"between {low} and {below} ({below} excluded)"
    return f"at least {low}" if low is not None else "a finite number" if float in _parts(annotation) else ""


def _parts(annotation: Any) -> list[Any]:
    """All that an annotation is made of, its metadata too."""
    if typing.get_origin(annotation) is Literal:
        return []
    inner = [piece for part in typing.get_args(annotation) for piece in _parts(part)]
    return inner or [annotation]


def plain_value(value: Any) -> str:
    """A value as YAML would have it on one line, text in quotes."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(str, value))}]"
    return repr(value)
