"""The sources that a machine's configuration declares: checked, and brought into the database."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from turku.api.audit import log
from turku.api.backups import source_changes
from turku.api.backups.filter_sets import FilterSets, texts
from turku.api.backups.models import (
    DEFAULT_FREQUENCY,
    DEFAULT_RETENTION,
    RULE_LENGTH,
    SOURCES_LIMIT,
    SnapshotMode,
    Source,
)
from turku.api.backups.schedule_slot import next_backup
from turku.api.fleet.faults import Faults
from turku.api.fleet.models import Machine
from turku.api.fleet.registration import label
from turku.errors import PolicyError
from turku.policy import bandwidth, compression, filters, names, retention, schedule

_log = logging.getLogger(__name__)

PATH_LIMIT = 4000
OTHER_OPTIONS_LIMIT_BYTES = 64 * 1024
_OTHER_OPTIONS_DEPTH = 20
_FLAGS = ("preserve_hard_links", "shared_service", "large_rotating_files", "large_modifying_files")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise PolicyError("must be text")
    return value


def _rule_text(value: Any, parse: Callable[[str], Any]) -> str:
    text = _text(value)
    if len(text) > RULE_LENGTH:
        raise PolicyError(f"is longer than {RULE_LENGTH} characters")
    parse(text)
    return text


def _path(value: Any) -> str:
    text = _text(value)
    if not text.startswith("/"):
        raise PolicyError(f"{text[:100]!r} is not an absolute path")
    if len(text) > PATH_LIMIT:
        raise PolicyError(f"is longer than {PATH_LIMIT} characters")
    if any(character < " " or character == "\x7f" for character in text):
        # It becomes a line of the agent's rsyncd.conf, which cannot express them.
        raise PolicyError("has control characters")
    return text


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise PolicyError("must be true or false")
    return value


def _snapshot_mode(value: Any) -> str:
    if value not in SnapshotMode.values:
        raise PolicyError(f"must be one of: {', '.join(SnapshotMode.values)}")
    return str(value)


def _exclude(value: Any) -> list[str]:
    return [filters.parse_exclude(text).text for text in texts(value)]


def _fits(value: Any, depth: int = _OTHER_OPTIONS_DEPTH) -> bool:
    if isinstance(value, (dict, list)):
        items = value.values() if isinstance(value, dict) else value
        return depth > 0 and all(_fits(item, depth - 1) for item in items)
    return not isinstance(value, int) or -(2**63) <= value < 2**64


def _other_options(options: Mapping[str, Any]) -> dict[str, Any]:
    other = {name: value for name, value in options.items() if name not in _RULES and name != "filter"}
    if bandwidth.changes(options.get("bwlimit")):
        # Kept as it was sent: the column has but a number.
        other["bwlimit"] = options["bwlimit"]
    if other.get("compress") is not None:
        try:
            compression.parse(other["compress"])
        except PolicyError as error:
            raise PolicyError(f"compress: {error.message}") from error
    if not _fits(other):
        raise PolicyError(f"nested deeper than {_OTHER_OPTIONS_DEPTH} levels, or with an integer over 64 bits")
    if len(msgspec.json.encode(other)) > OTHER_OPTIONS_LIMIT_BYTES:
        raise PolicyError(f"together larger than {OTHER_OPTIONS_LIMIT_BYTES} bytes")
    return other


_RULES: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "path": (_path, None),
    "comment": (lambda value: label("comment")(_text(value)), ""),
    "frequency": (lambda value: _rule_text(value, schedule.parse), DEFAULT_FREQUENCY),
    "retention": (lambda value: _rule_text(value, retention.parse), DEFAULT_RETENTION),
    "bwlimit": (lambda value: bandwidth.parse(value).constant, None),
    "snapshot_mode": (_snapshot_mode, ""),
    "exclude": (_exclude, []),
    **dict.fromkeys(_FLAGS, (_flag, False)),
}
"""Option to its rule and its value where it is absent or null."""


def check(declared: Mapping[str, Mapping[str, Any]], faults: Faults) -> dict[str, dict[str, Any]]:
    """Source name to all its columns, defaults included; what is wrong goes to ``faults``."""
    if len(declared) > SOURCES_LIMIT:
        faults.add("machine.sources", f"has more than {SOURCES_LIMIT} sources")
        return {}
    filter_sets = FilterSets()
    sources: dict[str, dict[str, Any]] = {}
    lawful: list[str] = []
    for name, options in declared.items():
        place = f"machine.sources.{name!r}" if not name.isprintable() or not name else f"machine.sources.{name}"
        if faults.check(place, names.source_name, name) is not None:
            lawful.append(name)
        columns: dict[str, Any] = {}
        for option, (rule, default) in _RULES.items():
            value = options.get(option)
            columns[option] = default if value is None else faults.check(f"{place}.{option}", rule, value)
        if options.get("path") is None:
            faults.add(f"{place}.path", "is required")
        columns["filter"] = faults.check(f"{place}.filter", filter_sets.check, _or_empty(options.get("filter")))
        columns["other_options"] = faults.check(f"{place}: unknown options", _other_options, options)
        sources[name] = columns
    faults.check("machine.sources", names.source_names, lawful)
    return sources


def _or_empty(value: Any) -> Any:
    return [] if value is None else value


def apply(machine: Machine, declared: Mapping[str, dict[str, Any]], *, now: datetime) -> None:
    """Make the machine's sources those declared; the others are unpublished, never deleted (contract, section 3).

    ``declared`` is what ``check`` returned. To be called in a transaction that holds the machine's row.
    Raises MalformedMessage, ApiRefused (429) for too many changes.
    """
    # Locked: a report of the same moment must not be overwritten by what was read before it.
    existing = {source.name: source for source in machine.sources.select_for_update(no_key=True)}
    new = [name for name in declared if name not in existing]
    _refuse_new(new, existing)
    added = Source.objects.bulk_create(
        Source(machine=machine, name=name, date_added=now, date_next_backup=now, **declared[name]) for name in new
    )
    changes = [_update(source, declared.get(source.name), now=now) for source in existing.values()]
    changed = [change for change in changes if change.columns]
    if changed:
        columns = set().union(*(change.columns for change in changed))
        Source.objects.bulk_update([change.source for change in changed], sorted(columns))
    source_changes.note(machine, [change.weakened for change in changed if change.weakened], now=now)
    entries = [log.Entry("source.added", source, new=declared[source.name]) for source in added]
    entries += [change.entry() for change in changed]
    log.record_of_program(log.actor_of(machine), entries, now=now)


def _refuse_new(new: Sequence[str], existing: Mapping[str, Source]) -> None:
    if not new:
        return
    faults = Faults()
    if len(new) + len(existing) > SOURCES_LIMIT:
        faults.add(
            "machine.sources", f"the machine would have more than {SOURCES_LIMIT}, those included it no longer names"
        )
    # A name that only case or spelling tells from a former one would share its directory on some file systems.
    faults.check("machine.sources", names.source_names, [*existing, *new])
    faults.refuse()


@dataclass(frozen=True)
class _Change:
    """What became of an existing source. ``columns``: name to old and new value."""

    source: Source
    columns: dict[str, tuple[Any, Any]]
    weakened: source_changes.Weakened | None

    def entry(self) -> log.Entry:
        published = self.columns.get("published")
        word = "changed" if published is None else "returned" if published[1] else "no_longer_declared"
        weakened = self.weakened
        notes = {"weakens": [str(each) for each in weakened.weakenings]} if weakened else {}
        return log.Entry(
            f"source.{word}",
            self.source,
            old={name: old for name, (old, _new) in self.columns.items()},
            new={**{name: new for name, (_old, new) in self.columns.items()}, **notes},
            weakens=weakened is not None,
        )


def _update(source: Source, columns: dict[str, Any] | None, *, now: datetime) -> _Change:
    """The change, set on the source and not written yet."""
    before = source_changes.declared(source)
    wanted = {"published": False} if columns is None else {"published": True, **columns}
    changed = {name: (getattr(source, name), value) for name, value in wanted.items() if getattr(source, name) != value}
    for name, (_old, new) in changed.items():
        setattr(source, name, new)
    # A source that waits for its first or next try keeps its turn.
    if "frequency" in changed and source.success:
        slot = next_backup(source, now=now)
        changed["date_next_backup"] = (source.date_next_backup, slot)
        source.date_next_backup = slot
    weakened = None
    if changed:
        after = None if columns is None else source_changes.declared(source)
        weakened = source_changes.compare(source, before, after)
        _log.info("source %s of machine %s changed %s", source.name, source.machine, ", ".join(sorted(changed)))
    return _Change(source, changed, weakened)
