"""A class whose keywords are the fields of a section, typed for an editor and checked, without listing them again."""

import functools
import inspect
import typing
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from ichseq.config.fields import read_section, settings_of

P = ParamSpec("P")
C = TypeVar("C")
S = TypeVar("S")


def takes_fields_of(
    section: Callable[P, C], name: str
) -> Callable[[Callable[[S, C], None]], Callable[Concatenate[S, P], None]]:
    """Make an `__init__` that takes a section into one that takes the section's fields.

    Args:
        section: a pydantic dataclass.
        name: of the section, for errors.

    Returns:
        A decorator; what it makes raises a ConfigError for a keyword or value that does not fit.
    """
    kind = typing.cast(type[C], section)
    types = typing.get_type_hints(kind)
    fields = [p.replace(annotation=types[p.name]) for p in inspect.signature(kind).parameters.values()]

    def decorate(init: Callable[[S, C], None]) -> Callable[Concatenate[S, P], None]:
        own = inspect.signature(init)
        signature = own.replace(parameters=[next(iter(own.parameters.values())), *fields])

        @functools.wraps(init)
        def wrapped(self: S, *args: P.args, **kwargs: P.kwargs) -> None:
            known = {key: value for key, value in kwargs.items() if key in types}
            bound = signature.bind_partial(self, *args, **known).arguments  # refuses a value given twice
            values = {key: value for key, value in bound.items() if key in types}
            init(self, read_section(kind, values | kwargs, name))

        meanings = [f"    {setting.name}: {setting.meaning}" for setting in settings_of(kind)]
        wrapped.__doc__ = "\n".join([f"{(init.__doc__ or '').strip()}\n\nArgs:", *meanings])
        wrapped.__signature__ = signature  # type: ignore[attr-defined]
        return wrapped

    return decorate
