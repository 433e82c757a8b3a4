"""Health marks of sources, and the state of the whole fleet in one line."""

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
    """One kind of thing: how many count, how many of them have which problem, and a sentence about each of those."""

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
    """Storages, machines and sources; those switched off do not count."""

    groups: tuple[HealthGroup, ...]
    remarks: tuple[str, ...] = ()
    """What is no problem by itself: sources that are backed up in full each time, or of which no restore was tried."""
    long_queues: tuple[str, ...] = ()
    """A sentence about each storage at which machines wait too long for a slot."""

    @property
    def is_healthy(self) -> bool:
        return not any(group.problems for group in self.groups) and not self.long_queues

    @property
    def summary(self) -> str:
        """One line, as Nagios shows it."""
        parts = [str(group) for group in self.groups]
        if self.long_queues:
            parts.append(f"too long a line at {len(self.long_queues)} storage{'s' * (len(self.long_queues) > 1)}")
        return f"{'OK' if self.is_healthy else 'CRITICAL'}: {'; '.join(parts)}"


_TO_BE_DECIDED = (Mark.QUARANTINED, Mark.WITHDRAWN)
"""Marks that end when somebody decides: what there is to decide is said, too."""
Reason = Callable[[Sequence[Any]], Sequence[str]]
"""Gives for rows with a mark why each has it; empty where the mark says it all."""


def _group(noun: str, rows: QuerySet[Any], relations: Sequence[str], why: Reason, *, verbose: bool) -> HealthGroup:
    counts = {
        Mark(mark): count
        for mark, count in rows.order_by().values_list("mark").annotate(Count("pk")).values_list("mark", "pk__count")
    }
    problems = tuple((mark, counts[mark]) for mark in Mark if mark.is_problem and counts.get(mark))
    sentences: list[str] = []
    if verbose and problems:
        bad = rows.filter(mark__in=[mark.value for mark, _count in problems]).select_related(*relations)
        first = list(bad[:SENTENCES_LIMIT])
        for row, reason in zip(first, why(first), strict=True):
            name = " / ".join([*(str(row.machine) for _ in relations if noun == "source"), str(row)])
            sentences.append(f"{noun} {name}: {Mark(row.mark).label}{f': {reason}' if reason else ''}")
            if noun == "source" and Mark(row.mark) in _TO_BE_DECIDED:
                sentences.append(f"    {source_reasons.next_step(row, Mark(row.mark))}")
        more = sum(count for _mark, count in problems) - len(first)
        sentences += [f"and {more} more {noun}s that have a problem"] if more > 0 else []
    counted = sum(count for mark, count in counts.items() if mark is not Mark.OFF)
    return HealthGroup(noun, counted, problems, tuple(map(one_line, sentences)))


def _why_machines(now: datetime) -> Reason:
    def why(rows: Sequence[Any]) -> Sequence[str]:
        worst = source_reasons.worst_sources([row.pk for row in rows], now=now)
        return [machine_reasons.reason(row, worst.get(row.pk), now=now) for row in rows]

    return why


def _why_sources(now: datetime) -> Reason:
    return lambda rows: [source_reasons.reason(row, Mark(row.mark), now=now) for row in rows]


def _muted(*, now: datetime) -> tuple[str, ...]:
    """Return a sentence about each of the first machines that are muted, and how many there are; none where none is."""
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


def _why_storages(rows: Sequence[Any]) -> Sequence[str]:
    """Return what each storage that is marked for it says is wrong with it."""
    return ["; ".join(row.faults) if row.mark == Mark.FAULTY else "" for row in rows]


def _falling_back() -> tuple[str, ...]:
    """Return how many sources keep falling back to full runs, then a sentence about each of the first of them.

    None where none does. Whatever other mark they have, they are named.
    """
    rows = Source.objects.exclude(off("") | off("machine__") | Q(machine__storage=None) | off("machine__storage__"))
    rows = rows.filter(FALLING_BACK)
    count = rows.count()
    if not count:
        return ()
    first = rows.select_related("machine").order_by("machine__unit_name", "name")[:SENTENCES_LIMIT]
    sentences = [
        f"source {row.machine} / {row}: {row.fallback_count} full runs in a row although there was a snapshot to build "
        f"upon: {row.fallback_reason}"
        for row in first
    ]
    more = [f"and {count - SENTENCES_LIMIT} more that are"] if count > SENTENCES_LIMIT else []
    return (f"{count} source{'' if count == 1 else 's'} backed up in full each time", *sentences, *more)


def current_health(*, now: datetime, verbose: bool = False, limits: HealthLimits = DEFAULT_LIMITS) -> FleetHealth:
    """The state of everything; sentences about each problem only with ``verbose``."""
    storages = fleet_marks.storages(now=now, limits=limits)
    machines = fleet_marks.machines(now=now, limits=limits)
    return FleetHealth(
        (
            _group("storage", storages, (), _why_storages, verbose=verbose),
            _group("machine", machines, ("storage",), _why_machines(now), verbose=verbose),
            _group(
                "source",
                source_marks.sources(now=now, limits=limits),
                ("machine__storage",),
                _why_sources(now),
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
