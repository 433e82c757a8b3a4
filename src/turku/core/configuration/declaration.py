"""Declarations of configuration keys: each key is declared once, as a field of a section.

::

    class RetentionConfig(Section, frozen=True, kw_only=True):
        trash_days: Annotated[float, Meta(ge=0), Key("Days for which deleted snapshots can be restored.")] = 7.0

The field gives the key's name, its type, its bounds and its default. The loader (loading.py), the tables of the
reference page, the commented examples and ``config --show`` (display.py) all read the same declaration.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin

import msgspec
from msgspec import NODEFAULT, Meta

T = TypeVar("T", bound=msgspec.Struct)
_LINE_LENGTH = 4096
_ONE_LINE = r"\A[^\x00-\x1f\x7f]*\Z"
Line = Annotated[str, Meta(min_length=1, max_length=_LINE_LENGTH, pattern=_ONE_LINE)]
"""One line of text that is not empty."""
Words = Annotated[tuple[Line, ...], Meta(min_length=1)]
"""A program with its arguments."""
Count = Annotated[int, Meta(ge=1)]
Percent = Annotated[float, Meta(ge=0, le=100)]
Seconds = Annotated[float, Meta(gt=0)]


class Key(msgspec.Struct, frozen=True):
    """The part of a key's declaration that its type and default do not say."""

    help: str
    """Full sentences for people, as the reference page has them. Links are written as Markdown."""
    default_text: str = ""
    """The default in words where it is found out at run time or ``null`` has a meaning."""
    find_default: Callable[[Mapping[str, Any]], Any] | None = None
    """Given the values of the keys declared before, return the default. Raises InvalidValue."""
    parse: Callable[[Any], Any] | None = None
    """Given the value as the file has it, return one of the declared type. Raises InvalidValue."""
    check: Callable[[Any], Any] | None = None
    """Given a value of the declared type, return it as programs use it. Raises InvalidValue."""
    example: str = ""
    """A value to show where the key is required and missing, and in the commented examples."""
    since: str = "2.0"
    """The release that brought the key. The reference page knows the keys of the existing system."""


class Section(msgspec.Struct, frozen=True):
    """Keys that one part of a program needs, or the keys below one key. The docstring's first line is its title."""

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Yield key and message for each broken rule about several keys."""
        yield from ()


class DeclaredKey(msgspec.Struct, frozen=True):
    """A key with all that its declaration says."""

    name: str
    annotated_type: Any
    """The annotated type, as msgspec converts to it."""
    key: Key
    static_default: Any

    @property
    def plain_type(self) -> Any:
        """The type without its bounds."""
        return self.annotated_type.__origin__

    @property
    def section(self) -> type[Section] | None:
        """The section below this key, if its value is one."""
        return _as_section(self.plain_type)

    @property
    def entry_section(self) -> type[Section] | None:
        """The section of each entry, if files map names to sections here.

        The value is such a mapping too, or a tuple of sections that have a field ``name`` beside their keys.
        """
        origin, arguments = get_origin(self.plain_type), get_args(self.plain_type)
        return _as_section(arguments[1 if origin is Mapping else 0]) if origin in (Mapping, tuple) else None

    @property
    def is_required(self) -> bool:
        """True for a key that has no default."""
        return self.static_default is NODEFAULT and self.key.find_default is None

    def default(self, values: Mapping[str, Any]) -> Any:
        """Return the default, given the values of the keys declared before. Raises InvalidValue."""
        return self.static_default if self.key.find_default is None else self.key.find_default(values)


def keys(section: type[msgspec.Struct]) -> list[DeclaredKey]:
    """Return the keys of a section, or those that a configuration declares beside its sections."""
    found = []
    for info in msgspec.structs.fields(section):
        for declared in getattr(info.type, "__metadata__", ()):
            if isinstance(declared, Key):
                default = info.default if info.default_factory is NODEFAULT else info.default_factory()
                found.append(DeclaredKey(info.name, info.type, declared, default))
    return found


def sections(configuration: type[msgspec.Struct]) -> dict[str, type[Section]]:
    """Return the sections of a configuration by the names of its fields, in the order of their declaration."""
    found = {info.name: _as_section(info.type) for info in msgspec.structs.fields(configuration)}
    return {name: section for name, section in found.items() if section is not None}


def all_keys(configuration: type[msgspec.Struct]) -> list[DeclaredKey]:
    """Return every key at the top of the configuration files, in the order of their declaration."""
    return [key for section in (*sections(configuration).values(), configuration) for key in keys(section)]


def value_of(configuration: msgspec.Struct, name: str) -> Any:
    """Return the value of a key, whichever section it is in."""
    for field, section in sections(type(configuration)).items():
        if any(key.name == name for key in keys(section)):
            return getattr(getattr(configuration, field), name)
    return getattr(configuration, name)


def with_values(configuration: T, **values: Any) -> T:
    """Return the configuration with other values of these keys, which are not checked again."""
    changed: dict[str, Any] = {}
    for name, section in sections(type(configuration)).items():
        own = {key.name: values.pop(key.name) for key in keys(section) if key.name in values}
        if own:
            changed[name] = msgspec.structs.replace(getattr(configuration, name), **own)
    return msgspec.structs.replace(configuration, **changed, **values)


def from_builtin(kind: type[Any], value: Any) -> Any:
    """Return the value as Path, Secret, or what a key's own parser made of it. Raises TypeError, ValueError."""
    if isinstance(value, kind):
        return value
    if not isinstance(value, str):
        raise TypeError(f"Expected `str`, got `{type(value).__name__}`")
    if not value or len(value) > _LINE_LENGTH or any(character < " " or character == "\x7f" for character in value):
        raise ValueError(f"{value[:100]!r} is not one line of 1 to {_LINE_LENGTH} characters")
    if kind is Path and not value.startswith("/"):
        raise ValueError(f"{value!r} is not an absolute path")
    return kind(value)


def _as_section(kind: Any) -> type[Section] | None:
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None
