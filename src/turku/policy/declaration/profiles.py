"""Profiles: sources that the coordinator proposes to machines, and the rules by which a machine takes them.

Coordinator and agent follow the same rules, but the agent's count: a coordinator that was compromised may propose
anything (threats C6). A source is taken whole or refused whole, so that no option is dropped silently.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from turku.errors import InvalidValue
from turku.policy import filters, names, source_options
from turku.policy.characters import shown
from turku.policy.run_options import ONE_FILE_SYSTEM

PROFILES_LIMIT = 100
"""Profiles of one machine."""
SOURCES_LIMIT = 200
"""Sources of one machine that come from profiles. The others are left for its own."""
SIZE_LIMIT_BYTES = 256 * 1024
"""All profiles of one machine, as JSON."""
ENTRIES_LIMIT = 20_000
"""Filter rules and exclude entries of one machine that come from profiles."""
REASON_LENGTH = 300
OPTIONS = frozenset(
    {
        *("path", "comment", "frequency", "retention", "bwlimit", "filter", "exclude", "preserve_hard_links"),
        *("shared_service", "compress", "compare_contents", ONE_FILE_SYSTEM, "expects_mount"),
    }
)
"""The options that a profile may set.

The others keep no history or leave out properties of files, and are for the machine's own configuration. So is every
option that this program does not know.
"""
JOINED = "exclude"
"""The option of ``defaults`` that a source's own list is added to. Every other option of a source replaces it."""


@dataclass(frozen=True)
class Profile:
    """A named set of sources. The options of each are complete, defaults of the profile included."""

    name: str
    sources: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class TakenSource:
    """A source that a machine takes from a profile."""

    name: str
    profile: str
    options: Mapping[str, Any]
    accepted_below: str
    """The directory of ``accept_profiles`` that it lies below, or is."""

    @property
    def path(self) -> str:
        return str(self.options["path"])


@dataclass(frozen=True)
class RefusedSource:
    """A source of a profile that a machine does not take, with the reason."""

    name: str
    profile: str
    reason: str


@dataclass(frozen=True)
class Choice:
    """The sources that a machine takes and refuses, in the order of the profiles."""

    taken: tuple[TakenSource, ...] = ()
    refused: tuple[RefusedSource, ...] = ()


def profile_name(text: str) -> str:
    """Return the name of a profile. Raises InvalidValue."""
    name = names.label(text, kind="profile name")
    if not name or name != text:
        raise InvalidValue(f"{shown(text)} is not a profile name", hint="one line without blanks at its ends")
    return name


def with_defaults(sources: Mapping[str, Mapping[str, Any]], defaults: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the sources with the options that they do not set. Lists of ``exclude`` are joined."""
    found = {}
    for name, options in sources.items():
        found[name] = {**defaults, **options}
        both = (defaults.get(JOINED), options.get(JOINED))
        if all(isinstance(each, list) for each in both):
            found[name][JOINED] = [*dict.fromkeys([*defaults[JOINED], *options[JOINED]])]
    return found


def choose(profiles: Iterable[Profile], *, accepts: Sequence[str], own: Iterable[str]) -> Choice:
    """Return what a machine takes of these profiles. ``own`` are the names of the sources that it has itself.

    ``accepts`` are the directories of ``accept_profiles``. This decides by names and text alone. Links on the way are
    checked when a source is offered to a storage.
    """
    taken: dict[str, TakenSource] = {}
    refused: list[RefusedSource] = []
    holders = {names.fold(name): "" for name in own}
    room = _Room(len(holders))
    for number, profile in enumerate(sorted(profiles, key=lambda each: each.name)):
        for name, options in profile.sources.items():
            try:
                if number >= PROFILES_LIMIT:
                    raise InvalidValue(f"a machine takes {PROFILES_LIMIT} profiles at most")
                profile_name(profile.name)
                _require_name(name, holders)
                check_options(options)
                below = accepted_below(options["path"], accepts)
                room.take(options)
            except InvalidValue as error:
                refused.append(RefusedSource(name, profile.name, error.sentence[:REASON_LENGTH]))
                continue
            taken[name] = TakenSource(name, profile.name, options, below)
            holders[names.fold(name)] = profile.name
    return Choice(tuple(taken.values()), tuple(refused))


def _require_name(name: str, holders: Mapping[str, str]) -> None:
    names.source_name(name)
    holder = holders.get(names.fold(name))
    if holder == "":
        raise InvalidValue("this machine has a source of that name of its own, which wins")
    if holder is not None:
        raise InvalidValue(f"the profile {shown(holder)} has a source of that name, and comes first")


class _Room:
    """The sources that a machine can still take."""

    def __init__(self, own: int) -> None:
        self._sources = min(SOURCES_LIMIT, source_options.SOURCES_LIMIT - own)
        self._entries = ENTRIES_LIMIT
        self._bytes = SIZE_LIMIT_BYTES

    def take(self, options: Mapping[str, Any]) -> None:
        """Take the room for one more source. Raises InvalidValue where there is none."""
        entries = self._entries - source_options.entries({"": options})
        size = self._bytes - len(msgspec.json.encode(options))
        if self._sources < 1 or entries < 0 or size < 0:
            raise InvalidValue(
                f"a machine takes {SOURCES_LIMIT} sources, {ENTRIES_LIMIT} rules and {SIZE_LIMIT_BYTES} bytes of "
                "options from profiles at most"
            )
        self._sources, self._entries, self._bytes = self._sources - 1, entries, size


def check_options(options: Mapping[str, Any]) -> None:
    """Raise InvalidValue if a source with these options may not come from a profile."""
    for problem in problems(options):
        raise InvalidValue(problem)


def problems(options: Mapping[str, Any]) -> Iterator[str]:
    """Yield the reasons for which a source with these options may not come from a profile."""
    for name in options:
        if name not in OPTIONS:
            yield f"{shown(name)} may not come from a profile"
            return
    for problem in source_options.problems(options):
        yield str(problem)
    for rule in source_options_list(options.get("filter")):
        try:
            # A filter set would be the coordinator's word for anything.
            filters.parse_rule(rule)
        except InvalidValue as error:
            yield f"filter: {error.message}"
    if options.get(ONE_FILE_SYSTEM) is False:
        yield f"{ONE_FILE_SYSTEM}: a profile may set true only"
    path = options.get("path")
    if isinstance(path, str):
        try:
            plain_path(path)
        except InvalidValue as error:
            yield f"path: {error.message}"


def source_options_list(value: Any) -> list[str]:
    """Return the texts of a list option, or nothing for anything else."""
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def plain_path(path: str) -> tuple[str, ...]:
    """Return the parts of an absolute path that is written in its plain form. Raises InvalidValue for any other one.

    Another form could mean something else to another reader.
    """
    parts = path.split("/")
    if parts[0] != "" or len(parts) < 2:
        raise InvalidValue(f"{shown(path)} is not an absolute path")
    if path == "/":
        return ()
    if any(part in ("", ".", "..") for part in parts[1:]):
        raise InvalidValue(f"{shown(path)} has '..', '.' or a slash too many")
    return tuple(parts[1:])


def accepted_below(path: str, accepts: Sequence[str]) -> str:
    """Return the most specific directory of ``accepts`` that the path lies below, or is. Raises InvalidValue."""
    parts = plain_path(path)
    found = [each for each in accepts if parts[: len(plain_path(each))] == plain_path(each)]
    if not found:
        raise InvalidValue(f"{shown(path)} is not below a directory of this machine's accept_profiles")
    return max(found, key=len)
