"""The health of the whole fleet, as sentences and as one line."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Count, QuerySet

from turku.api.status import fleet_marks, reasons, remarks, source_marks
from turku.api.status.marks import DEFAULT_LIMITS, HealthLimits, Mark
from turku.api.status.remarks import SENTENCES_LIMIT
from turku.core.log import one_line


@dataclass(frozen=True)
class HealthGroup:
    """The health of storages, machines or sources: the number that counts, the problems, and a sentence about each."""

    noun: str
    counted: int
    problems: tuple[tuple[Mark, int], ...]
    sentences: tuple[str, ...]

    def __str__(self) -> str:
        nouns = self.noun if self.counted == 1 else f"{self.noun}s"
        if not self.problems:
            return f"{self.counted} {nouns} ok"
        states = ", ".join(f"{count} {mark.label}" for mark, count in self.problems)
        return f"{states} of {self.counted} {nouns}"


@dataclass(frozen=True)
class FleetHealth:
    """The health of storages, machines and sources. Those switched off do not count."""

    groups: tuple[HealthGroup, ...]
    remarks: tuple[str, ...] = ()
    """Remarks that are no problem by themselves, such as full backups each time or missing restore drills."""
    long_queues: tuple[str, ...] = ()
    """A sentence about each storage at which machines wait too long for a slot."""

    @property
    def is_healthy(self) -> bool:
        return not any(group.problems for group in self.groups) and not self.long_queues

    @property
    def summary(self) -> str:
        """One line for Nagios."""
        parts = [str(group) for group in self.groups]
        if self.long_queues:
            parts.append(f"queue too long at {len(self.long_queues)} storage{'s' * (len(self.long_queues) > 1)}")
        return f"{'OK' if self.is_healthy else 'CRITICAL'}: {'; '.join(parts)}"


_TO_BE_DECIDED = (Mark.QUARANTINED, Mark.WITHDRAWN)
"""Marks that a decision of a person ends. Their sentences include the next step."""
Reason = Callable[[Sequence[Any]], Sequence[str]]
"""Returns the reason of each row with a mark. Only marks that are no problem need none."""


def _group(noun: str, rows: QuerySet[Any], relations: Sequence[str], explain: Reason, *, verbose: bool) -> HealthGroup:
    counts = {
        Mark(mark): count
        for mark, count in rows.order_by().values_list("mark").annotate(Count("pk")).values_list("mark", "pk__count")
    }
    problems = tuple((mark, counts[mark]) for mark in Mark if mark.is_problem and counts.get(mark))
    sentences: list[str] = []
    if verbose and problems:
        bad = rows.filter(mark__in=[mark.value for mark, _count in problems]).select_related(*relations)
        first = list(bad[:SENTENCES_LIMIT])
        for row, reason in zip(first, explain(first), strict=True):
            name = " / ".join([*(str(row.machine) for _ in relations if noun == "source"), str(row)])
            sentences.append(f"{noun} {name}: {Mark(row.mark).label}{f': {reason}' if reason else ''}")
            if noun == "source" and Mark(row.mark) in _TO_BE_DECIDED:
                sentences.append(f"    {reasons.source_next_step(row, Mark(row.mark))}")
        more = sum(count for _mark, count in problems) - len(first)
        sentences += [f"and {more} more {noun}s that have a problem"] if more > 0 else []
    counted = sum(count for mark, count in counts.items() if mark is not Mark.OFF)
    return HealthGroup(noun, counted, problems, tuple(map(one_line, sentences)))


def _machine_reasons(now: datetime) -> Reason:
    def reason(rows: Sequence[Any]) -> Sequence[str]:
        worst = reasons.worst_sources([row.pk for row in rows], now=now)
        return [reasons.machine_reason(row, worst.get(row.pk), now=now) for row in rows]

    return reason


def _source_reasons(now: datetime) -> Reason:
    return lambda rows: [reasons.source_reason(row, Mark(row.mark), now=now) for row in rows]


def _storage_reasons(now: datetime) -> Reason:
    return lambda rows: [reasons.storage_reason(row, now=now) for row in rows]


def current_health(*, now: datetime, verbose: bool = False, limits: HealthLimits = DEFAULT_LIMITS) -> FleetHealth:
    """Return the health of everything, with a sentence about each problem if ``verbose``."""
    storages = fleet_marks.storages(now=now, limits=limits)
    machines = fleet_marks.machines(now=now, limits=limits)
    sources = source_marks.sources(now=now, limits=limits)
    groups = (
        _group("storage", storages, (), _storage_reasons(now), verbose=verbose),
        _group("machine", machines, ("storage",), _machine_reasons(now), verbose=verbose),
        _group("source", sources, ("machine__storage",), _source_reasons(now), verbose=verbose),
    )
    remarkable = remarks.remarks(now=now) if verbose else ()
    return FleetHealth(groups, remarkable, remarks.long_queues(now=now))
