"""The table of all source options: type, bounds, default, check and help of each.

``turku-agent check``, ``turku-update-config``, the coordinator and the reference page use this table, so that no
program refuses an option that another one accepts. Only the coordinator knows the filter sets: ``merge NAME`` passes
for any name here.
"""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from turku.errors import InvalidValue
from turku.policy import bandwidth, compression, filters, names, retention, run_options, snapshot_mode
from turku.policy.characters import shown, size_bytes
from turku.policy.timing import schedule

SOURCES_LIMIT = 1000
"""Sources of one machine."""
PATH_LIMIT = 4000
"""Characters."""
PATH_LIMIT_BYTES = 4095
"""The longest path that Linux opens."""
PART_LIMIT_BYTES = 255
"""The longest name in a directory of a Linux file system."""
RULE_LENGTH = 1000
"""Characters of a frequency or a retention."""
ENTRIES_LIMIT = 2000
"""Entries of one list."""
TOGETHER_LIMIT = 100_000
"""Filter rules and exclude entries of all sources of a machine."""
UNKNOWN_LIMIT_BYTES = 64 * 1024
"""All options of a source that have no column at the coordinator, as JSON."""
UNKNOWN_DEPTH = 20
DEFAULT_FREQUENCY = "daily"
DEFAULT_RETENTION = "last 5 days, earliest of month"
"""Both are those of the existing system."""


@dataclass(frozen=True)
class Option:
    """One option of a source, with all that its users and its readers need."""

    type: str
    """Type and bounds, as the reference page has them."""
    help: str
    """Full sentences for people, as the reference page has them."""
    check: Callable[[Any], Any]
    """Return the value as programs use it. Raises InvalidValue."""
    default: Any = None
    """The value of an option that is left out or null."""
    default_text: str = ""
    """The default in words, where the value does not say it."""
    has_column: bool = True
    """False for options that the existing system lacks. The coordinator keeps them as sent, beside unknown ones."""
    since: str = "2.0"
    """The release that brought the option, if the existing system lacks it."""

    @property
    def is_required(self) -> bool:
        """True if a source cannot be without it."""
        return self.default_text == "required"


@dataclass(frozen=True)
class Problem:
    """A reason to refuse an option, or all of a source."""

    option: str
    """Empty for a problem of several options together."""
    message: str

    def __str__(self) -> str:
        return f"{self.option}: {self.message}" if self.option else self.message


def problems(options: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the problems of the options of a source."""
    for name, option in OPTIONS.items():
        value = options.get(name)
        if value is None:
            if option.is_required:
                yield Problem(name, "is required")
            continue
        try:
            option.check(value)
        except InvalidValue as error:
            yield Problem(name, error.sentence)
    try:
        check_unknown(unknown(options))
    except InvalidValue as error:
        yield Problem("", f"unknown options: {error.sentence}")


def problems_together(sources: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield the problems of all sources of a machine together. ``sources`` maps names to options."""
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
    """Yield each name that is not an option, with the option of a similar name, or with an empty text."""
    for name in options:
        if name not in OPTIONS:
            yield name, next(iter(difflib.get_close_matches(name, OPTIONS, n=1)), "")


def check_unknown(kept: Mapping[str, Any]) -> None:
    """Raise InvalidValue if the options without a column are too large, or cannot be sent in a message."""
    if not _fits(kept):
        raise InvalidValue(f"nested deeper than {UNKNOWN_DEPTH} levels, or with an integer over 64 bits")
    if not kept:
        return
    try:
        size = len(msgspec.json.encode(kept))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidValue(f"cannot be written as JSON: {error}") from None
    if size > UNKNOWN_LIMIT_BYTES:
        raise InvalidValue(f"together larger than {UNKNOWN_LIMIT_BYTES} bytes")


def texts(value: Any) -> list[str]:
    """Return the value if it is a list of at most ENTRIES_LIMIT texts. Raises InvalidValue."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidValue("must be a list of texts")
    if len(value) > ENTRIES_LIMIT:
        raise InvalidValue(
            f"has more than {ENTRIES_LIMIT} entries", hint="one pattern with * or a filter set stands for many"
        )
    return value


def _fits(value: Any) -> bool:
    """Return True if the value is nested at most UNKNOWN_DEPTH levels, with integers that JSON readers accept."""
    level = [value]
    # Level by level, because a call for each of the hundreds of thousands of values in a message takes long.
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
    patterns = texts(value)
    for text in patterns:
        filters.parse_exclude(text)
    return patterns


def _one_of(*words: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in words:
            raise InvalidValue(f"must be one of: {', '.join(words)}")
        return str(value)

    return check


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidValue("must be true or false")
    return value


def _flag_option(text: str, *, default: bool | None = False, **more: Any) -> Option:
    return Option("`true` or `false`", text, _flag, default, **more)


_LIST = f"list, at most {ENTRIES_LIMIT:,} entries"
_RULE = f"text, at most {RULE_LENGTH:,} characters"
OPTIONS: dict[str, Option] = {
    "path": Option(
        f"text, at most {PATH_LIMIT:,} characters and {PART_LIMIT_BYTES} bytes in each part",
        "Absolute path of the directory that is backed up. It must have no control characters, such as line breaks, "
        "because rsyncd cannot serve them.",
        _path,
        default_text="required",
    ),
    "comment": Option("text, one line", "A comment for people.", _comment, "", default_text="none"),
    "frequency": Option(
        _RULE, "When the source is backed up. See [frequency](#frequency).", _rule(schedule.parse), DEFAULT_FREQUENCY
    ),
    "retention": Option(
        _RULE,
        "Rules by which snapshots are kept. See [retention](#retention).",
        _rule(retention.parse),
        DEFAULT_RETENTION,
    ),
    "bwlimit": Option(
        "whole number from 1, or text",
        "Transfer limit in KiB/s, or limits by time of day, such as `20M 0800-1800 mon-fri, 0`. See "
        "[bandwidth](../howto/queue.md#limit-the-bandwidth-by-time-of-day).",
        bandwidth.parse,
        default_text="none",
    ),
    "snapshot_mode": Option(
        "one of " + ", ".join(f"`{name}`" for name in snapshot_mode.NAMES),
        "Way in which history is kept. See [snapshot modes](#snapshot-modes).",
        _one_of(*snapshot_mode.NAMES),
        "",
        default_text="the storage's",
    ),
    "filter": Option(_LIST, "rsync filter rules. See [filter rules](#filter-rules).", _filter, []),
    "exclude": Option(
        _LIST,
        "rsync exclude patterns, such as `*.tmp` or `/cache/`. A leading `/` stands for the source's own top.",
        _exclude,
        [],
    ),
    "preserve_hard_links": _flag_option(
        "Keeps several names of one file as hard links, also where the storage does not do so for all sources."
    ),
    "not_preserved": Option(
        "list",
        "Properties of files that are not kept: any of `acls`, `attributes`, `hard_links` and `holes`. All of them are "
        "kept by default.",
        run_options.parse_not_preserved,
        [],
        has_column=False,
    ),
    "shared_service": _flag_option(
        "Says that units of one service hold the same data. It is kept and shown, and changes nothing else."
    ),
    "large_rotating_files": _flag_option(
        "Files here are large and replaced. No history is kept, unless `snapshot_mode` says otherwise or the storage's "
        "mode shares blocks."
    ),
    "large_modifying_files": _flag_option(
        "Files here are large and change in place. The same follows as from `large_rotating_files`."
    ),
    "compress": Option(
        "one of " + ", ".join(f"`{choice}`" for choice in compression.Compression),
        'Compresses the transfer: `"on"`, `"off"`, or `"auto"` by the speed of the way to the storage. See below.',
        compression.parse,
        "auto",
        has_column=False,
    ),
    run_options.INCOMPLETE: Option(
        f"one of `{run_options.KEEP}`, `{run_options.FAIL}`",
        'Result of a backup in which single files could not be read: a snapshot with warnings (`"keep"`), or none '
        '(`"fail"`). See [incomplete snapshots](../howto/incomplete-snapshots.md).',
        _one_of(run_options.KEEP, run_options.FAIL),
        run_options.KEEP,
        has_column=False,
    ),
    "compare_contents": _flag_option(
        "Compares the contents of all files in every backup, not size and time alone. See below.", has_column=False
    ),
    run_options.ONE_FILE_SYSTEM: _flag_option(
        "Backs up nothing that is mounted below the source. See below.",
        default=None,
        default_text="by path",
        has_column=False,
    ),
    "expects_mount": _flag_option(
        "Offers the source only while its path is a mount point. See below.", has_column=False
    ),
}
"""Name to option, in the order in which people are shown them."""
