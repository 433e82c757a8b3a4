"""The sources that a machine's configuration declares: checked, and applied to the database."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from turku.api.audit import log
from turku.api.backups import source_changes
from turku.api.backups.filter_sets import FilterSets
from turku.api.backups.models import SOURCES_LIMIT, Source
from turku.api.backups.next_backup import expected_after_change, longest_pause_days, next_backup
from turku.api.database import many_rows
from turku.api.fleet.identity.work_limit import UNITS_PER_SOURCE
from turku.api.fleet.models import Machine
from turku.api.request.message_errors import MessageErrors
from turku.policy import bandwidth, names, source_options
from turku.policy.source_options import Option

_log = logging.getLogger(__name__)


def _other_options(options: Mapping[str, Any]) -> dict[str, Any]:
    other = source_options.unknown(options)
    if bandwidth.changes(options.get("bwlimit")):
        # Stored as it was sent, because the column holds only a number.
        other["bwlimit"] = options["bwlimit"]
    source_options.check_unknown(other)
    return other


def _column(name: str, option: Option) -> tuple[Callable[[Any], Any], Any]:
    if name == "bwlimit":
        return lambda value: bandwidth.parse(value).constant, option.default
    return option.check, option.default


_RULES: dict[str, tuple[Callable[[Any], Any], Any]] = {
    name: _column(name, option)
    for name, option in source_options.OPTIONS.items()
    # Filter rules may name filter sets, which need a lookup.
    if option.has_column and name != "filter"
}
"""The rule of each option, and its default for an absent or null value."""
_KEPT_BESIDE = [name for name, option in source_options.OPTIONS.items() if not option.has_column]
_KEPT_AS_SENT = ("path", "frequency", "retention", "exclude")
_STATE = (
    *(*_RULES, "filter", "other_options", "published", "success"),
    *("date_last_backed_up", "date_next_backup", "date_expected", "date_withdrawn"),
)
"""The columns that decide what a declaration changes."""


def _state(source: Source) -> tuple[Any, ...]:
    return tuple(getattr(source, name) for name in _STATE)


def units_of(declared: Mapping[str, Mapping[str, Any]]) -> int:
    """Return the work that it takes to check and apply a declaration, before any of it is done."""
    return UNITS_PER_SOURCE * len(declared) + source_options.entries(declared)


def known_sources(machine: Machine) -> dict[str, Source]:
    """Return the sources of the machine by name, including those no longer declared. No row is locked."""
    return {source.name: source for source in machine.sources.all()}


def check(
    declared: Mapping[str, Mapping[str, Any]], known: Mapping[str, Source], errors: MessageErrors
) -> dict[str, dict[str, Any]]:
    """Return all columns of each source by name, defaults included, and record what is wrong in ``errors``.

    Options that equal those of a ``known`` source were checked when they came.
    """
    if not _fits_together(declared, errors):
        return {}
    filter_sets = FilterSets()
    sources: dict[str, dict[str, Any]] = {}
    lawful: list[str] = []
    for name, options in declared.items():
        place = f"machine.sources.{name!r}" if not name.isprintable() or not name else f"machine.sources.{name}"
        if errors.check(place, names.source_name, name) is not None:
            lawful.append(name)
        sources[name] = _columns(options, known.get(name), filter_sets, errors, place=place)
    errors.check("machine.sources", names.source_names, lawful)
    return sources


def check_each(
    declared: Mapping[str, Mapping[str, Any]], known: Mapping[str, Source], errors: MessageErrors
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Return the columns of the sources that can be taken, and the reason for each of the others, both by name.

    Only what is wrong with all of them together is recorded in ``errors``.
    """
    if not _fits_together(declared, errors):
        return {}, {}
    filter_sets = FilterSets()
    taken: dict[str, dict[str, Any]] = {}
    refused: dict[str, str] = {}
    # Names that differ only in case or Unicode form would share a directory on some file systems. The first one counts.
    folded = {names.fold(name): name for name in known}
    for name, options in declared.items():
        own = MessageErrors()
        if own.check("name", names.source_name, name) is not None:
            twin = folded.get(names.fold(name), name)
            if twin != name:
                own.add(
                    "name", f"differs from the source {twin} only by case or spelling: they could share a directory"
                )
            elif name not in known and len(folded) >= SOURCES_LIMIT:
                own.add("name", f"the machine would have more than {SOURCES_LIMIT}, undeclared ones included")
        columns = _columns(options, known.get(name), filter_sets, own)
        if own.sentence:
            refused[name] = own.sentence
        else:
            taken[name] = columns
            folded[names.fold(name)] = name
    return taken, refused


def _fits_together(declared: Mapping[str, Mapping[str, Any]], errors: MessageErrors) -> bool:
    for problem in source_options.problems_together(declared):
        errors.add("machine.sources", problem)
        return False
    return True


def _columns(
    options: Mapping[str, Any], known: Source | None, filter_sets: FilterSets, errors: MessageErrors, *, place: str = ""
) -> dict[str, Any]:
    prefix = f"{place}." if place else ""
    columns: dict[str, Any] = {}
    for option, (rule, default) in _RULES.items():
        value = options.get(option)
        if value is None:
            columns[option] = default
        elif option in _KEPT_AS_SENT and known is not None and value == getattr(known, option):
            columns[option] = value
        else:
            columns[option] = errors.check(f"{prefix}{option}", rule, value)
    if options.get("path") is None:
        errors.add(f"{prefix}path", "is required")
    columns["filter"] = errors.check(f"{prefix}filter", filter_sets.check, _or_empty(options.get("filter")))
    for option in _KEPT_BESIDE:
        if options.get(option) is not None:
            errors.check(f"{prefix}{option}", source_options.OPTIONS[option].check, options[option])
    columns["other_options"] = errors.check(
        f"{place}: unknown options" if place else "unknown options", _other_options, options
    )
    return columns


def _or_empty(value: Any) -> Any:
    return [] if value is None else value


class DeclarationChanges:
    """The changes of a declaration, computed before the transaction that writes them.

    Other transactions must not wait for this work.
    """

    def __init__(
        self,
        known: Mapping[str, Source],
        declared: Mapping[str, dict[str, Any]],
        *,
        refused: Collection[str] = (),
        now: datetime,
    ) -> None:
        """Compute the changes. ``declared`` is the result of ``check``. Raises MalformedMessage.

        Sources in ``refused`` are declared as well, but not in a way that can be taken: they stay as they are.
        """
        _refuse_new([name for name in declared if name not in known], known)
        self.declared = declared
        self._refused = frozenset(refused)
        self._now = now
        self._planned: dict[str, tuple[tuple[Any, ...], _SourceUpdate]] = {}
        for name, source in known.items():
            before = _state(source)
            self._planned[name] = before, self._update(source)

    @property
    def has_changes(self) -> bool:
        """True if the declaration adds entries to the audit log."""
        is_changed = any(change.columns for _before, change in self._planned.values())
        return is_changed or not self.declared.keys() <= self._planned.keys()

    def change_of(self, source: Source) -> "_SourceUpdate":
        """Return the change of a locked source and set it on the source.

        It is computed again if the source has changed in between.
        """
        before, change = self._planned.get(source.name, (None, None))
        if change is None or before != _state(source):
            return self._update(source)
        for name, (_old, new) in change.columns.items():
            setattr(source, name, new)
        return replace(change, source=source)

    def _update(self, source: Source) -> "_SourceUpdate":
        if source.name in self._refused:
            return _SourceUpdate(source, {}, None)
        return _update(source, self.declared.get(source.name), now=self._now)


def apply(machine: Machine, plan: DeclarationChanges, *, now: datetime) -> list[str]:
    """Make the declared sources those of the machine, and return the names of withdrawn ones.

    Sources that are not declared are unpublished and never deleted (contract, "Calls"). A withdrawn source was backed
    up, is no longer declared, and nobody has confirmed that. The caller's transaction holds the row of the machine.
    Raises MalformedMessage.
    """
    declared = plan.declared
    # Locked, so that a concurrent report is not overwritten with older values.
    existing = {source.name: source for source in machine.sources.select_for_update(no_key=True)}
    new = [name for name in declared if name not in existing]
    _refuse_new(new, existing)
    added = Source.objects.bulk_create(new_source(machine, name, declared[name], now=now) for name in new)
    changes = [plan.change_of(source) for source in existing.values()]
    changed = [change for change in changes if change.columns]
    columns = {column for change in changed for column in change.columns}
    many_rows.save_columns([change.source for change in changed], columns)
    source_changes.hold_back(machine, [change.weakened for change in changed if change.weakened], now=now)
    entries = [log.NewEntry("source.added", source, new=declared[source.name]) for source in added]
    entries += [change.entry() for change in changed]
    # The caller has checked the machine's limit of changes before.
    log.record(log.actor_of(machine), entries, now=now)
    return sorted(name for name, source in existing.items() if source.date_withdrawn and source.active)


def _refuse_new(new: Sequence[str], existing: Mapping[str, Source]) -> None:
    if not new:
        return
    errors = MessageErrors()
    if len(new) + len(existing) > SOURCES_LIMIT:
        errors.add(
            "machine.sources", f"the machine would have more than {SOURCES_LIMIT}, those included it no longer names"
        )
    # Names that differ only in case or Unicode form would share a directory on some file systems.
    errors.check("machine.sources", names.source_names, [*existing, *new])
    errors.raise_if_any()


@dataclass(frozen=True)
class _SourceUpdate:
    """The update of an existing source. ``columns`` maps names to old and new values."""

    source: Source
    columns: dict[str, tuple[Any, Any]]
    weakened: source_changes.WeakenedSource | None

    def entry(self) -> log.NewEntry:
        published = self.columns.get("published")
        word = "changed" if published is None else "returned" if published[1] else "no_longer_declared"
        entry = log.change_entry(f"source.{word}", self.source, self.columns, weakens=self.weakened is not None)
        if self.weakened is None:
            return entry
        return replace(entry, new={**entry.new, "weakens": [str(each) for each in self.weakened.weakenings]})


def _update(source: Source, columns: dict[str, Any] | None, *, now: datetime) -> _SourceUpdate:
    """Set the change on the source without saving it."""
    before = source_changes.declared_options(source)
    wanted = {"published": False} if columns is None else {"published": True, **columns}
    changed = {name: (getattr(source, name), value) for name, value in wanted.items() if getattr(source, name) != value}
    for name, (_old, new) in changed.items():
        setattr(source, name, new)
    if "frequency" in changed:
        times: dict[str, Any] = {
            "date_expected": expected_after_change(source, now=now),
            "longest_pause_days": longest_pause_days(source.frequency),
        }
        # A source that waits for its first try or a retry keeps its due date.
        if source.success:
            times["date_next_backup"] = next_backup(source, now=now)
        for name, value in times.items():
            changed[name] = (getattr(source, name), value)
            setattr(source, name, value)
    was_backed_up = source.date_last_backed_up is not None
    withdrawn = None if source.published else source.date_withdrawn
    if "published" in changed and not source.published and was_backed_up:
        withdrawn = now
        _log.warning(
            "machine %s no longer declares source %s, which was backed up: it is withdrawn until confirmed",
            source.machine,
            source.name,
        )
    if withdrawn != source.date_withdrawn:
        changed["date_withdrawn"] = (source.date_withdrawn, withdrawn)
        source.date_withdrawn = withdrawn
    weakened = None
    if changed:
        after = None if columns is None else source_changes.declared_options(source)
        weakened = source_changes.compare(source, before, after)
        _log.info("source %s of machine %s changed %s", source.name, source.machine, ", ".join(sorted(changed)))
    return _SourceUpdate(source, changed, weakened)


def new_source(
    machine: Machine, name: str, columns: Mapping[str, Any], *, now: datetime, last_backed_up: datetime | None = None
) -> Source:
    """Return a source that is due at once, not saved yet. ``columns`` are those of ``check_each``."""
    return Source(
        machine=machine,
        name=name,
        date_added=now,
        date_next_backup=now,
        date_expected=now,
        date_last_backed_up=last_backed_up,
        longest_pause_days=longest_pause_days(columns["frequency"]),
        **columns,
    )
