"""The sources of a machine: the directories that its configuration names, with their options."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from turku.core.configuration import directory as files_of
from turku.core.configuration.directory import Fault
from turku.core.configuration.loading import sentence
from turku.errors import InvalidValue
from turku.policy import names

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class SourceConfig:
    """A directory of this machine that is backed up."""

    name: str
    path: str
    options: Mapping[str, Any]
    """All options as they were written, ``path`` included. They are sent to the coordinator verbatim."""
    place: str = field(default="", compare=False)
    """File and line."""


def read(directory: Path, faults: list[Fault]) -> dict[str, SourceConfig]:
    """Return the sources of ``sources.d``, adding every fault with its place. Warnings are logged."""
    files = files_of.read_directories([directory])
    faults.extend(files.faults)
    for warning in files_of.ignored_file_warnings(files):
        _LOG.warning("%s", warning)
    sources: dict[str, SourceConfig] = {}
    for name, options in files.content.items():
        place = f"{files.origins[name]}: {name}"
        lined = files.place_with_line(name)
        if not isinstance(options, dict):
            faults.append(Fault(place, 'must be a dictionary of options, as {"path": "/etc"}'))
            continue
        if options.get("path") is None:
            _LOG.warning("%s: is not a source, because it has no path", lined)
            continue
        try:
            names.source_name(name)
            _require_sendable(options)
            sources[name] = SourceConfig(name=name, path=_path(options["path"]), options=options, place=lined)
        except InvalidValue as error:
            faults.append(Fault(place, sentence(error)))
    try:
        names.source_names(sources)
    except InvalidValue as error:
        faults.append(Fault(str(directory), sentence(error)))
    return sources


def _require_sendable(options: Mapping[str, Any]) -> None:
    # Lone surrogates (how a path that is not UTF-8 could be smuggled into JSON) cannot travel to the API.
    try:
        msgspec.json.encode(options)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidValue(f"has an option that cannot be sent as JSON in UTF-8: {error}") from None


def _path(path: Any) -> str:
    # Only what could never be served ends the program here. ``turku-agent check`` and the coordinator ask
    # policy/source_options.py for the rest, which keeps one source out and not all.
    if not isinstance(path, str):
        raise InvalidValue(f"path: {path!r} is not text")
    if not path.startswith("/"):
        raise InvalidValue(f"path: {path!r} is not an absolute path")
    if any(character in path for character in "\0\n\r"):
        raise InvalidValue(
            f"path: {path!r} has a line break or NUL, which rsyncd cannot serve", hint="back up the directory above it"
        )
    return path
