"""Loading: the values of declared keys from the files of a configuration directory, every fault with its place."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import msgspec

from turku.core.configuration import declaration
from turku.core.configuration.declaration import DeclaredKey, Section
from turku.core.configuration.directory import Fault, MergedFiles, refuse
from turku.errors import InvalidValue

T = TypeVar("T", bound=msgspec.Struct)
_UNUSABLE: Any = object()


def load(kind: type[T], files: MergedFiles, faults: list[Fault], *, program: str, config_dir: Path, **given: Any) -> T:
    """Return the checked configuration of this kind.

    ``given`` has the fields that are neither sections nor keys. Raises ConfigurationError with every fault, those that
    ``faults`` has already included.
    """
    checked = try_load(kind, files, faults, config_dir=config_dir, **given)
    refuse(faults, program=program)
    if checked is None:
        raise AssertionError("a configuration without faults was not built")
    return checked


def try_load(kind: type[T], files: MergedFiles, faults: list[Fault], *, config_dir: Path, **given: Any) -> T | None:
    """Return the checked configuration, or None where faults leave none. Every fault is added to ``faults``.

    A fault in one key does not hide those of others: rules about several keys then see its default.
    """
    return _Loader(files, faults, config_dir).load(kind, given)


def unknown_key_warnings(kind: type[msgspec.Struct], files: MergedFiles) -> list[str]:
    """Return a sentence for each key that is not declared, nested ones included, with the known one that is close."""
    return _unknown(files, "", files.content, declaration.all_keys(kind))


class _Loader:
    def __init__(self, files: MergedFiles, faults: list[Fault], config_dir: Path) -> None:
        self._files = files
        self._faults = faults
        self._config_dir = config_dir

    def load(self, kind: type[T], given: Mapping[str, Any]) -> T | None:
        values = self._values(declaration.all_keys(kind), "", self._files.content)
        fields = {"config_dir": self._config_dir, **given}
        for name, section in declaration.sections(kind).items():
            fields[name] = self._built(section, values)
        fields |= {key.name: values.get(key.name, _UNUSABLE) for key in declaration.keys(kind)}
        return None if any(each is _UNUSABLE for each in fields.values()) else kind(**fields)

    def _values(self, keys: Iterable[DeclaredKey], prefix: str, content: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values that ``content`` has, and defaults. Keys that have neither are left out."""
        values: dict[str, Any] = {}
        for key in keys:
            value = self._value(key, f"{prefix}{key.name}", content, values)
            if value is not _UNUSABLE:
                values[key.name] = value
        return values

    def _built(self, section: type[Section], values: Mapping[str, Any]) -> Any:
        names = [key.name for key in declaration.keys(section)]
        if not values.keys() >= set(names):
            return _UNUSABLE
        built = section(**{name: values[name] for name in names})
        for key, message in built.contradictions():
            self._fault(key, message)
        return built

    def _value(self, key: DeclaredKey, place: str, content: Mapping[str, Any], before: Mapping[str, Any]) -> Any:
        """Return the value that ``content`` has, or the default."""
        written = content.get(key.name)
        is_written = key.name in content and not (written is None and key.key.find_default)
        value = self._checked(key, place, written, before) if is_written else _UNUSABLE
        if value is not _UNUSABLE:
            return value
        if key.is_required:
            if not is_written:
                self._missing(key, place)
            return _UNUSABLE
        try:
            return key.default(before)
        except InvalidValue as error:
            self._fault(place, error.sentence)
        except KeyError:
            # A key that the default depends on has a fault of its own.
            pass
        return _UNUSABLE

    def _checked(self, key: DeclaredKey, place: str, written: Any, before: Mapping[str, Any]) -> Any:
        try:
            parsed = written if key.key.parse is None else key.key.parse(written)
            value = self._converted(key, place, parsed, before)
            return value if value is _UNUSABLE or key.key.check is None else key.key.check(value)
        except InvalidValue as error:
            self._fault(place, error.sentence)
        return _UNUSABLE

    def _converted(self, key: DeclaredKey, place: str, written: Any, before: Mapping[str, Any]) -> Any:
        if isinstance(written, dict):
            if key.section is not None:
                return self._nested(key.section, place, written)
            if (section := key.entry_section) is not None:
                return self._entries(key, section, place, written, before)
        try:
            return msgspec.convert(written, key.annotated_type, strict=True, dec_hook=declaration.from_builtin)
        except msgspec.ValidationError as error:
            self._fault(place, f"{error}{_choices(key.plain_type)}")
        return _UNUSABLE

    def _entries(
        self, key: DeclaredKey, section: type[Section], place: str, written: dict[str, Any], around: Mapping[str, Any]
    ) -> Any:
        entries = {name: self._entry(section, f"{place}.{name}", each, around) for name, each in written.items()}
        if any(each is _UNUSABLE for each in entries.values()):
            return _UNUSABLE
        if get_origin(key.plain_type) is tuple:
            return tuple(msgspec.structs.replace(each, name=name) for name, each in entries.items())
        return entries

    def _entry(self, section: type[Section], place: str, written: Any, around: Mapping[str, Any]) -> Any:
        """Return one of several named sections. A key that it leaves out is as in the section around it."""
        if not isinstance(written, dict):
            self._fault(place, f"Expected `object`, got `{type(written).__name__}`")
            return _UNUSABLE
        names = [key.name for key in declaration.keys(section)]
        built = self._nested(section, place, written)
        inherited = {name: around[name] for name in names if name in around and written.get(name) is None}
        return built if built is _UNUSABLE else msgspec.structs.replace(built, **inherited)

    def _nested(self, section: type[Section], place: str, written: dict[str, Any]) -> Any:
        return self._built(section, self._values(declaration.keys(section), f"{place}.", written))

    def _missing(self, key: DeclaredKey, place: str) -> None:
        # What could not be read may have it.
        if self._files.faults:
            return
        message = "is required" + (f", for example {key.key.example}" if key.key.example else "")
        if place in self._files.origins or "." in place:
            self._fault(place, message)
            return
        directory = self._config_dir / "config.d"
        missing = "" if directory.is_dir() else " (there is no such directory)"
        self._faults.append(Fault(f"{directory}{missing}", f"{place}: {message}"))

    def _fault(self, key: str, message: str) -> None:
        self._faults.append(Fault(self._files.place(key), message))


def _choices(kind: Any) -> str:
    """Return the allowed words as the end of a message, if only some words are allowed."""
    words = [word for word in (get_args(kind) if get_origin(kind) is Literal else ()) if isinstance(word, str)]
    return f"; one of {', '.join(words)}" if words else ""


def _unknown(files: MergedFiles, prefix: str, content: Mapping[str, Any], known: list[DeclaredKey]) -> list[str]:
    by_name = {key.name: key for key in known}
    warnings = []
    for name, value in content.items():
        key, place = by_name.get(name), f"{prefix}{name}"
        if key is None:
            warnings.append(f"{files.place(place)}: unknown key, ignored{_suggestion(name, by_name)}")
        elif isinstance(value, dict) and key.section is not None:
            warnings += _unknown(files, f"{place}.", value, declaration.keys(key.section))
        elif isinstance(value, dict) and key.entry_section is not None:
            for entry, written in value.items():
                if isinstance(written, dict):
                    below = declaration.keys(key.entry_section)
                    warnings += _unknown(files, f"{place}.{entry}.", written, below)
    return warnings


def _suggestion(name: str, known: Mapping[str, Any]) -> str:
    # Most files have no unknown key.
    import difflib

    close = difflib.get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
