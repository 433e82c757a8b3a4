"""Detection of changes that weaken the protection of a source.

Every change weakens it that does not provably keep and back up at least as much. A compromised machine can change its
own configuration, so the coordinator delays the effect of such changes on history (threats M4 and M5).
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from turku.errors import InvalidValue
from turku.policy import filters, floor, snapshot_mode
from turku.policy.filters import FilterKind
from turku.policy.retention import LastSnapshots
from turku.policy.timing import schedule

_EXCLUDING = (FilterKind.EXCLUDE, FilterKind.HIDE)
_INCLUDING = (FilterKind.INCLUDE, FilterKind.SHOW)


class Weakening(StrEnum):
    """The way in which a change weakens protection."""

    GONE = "no longer declared"
    PATH = "other path"
    EXCLUDE = "more excluded"
    FILTER = "more filtered out"
    RETENTION = "shorter retention"
    ONE_FILE_SYSTEM = "file systems below it left out"
    SNAPSHOT_MODE = "no snapshots"
    LESS_OFTEN = "backed up less often"
    MORE_OFTEN = "backed up more often, with a number of snapshots kept"

    @property
    def ages_history(self) -> bool:
        """True when less valuable new snapshots would push out older ones, even under the same retention rules."""
        return self in (
            *(Weakening.PATH, Weakening.EXCLUDE, Weakening.FILTER, Weakening.ONE_FILE_SYSTEM),
            Weakening.MORE_OFTEN,
        )


@dataclass(frozen=True)
class Declared:
    """The options of a source that affect its protection."""

    path: str
    frequency: str
    retention: str
    snapshot_mode: str
    """The weakest mode that results (``snapshot_mode.weakest``). Empty for the storage's default."""
    filter: Sequence[str] = ()
    exclude: Sequence[str] = ()
    one_file_system: bool = False


def weakenings(old: Declared, new: Declared | None) -> tuple[Weakening, ...]:
    """Return the weakenings of the change from ``old`` to ``new`` (None: the source is gone), or nothing."""
    if new is None:
        return (Weakening.GONE,)
    old_rules, new_rules = floor.parse_or_keep_all(old.retention), floor.parse_or_keep_all(new.retention)
    old_period, new_period = _period(old.frequency), _period(new.frequency)
    found = {
        Weakening.PATH: _plain_path(old.path) != _plain_path(new.path),
        Weakening.EXCLUDE: list(old.exclude) != list(new.exclude)
        and not _selects_as_much(_exclude_rules(old.exclude), _exclude_rules(new.exclude)),
        Weakening.FILTER: list(old.filter) != list(new.filter)
        and not _selects_as_much(_filter_rules(old.filter), _filter_rules(new.filter)),
        Weakening.RETENTION: not floor.keeps_as_much(old_rules, new_rules),
        Weakening.ONE_FILE_SYSTEM: new.one_file_system and not old.one_file_system,
        Weakening.SNAPSHOT_MODE: new.snapshot_mode == snapshot_mode.NONE != old.snapshot_mode,
        Weakening.LESS_OFTEN: old_period < new_period,
        Weakening.MORE_OFTEN: old_period > new_period
        and any(isinstance(rule, LastSnapshots) for rule in old_rules.rules),
    }
    return tuple(weakening for weakening, is_found in found.items() if is_found)


def _period(frequency: str) -> timedelta:
    # A source without a valid schedule is never due.
    try:
        return schedule.parse(frequency).period
    except InvalidValue:
        return timedelta.max


def _plain_path(path: str) -> str:
    return path.rstrip("/") or "/"


def _filter_rules(texts: Iterable[str]) -> list[filters.FilterRule | str]:
    """Return the parsed rules. A rule that names a filter set stays text, because the set is the operator's."""
    rules: list[filters.FilterRule | str] = []
    for text in texts:
        try:
            rules.append(filters.parse_rule(text))
        except InvalidValue:
            rules.append(text)
    return rules


def _exclude_rules(texts: Iterable[str]) -> list[filters.FilterRule | str]:
    return [filters.parse_exclude(text) for text in texts]


def _kind(rule: filters.FilterRule | str) -> FilterKind | None:
    return None if isinstance(rule, str) else rule.kind


def _selects_as_much(old: Sequence[filters.FilterRule | str], new: Sequence[filters.FilterRule | str]) -> bool:
    """Return True when the new rules provably exclude nothing that the old ones include. The first match counts.

    If all rules exclude, their order does not matter. Otherwise the new rules must be the old ones in the same order,
    where excluding rules may be missing and including rules may be added.
    """
    if all(_kind(rule) in _EXCLUDING for rule in (*old, *new)):
        return set(new) <= set(old)
    places: dict[filters.FilterRule | str, list[int]] = {}
    for index, rule in enumerate(old):
        places.setdefault(rule, []).append(index)
    letting_through = [index for index, rule in enumerate(old) if _kind(rule) not in _EXCLUDING]
    position = 0
    for rule in new:
        # Find this rule among the next old ones, without skipping a rule that includes. Bisection keeps the cost low,
        # where a search would compare two thousand rules with two thousand (threats M11).
        found, barrier = _first_from(places.get(rule, ()), position), _first_from(letting_through, position)
        if found is not None and (barrier is None or found <= barrier):
            position = found + 1
        elif _kind(rule) not in _INCLUDING:
            return False
    return all(_kind(rule) in _EXCLUDING for rule in old[position:])


def _first_from(indexes: Sequence[int], start: int) -> int | None:
    """Return the first of the ordered indexes that is not below ``start``."""
    place = bisect_left(indexes, start)
    return indexes[place] if place < len(indexes) else None
