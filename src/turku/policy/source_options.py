"""The options of a source, in one table: what each may be, what it is where it is left out, and what it means.

``turku-agent check``, ``turku-update-config`` and the coordinator all ask this table, so that what one of them takes
no other refuses. Filter sets are the coordinator's to know: ``merge NAME`` passes for any name here.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from turku.errors import InvalidValue
from turku.policy import (
    bandwidth,
    compression,
    filters,
    names,
    retention,
    run_options,
    schedule,
    snapshot_mode,
)
from turku.policy.characters import shown, size_bytes

SOURCES_LIMIT = 1000
"""Sources of one machine."""
PATH_LIMIT = 4000
"""Characters."""
PATH_LIMIT_BYTES = 4095
"""What Linux opens."""
PART_LIMIT_BYTES = 255
"""What a file system takes for one name."""
RULE_LENGTH = 1000
"""Characters of a frequency or a retention."""
ENTRIES_LIMIT = 2000
"""Entries of one list."""
TOGETHER_LIMIT = 100_000
"""Filter rules and exclude entries of all sources of a machine."""
UNKNOWN_LIMIT_BYTES = 64 * 1024
"""All that a source has beside the options that the coordinator has a place for, as JSON."""
UNKNOWN_DEPTH = 20
DEFAULT_FREQUENCY = "daily"
DEFAULT_RETENTION = "last 5 days, earliest of month"
"""Both: contract, section 2 and the existing system's own description."""


@dataclass(frozen=True)
class Option:
    """One option of a source."""

    meaning: str
    """A sentence for people."""
    check: Callable[[Any], Any]
    """Returns the value as programs use it. Raises InvalidValue."""
    default: Any = None
    """What it is where it is left out or null."""
    is_required: bool = False
    has_column: bool = True
    """False where the coordinator keeps it as it was sent, beside what it does not know."""


@dataclass(frozen=True)
class Problem:
    """What keeps an option, or all of a source, from being taken."""

    option: str
    """Empty for what is about several options."""
    message: str

    def __str__(self) -> str:
        return f"{self.option}: {self.message}" if self.option else self.message


def problems(options: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what is wrong with the options of a source."""
    for name, option in OPTIONS.items():
        value = options.get(name)
        if value is None:
            if option.is_required:
                yield Problem(name, "is required")
            continue
        try:
            option.check(value)
        except InvalidValue as error:
            yield Problem(name, sentence(error))
    try:
        check_unknown(unknown(options))
    except InvalidValue as error:
        yield Problem("", f"unknown options: {sentence(error)}")


def problems_together(sources: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield what is wrong with all sources of a machine together: name to options."""
    if len(sources) > SOURCES_LIMIT:
        yield f"has more than {SOURCES_LIMIT} sources"
    if entries(sources) > TOGETHER_LIMIT:
        yield f"has more than {TOGETHER_LIMIT} filter rules and exclude entries together"


def entries(sources: Mapping[str, Mapping[str, Any]]) -> int:
    """Return the number of filter rules and exclude entries of all sources."""
    lists = [options.get(name) for options in sources.values() for name in ("filter", "exclude")]
    return sum(len(value) for value in lists if isinstance(value, list))


def unknown(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that the coordinator keeps as they were sent."""
    return {name: value for name, value in options.items() if name not in OPTIONS or not OPTIONS[name].has_column}


def unknown_names(options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the names that are in no table, each with the known one that may be meant, or with nothing."""
    for name in options:
        if name not in OPTIONS:
            yield name, next(iter(difflib.get_close_matches(name, OPTIONS, n=1)), "")


def check_unknown(kept: Mapping[str, Any]) -> None:
    """Raise InvalidValue where what is kept as it was sent is too much, or no message can hold it."""
    if not _fits(kept):
        raise InvalidValue(f"nested deeper than {UNKNOWN_DEPTH} levels, or with an integer over 64 bits")
    if not kept:
        return
    try:
        size = len(msgspec.json.encode(kept))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidValue(f"no JSON: {error}") from None
    if size > UNKNOWN_LIMIT_BYTES:
        raise InvalidValue(f"together larger than {UNKNOWN_LIMIT_BYTES} bytes")


def sentence(error: InvalidValue) -> str:
    """Return what is wrong, with what would be right in brackets."""
    return f"{error.message} ({error.hint})" if error.hint else error.message


def texts(value: Any) -> list[str]:
    """Return the value, which is a list of texts that is not too long. Raises InvalidValue."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidValue("must be a list of texts")
    if len(value) > ENTRIES_LIMIT:
        raise InvalidValue(
            f"has more than {ENTRIES_LIMIT} entries", hint="one pattern with * or a filter set stands for many"
        )
    return value


def _fits(value: Any) -> bool:
    """Return True where it is nested no deeper than is allowed, and JSON's readers take its integers."""
    level = [value]
    # Level by level: a call for each of the hundreds of thousands that fit into a message is dear.
    for _ in range(UNKNOWN_DEPTH + 1):
        if any(isinstance(item, int) and not -(2**63) <= item < 2**64 for item in level):
            return False
        containers = [item for item in level if isinstance(item, (dict, list))]
        if not containers:
            return True
        level = [inner for item in containers for inner in (item.values() if isinstance(item, dict) else item)]
    return False


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidValue("must be text")
    return value


def _path(value: Any) -> str:
    text = _text(value)
    if not text.startswith("/"):
        raise InvalidValue(f"{shown(text)} is not an absolute path")
    if len(text) > PATH_LIMIT:
        raise InvalidValue(f"is longer than {PATH_LIMIT} characters")
    if any(character < " " or character == "\x7f" for character in text):
        # It becomes a line of the agent's rsyncd.conf, which cannot express them.
        raise InvalidValue("has control characters", hint="back up the directory above it")
    if size_bytes(text) > PATH_LIMIT_BYTES:
        raise InvalidValue(f"is longer than {PATH_LIMIT_BYTES} bytes")
    long = next((part for part in text.split("/") if size_bytes(part) > PART_LIMIT_BYTES), None)
    if long is not None:
        raise InvalidValue(f"has a part of more than {PART_LIMIT_BYTES} bytes: {shown(long)}")
    return text


def _comment(value: Any) -> str:
    return names.label(_text(value), kind="comment") if value != "" else ""


def _rule(parse: Callable[[str], Any]) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        text = _text(value)
        if len(text) > RULE_LENGTH:
            raise InvalidValue(f"is longer than {RULE_LENGTH} characters")
        parse(text)
        return text

    return check


def _filter(value: Any) -> list[str]:
    rules = texts(value)
    filters.expand(rules, _any_set)
    return rules


def _any_set(_name: str) -> Sequence[str]:
    return ()


def _exclude(value: Any) -> list[str]:
    return [filters.parse_exclude(text).text for text in texts(value)]


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidValue("must be true or false")
    return value


OPTIONS: dict[str, Option] = {
    "path": Option("Absolute path of the directory that is backed up.", _path, is_required=True),
    "comment": Option("For people, one line.", _comment, ""),
    "frequency": Option("When it is backed up.", _rule(schedule.parse), DEFAULT_FREQUENCY),
    "retention": Option("What is kept.", _rule(retention.parse), DEFAULT_RETENTION),
    "bwlimit": Option("Transfer limit in KiB/s, or limits by time of day.", bandwidth.parse),
    "snapshot_mode": Option("How history is kept.", snapshot_mode.parse, ""),
    "filter": Option("List of rsync filter rules.", _filter, []),
    "exclude": Option("List of rsync exclude patterns.", _exclude, []),
    "preserve_hard_links": Option("Keeps hard links within the source as such.", _flag, False),
    "shared_service": Option("Says that units of one service hold the same data.", _flag, False),
    "large_rotating_files": Option("Files are large and replaced.", _flag, False),
    "large_modifying_files": Option("Files are large and change in place.", _flag, False),
    "compress": Option("Compresses what is sent.", compression.parse, "auto", has_column=False),
    "not_preserved": Option(
        "Properties of files that are left out.", run_options.parse_not_preserved, [], has_column=False
    ),
    run_options.INCOMPLETE: Option(
        "Keeps a snapshot without the files that could not be read, or fails.",
        run_options.parse_incomplete,
        run_options.KEEP,
        has_column=False,
    ),
    "compare_contents": Option("Reads every file on both sides, each time.", _flag, False, has_column=False),
    run_options.ONE_FILE_SYSTEM: Option("Leaves out what is mounted below the source.", _flag, has_column=False),
    "expects_mount": Option("Is backed up only while its path is a mount point.", _flag, False, has_column=False),
}
"""Name to option, in the order in which people are shown them."""
