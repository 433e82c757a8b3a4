"""Changes by a machine that weaken the protection of its history, and their delay."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from django.db.models import Q, QuerySet

from turku.api.backups.models import Source, SourceChange
from turku.api.database import many_rows
from turku.api.fleet import policies
from turku.api.fleet.models import Machine
from turku.policy import floor
from turku.policy.declaration import weakening
from turku.policy.declaration.weakening import Declared, Weakening


@dataclass(frozen=True)
class WeakenedSource:
    """A source whose protection became weaker, with the old and new values as they are stored."""

    source: Source
    weakenings: tuple[Weakening, ...]
    old: dict[str, Any]
    new: dict[str, Any]


def declared_options(source: Source) -> Declared:
    """Return the options that the machine's configuration declares for the source now."""
    return Declared(
        path=source.path,
        frequency=source.frequency,
        retention=source.retention,
        snapshot_mode=source.resulting_mode,
        filter=list(source.filter),
        exclude=list(source.exclude),
        one_file_system=source.one_file_system,
    )


def compare(source: Source, old: Declared, new: Declared | None) -> WeakenedSource | None:
    """Return the weakening of the source by the change, or None."""
    found = weakening.weakenings(old, new)
    if not found:
        return None
    before, after = asdict(old), {} if new is None else asdict(new)
    # The old retention and mode are always stored, because they are sent to storages meanwhile.
    differing = {name for name in before if before[name] != after.get(name)} | {"retention", "snapshot_mode"}
    return WeakenedSource(
        source,
        found,
        {name: value for name, value in before.items() if name in differing},
        {name: value for name, value in after.items() if name in differing},
    )


def not_yet_effective(*, now: datetime) -> Q:
    """Return a condition for changes that do not affect history yet."""
    return Q(date_effective=None) | Q(date_effective__gt=now)


def held_back(sources: Iterable[Source], *, now: datetime) -> QuerySet[SourceChange]:
    """Return the changes of these sources that do not affect history yet."""
    return SourceChange.objects.filter(not_yet_effective(now=now), source__in=list(sources))


def hold_back(machine: Machine, weakened: Sequence[WeakenedSource], *, now: datetime) -> None:
    """Hold the changes back for the delay of the machine's policy, with three queries in all.

    A source has at most one held-back change. A further change joins it and restarts the delay.
    """
    if not weakened:
        return
    limits = policies.floor_of(machine)
    effective = now + limits.delay if limits.weakening_allowed else None
    # Locked, because an operator may decide on one of them at the same time.
    rows = held_back([each.source for each in weakened], now=now).select_for_update(no_key=True)
    waiting = {change.source_id: change for change in rows}
    new: list[SourceChange] = []
    for each in weakened:
        change = waiting.get(each.source.pk)
        if change is None:
            values = {"weakenings": list(each.weakenings), "old": each.old, "new": each.new}
            new.append(SourceChange(source=each.source, date=now, date_effective=effective, **values))
            continue
        _join(change, each)
        change.date = now
        # A change that waits for an operator keeps waiting.
        change.date_effective = effective if change.date_effective is not None else None
    SourceChange.objects.bulk_create(new)
    many_rows.save_columns(list(waiting.values()), ("date", "date_effective", "weakenings", "old", "new"))


def _join(change: SourceChange, further: WeakenedSource) -> None:
    """Keep the oldest values, and the union of all former retention rules."""
    rules = floor.widest(*(floor.parse_or_keep_all(old["retention"]) for old in (change.old, further.old)))
    had_history = Weakening.SNAPSHOT_MODE in change.weakenings or Weakening.SNAPSHOT_MODE not in further.weakenings
    mode = (change if had_history else further).old["snapshot_mode"]
    change.old = {**further.old, **change.old, "retention": rules.text, "snapshot_mode": mode}
    change.new = {**change.new, **further.new}
    change.weakenings = list(dict.fromkeys([*change.weakenings, *further.weakenings]))
