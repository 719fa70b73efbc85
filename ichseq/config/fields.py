"""What settings are made of: types with ranges, marks that say who reads a setting, and values read with good errors.

A section of the configuration is a frozen pydantic dataclass. A field states its type, range, marks, default and, in
the docstring below it, its meaning; nothing else in the package states any of them again.
"""

import dataclasses
import difflib
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, ErrorDetails, core_schema

from ichseq.config.types_in_words import plain_value, range_in_words, type_in_words
from ichseq.errors import ConfigError

T = TypeVar("T")

STRICT: Final = ConfigDict(strict=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
"""How every section is checked: no number from text, no key that does not exist, no infinity."""

Stage = Literal["slice", "frozen", "joint"]

STAGES: Final[tuple[Stage, ...]] = typing.get_args(Stage)
"""The stages of training, in the order in which they may follow each other."""


# ---- types -----------------------------------------------------------------------------------------------------------


def _on_or_off(value: object) -> object:
    return {"on": True, "yes": True, "off": False, "no": False}.get(value, value) if isinstance(value, str) else value


def _distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    if len(set(values)) < len(values):
        raise ValueError("name each once")
    return values


WORDS: Final = BeforeValidator(_on_or_off)
"""Lets a switch be on, off, yes or no, as YAML 1.1 had it."""

Switch = Annotated[bool, WORDS]
AtLeast0 = Annotated[int, Field(ge=0)]
AtLeast1 = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
ShareBelow1 = Annotated[float, Field(ge=0, lt=1)]
Several = Annotated[Sequence[T], AfterValidator(tuple)]
"""A list in YAML and Python, kept as a tuple."""
Distinct = Annotated[Sequence[T], AfterValidator(tuple), AfterValidator(_distinct)]
"""The same, of values that all differ."""


class OneOf:
    """The names that a text may be, where they are known when the package is imported only."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        """A choice, as of a Literal."""
        return core_schema.literal_schema(list(self.names))


def _not_empty(values: tuple[T, ...]) -> tuple[T, ...]:
    if not values:
        raise ValueError("name at least one")
    return values


NOT_EMPTY: Final = AfterValidator(_not_empty)


# ---- marks -----------------------------------------------------------------------------------------------------------

_DEFAULT: Final = object()


class ReadBy:
    """A mark: the stages whose weights depend on a setting.

    Attributes:
        stages: those.
        otherwise: what the setting is for the others; without it, its default.
    """

    def __init__(self, *stages: Stage, otherwise: Any = _DEFAULT) -> None:
        self.stages, self._otherwise = stages, otherwise

    def otherwise(self, default: Any) -> Any:
        """The value where the setting is not read."""
        return default if self._otherwise is _DEFAULT else self._otherwise


@dataclass(frozen=True)
class ByStage:
    """A mark: each stage's default, where the field's own is None."""

    slice: Any
    frozen: Any
    joint: Any

    def of(self, stage: str) -> Any:
        """The default of a stage."""
        return getattr(self, stage)


@dataclass(frozen=True)
class WithoutEffect:
    """A mark: the setting decides how a result is computed, and not which.

    Attributes:
        with_live_batch_norm: whether that is so too where batch norm learns statistics.
    """

    with_live_batch_norm: bool = True


class SameAsStart:
    """A mark: a model that starts from another's weights needs the same value, unless the other's is empty."""


@dataclass(frozen=True)
class Setting:
    """One field of a section.

    Attributes:
        name: of the field.
        annotation: its type, with ranges and marks.
        default: its default.
        meaning: the docstring below it.
    """

    name: str
    annotation: Any
    default: Any
    meaning: str

    def mark(self, kind: type[T]) -> T | None:
        """Its mark of a kind."""
        marks = typing.get_args(self.annotation)[1:] if typing.get_origin(self.annotation) is Annotated else ()
        return next((mark for mark in marks if isinstance(mark, kind)), None)


def settings_of(section: type[Any]) -> tuple[Setting, ...]:
    """The settings of a section, in order, with those of its bases."""
    hints = typing.get_type_hints(section, include_extras=True)
    # pydantic knows a docstring where its field stands, and not in a class derived from there.
    described: dict[str, str] = {}
    for base in reversed(section.__mro__):
        for name, field in getattr(base, "__pydantic_fields__", {}).items():
            if field.description:
                described[name] = " ".join(field.description.split())
    found = []
    for field in dataclasses.fields(section):
        default = field.default.default if isinstance(field.default, FieldInfo) else field.default
        found.append(Setting(field.name, hints[field.name], default, described.get(field.name, "")))
    return tuple(found)


# ---- reading ---------------------------------------------------------------------------------------------------------


def read_section(section: type[T], values: Mapping[Any, Any], name: str, where: str = "") -> T:
    """A section from values by key; what has none takes its default.

    Args:
        section: a pydantic dataclass.
        values: by key, as YAML gives them.
        name: of the section, for errors.
        where: they stand, for errors: a file, or a command's option.

    Raises:
        ConfigError: an unknown key, a wrong type or a value out of range, named.
    """
    before = f"{where}: " if where else ""
    known = [setting.name for setting in settings_of(section)]
    for key in values:
        if key not in known:
            raise ConfigError(f"{before}no key {name}.{key}; {did_you_mean(str(key), known)}")
    try:
        return section(**values)
    except ValidationError as error:
        raise ConfigError(f"{before}{name}.{_explained(section, error)}") from None


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """What else could be meant, of the names that are known."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"


def _explained(section: type, error: ValidationError) -> str:
    """The first wrong value of a section: its key, the value, and what is wanted."""
    key = str(error.errors()[0]["loc"][0])
    found = [one for one in error.errors(include_url=False) if str(one["loc"][0]) == key]
    annotation = next(setting.annotation for setting in settings_of(section) if setting.name == key)
    # Of a union, the branch that took the type and not the value says most.
    fault = min(found, key=lambda one: (one["type"] not in _OF_THE_VALUE, not _in_a_list(one)))
    value = fault["input"]
    verb = "has" if _in_a_list(fault) else "is"
    if fault["type"] == "value_error":
        return f"{key} {verb} {plain_value(value)}; {fault['ctx']['error']}"
    if fault["type"] in _OF_THE_VALUE:
        return f"{key} {verb} {plain_value(value)}; it has to be {range_in_words(annotation)}"
    if fault["type"] == "literal_error" and len(found) == 1:
        return f"{key} {verb} {plain_value(value)}; choose one of {type_in_words(annotation, choices=True)}"
    return f"{key} {verb} {plain_value(value)}; it has to be {type_in_words(annotation)}"


_OF_THE_VALUE: Final = {"greater_than_equal", "greater_than", "less_than_equal", "less_than", "finite_number",
                        "value_error"}  # fmt: skip


def _in_a_list(fault: ErrorDetails) -> bool:
    return len(fault["loc"]) > 1 and isinstance(fault["loc"][-1], int)
