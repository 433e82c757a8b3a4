"""Health marks of sources, and the state of the whole fleet in one line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Count, Model, Q, QuerySet

from turku.api.admission import health as admission_health
from turku.api.backups.models import FALLING_BACK, Source
from turku.api.fleet import health as fleet_health
from turku.api.fleet.health import Conditions, Mark, mark_of, off
from turku.api.fleet.models import Storage
from turku.api.proof import health as proof_health

OVERDUE_AFTER = timedelta(hours=10)
SENTENCES_LIMIT = 100


def source_conditions(*, now: datetime) -> Conditions:
    """The marks of sources; a new one is due at once and has 10 hours until it counts as overdue."""
    return {
        Mark.OFF: off("") | off("machine__") | Q(machine__storage=None) | off("machine__storage__"),
        Mark.SUSPICIOUS: Q(suspicious=True),
        Mark.DAMAGED: proof_health.damaged(),
        Mark.FAILED: Q(success=False),
        Mark.OVERDUE: Q(date_next_backup__lt=now - OVERDUE_AFTER),
        Mark.FALLING_BACK: FALLING_BACK,
    }


def sources(*, now: datetime) -> QuerySet[Source]:
    """All sources, each with its ``mark``."""
    return Source.objects.annotate(mark=mark_of(source_conditions(now=now)))


@dataclass(frozen=True)
class Group:
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

    groups: tuple[Group, ...]
    remarks: tuple[str, ...] = ()
    """What is no problem by itself: sources that are backed up in full each time, or of which no restore was tried."""
    long_lines: tuple[str, ...] = ()
    """A sentence about each storage at which machines wait too long for a slot."""

    @property
    def is_healthy(self) -> bool:
        return not any(group.problems for group in self.groups) and not self.long_lines

    @property
    def summary(self) -> str:
        """One line, as Nagios shows it."""
        parts = [str(group) for group in self.groups]
        if self.long_lines:
            parts.append(f"too long a line at {len(self.long_lines)} storage{'s' * (len(self.long_lines) > 1)}")
        return f"{'OK' if self.is_healthy else 'CRITICAL'}: {'; '.join(parts)}"


def _group(noun: str, rows: QuerySet[Model], relations: Sequence[str], *, verbose: bool) -> Group:
    counts = {
        Mark(mark): count
        for mark, count in rows.order_by().values_list("mark").annotate(Count("pk")).values_list("mark", "pk__count")
    }
    problems = tuple((mark, counts[mark]) for mark in Mark if mark.is_problem and counts.get(mark))
    sentences: tuple[str, ...] = ()
    if verbose and problems:
        bad = rows.filter(mark__in=[mark.value for mark, _count in problems]).select_related(*relations)
        sentences = tuple(
            f"{noun} {' / '.join([*(str(getattr(row, name)) for name in relations), str(row)])}: "
            f"{': '.join([Mark(row.mark).label, *_faults(row)])}"  # type: ignore[attr-defined]  # annotated
            for row in bad
        )
    return Group(noun, sum(count for mark, count in counts.items() if mark is not Mark.OFF), problems, sentences)


def _faults(row: Model) -> list[str]:
    """Return what a storage that is marked for it says is wrong with it."""
    return ["; ".join(row.faults)] if isinstance(row, Storage) and row.mark == Mark.FAULTY else []  # type: ignore[attr-defined]  # annotated


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


def fleet(*, now: datetime, verbose: bool = False) -> FleetHealth:
    """The state of everything; sentences about each problem only with ``verbose``."""
    return FleetHealth(
        (
            _group("storage", fleet_health.storages(now=now), (), verbose=verbose),
            _group("machine", fleet_health.machines(now=now), (), verbose=verbose),
            _group("source", sources(now=now), ("machine",), verbose=verbose),
        ),
        (*_falling_back(), *proof_health.remarks(now=now), *admission_health.remarks(now=now)) if verbose else (),
        admission_health.problems(now=now),
    )
