"""The health of the whole fleet, as sentences and as one line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Count, Q, QuerySet
from django.utils import timezone

from turku.api.backups.models import FALLING_BACK, Source
from turku.api.fleet.models import Machine
from turku.api.status import clocks, fleet_marks, integrity, machine_reasons, queue, source_marks, source_reasons
from turku.api.status.limits import DEFAULT_LIMITS, HealthLimits
from turku.api.status.marks import Mark, muted, off
from turku.core.log import one_line

SENTENCES_LIMIT = 100


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
"""Returns the reason of each row with a mark, empty if the mark says everything."""


def _group(noun: str, rows: QuerySet[Any], relations: Sequence[str], reasons: Reason, *, verbose: bool) -> HealthGroup:
    counts = {
        Mark(mark): count
        for mark, count in rows.order_by().values_list("mark").annotate(Count("pk")).values_list("mark", "pk__count")
    }
    problems = tuple((mark, counts[mark]) for mark in Mark if mark.is_problem and counts.get(mark))
    sentences: list[str] = []
    if verbose and problems:
        bad = rows.filter(mark__in=[mark.value for mark, _count in problems]).select_related(*relations)
        first = list(bad[:SENTENCES_LIMIT])
        for row, reason in zip(first, reasons(first), strict=True):
            name = " / ".join([*(str(row.machine) for _ in relations if noun == "source"), str(row)])
            sentences.append(f"{noun} {name}: {Mark(row.mark).label}{f': {reason}' if reason else ''}")
            if noun == "source" and Mark(row.mark) in _TO_BE_DECIDED:
                sentences.append(f"    {source_reasons.next_step(row, Mark(row.mark))}")
        more = sum(count for _mark, count in problems) - len(first)
        sentences += [f"and {more} more {noun}s that have a problem"] if more > 0 else []
    counted = sum(count for mark, count in counts.items() if mark is not Mark.OFF)
    return HealthGroup(noun, counted, problems, tuple(map(one_line, sentences)))


def _machine_reasons(now: datetime) -> Reason:
    def reason(rows: Sequence[Any]) -> Sequence[str]:
        worst = source_reasons.worst_sources([row.pk for row in rows], now=now)
        return [machine_reasons.reason(row, worst.get(row.pk), now=now) for row in rows]

    return reason


def _source_reasons(now: datetime) -> Reason:
    return lambda rows: [source_reasons.reason(row, Mark(row.mark), now=now) for row in rows]


def _muted(*, now: datetime) -> tuple[str, ...]:
    """Return a sentence about the number of muted machines and one about each of the first, if there are any."""
    rows = Machine.objects.exclude(off("")).filter(muted("", now=now))
    count = rows.count()
    if not count:
        return ()
    until = "%Y-%m-%d %H:%M"
    sentences = [
        one_line(f"machine {row}: muted until {timezone.localtime(row.date_muted_until):{until}}: {row.mute_reason}")
        for row in rows[:SENTENCES_LIMIT]
    ]
    more = [f"and {count - SENTENCES_LIMIT} more that are"] if count > SENTENCES_LIMIT else []
    return (f"{count} machine{'' if count == 1 else 's'} muted", *sentences, *more)


def _storage_reasons(rows: Sequence[Any]) -> Sequence[str]:
    """Return the problems that each faulty storage reports."""
    return ["; ".join(row.faults) if row.mark == Mark.FAULTY else "" for row in rows]


def _falling_back() -> tuple[str, ...]:
    """Return a sentence about the number of sources with full runs each time, and one about each of the first.

    It names them whatever other mark they have. It returns nothing if there is none.
    """
    rows = Source.objects.exclude(off("") | off("machine__") | Q(machine__storage=None) | off("machine__storage__"))
    rows = rows.filter(FALLING_BACK)
    count = rows.count()
    if not count:
        return ()
    first = rows.select_related("machine").order_by("machine__unit_name", "name")[:SENTENCES_LIMIT]
    sentences = [
        f"source {row.machine} / {row}: {row.fallback_count} full runs in a row although there was a base "
        f"snapshot: {row.fallback_reason}"
        for row in first
    ]
    more = [f"and {count - SENTENCES_LIMIT} more that are"] if count > SENTENCES_LIMIT else []
    return (f"{count} source{'' if count == 1 else 's'} backed up in full each time", *sentences, *more)


def current_health(*, now: datetime, verbose: bool = False, limits: HealthLimits = DEFAULT_LIMITS) -> FleetHealth:
    """Return the health of everything, with a sentence about each problem if ``verbose``."""
    storages = fleet_marks.storages(now=now, limits=limits)
    machines = fleet_marks.machines(now=now, limits=limits)
    return FleetHealth(
        (
            _group("storage", storages, (), _storage_reasons, verbose=verbose),
            _group("machine", machines, ("storage",), _machine_reasons(now), verbose=verbose),
            _group(
                "source",
                source_marks.sources(now=now, limits=limits),
                ("machine__storage",),
                _source_reasons(now),
                verbose=verbose,
            ),
        ),
        (
            *_muted(now=now),
            *_falling_back(),
            *clocks.remarks(),
            *integrity.remarks(now=now),
            *queue.remarks(now=now),
        )
        if verbose
        else (),
        queue.problems(now=now),
    )
