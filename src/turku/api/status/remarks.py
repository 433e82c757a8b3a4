"""Sentences of the health check about what is remarkable and no problem of one machine."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, F, Min, OuterRef, QuerySet, Subquery
from django.utils import timezone

from turku.api.backups.models import FALLING_BACK, BackupRun, SnapshotModeChoices, Source
from turku.api.fleet import same_name
from turku.api.fleet.models import Machine, Storage
from turku.api.queue import leases, waiting_machines
from turku.api.queue.models import Slot
from turku.api.status.marks import muted, off
from turku.api.status.source_marks import SWITCHED_OFF
from turku.core.log import one_line
from turku.core.units import rough_duration
from turku.policy.timing import clock_agreement
from turku.protocol.messages import FAULT_CLOCK

SENTENCES_LIMIT = 100
TOO_LONG = timedelta(hours=6)
"""A longer wait means that a storage has too few slots or that sessions take too long."""
_NAMED_CLOCKS = 20


def remarks(*, now: datetime) -> tuple[str, ...]:
    """Return a sentence about each thing that is no problem by itself, such as a missing restore drill."""
    sentences = (
        *_muted(now),
        *_falling_back(),
        *_clocks_ahead(),
        *_unproven(now),
        *same_name.remarks(_NAMED_CLOCKS),
        *_silent_sessions(now),
    )
    return tuple(map(one_line, sentences))


def long_queues(*, now: datetime) -> tuple[str, ...]:
    """Return a sentence about each storage at which a machine waits too long."""
    rows = (
        waiting_machines.asking_machines(now=now)
        .order_by()
        .values("storage__name")
        .annotate(machines=Count("machine", distinct=True), first=Min("date_queued"))
        .filter(first__lte=now - TOO_LONG)
        .order_by("first")
    )
    return tuple(_long_line(row["storage__name"], row["machines"], now - row["first"]) for row in rows)


def _long_line(storage: str, machines: int, span: timedelta) -> str:
    wait = "1 machine waits" if machines == 1 else f"{machines} machines wait"
    return f"storage {storage}: {wait} for a slot, the first for {rough_duration(span)}"


def _listed(rows: QuerySet[Any], noun: str, state: str, sentence: Callable[[Any], str]) -> Iterator[str]:
    """Return the number of the rows and a sentence about each of the first, if there are any."""
    count = rows.count()
    if count:
        yield f"{count} {noun}{'' if count == 1 else 's'} {state}"
        yield from map(sentence, rows[:SENTENCES_LIMIT])
    if count > SENTENCES_LIMIT:
        yield f"and {count - SENTENCES_LIMIT} more that are"


def _muted(now: datetime) -> Iterator[str]:
    def sentence(machine: Machine) -> str:
        until = f"{timezone.localtime(machine.date_muted_until):%Y-%m-%d %H:%M}"
        return f"machine {machine}: muted until {until}: {machine.mute_reason}"

    return _listed(Machine.objects.exclude(off("")).filter(muted("", now=now)), "machine", "muted", sentence)


def _falling_back() -> Iterator[str]:
    """Return the sources with full runs each time, whatever other mark they have."""

    def sentence(source: Source) -> str:
        runs = f"{source.fallback_count} full runs in a row although there was a base snapshot"
        return f"source {source.machine} / {source}: {runs}: {source.fallback_reason}"

    return _listed(_sources().filter(FALLING_BACK), "source", "backed up in full each time", sentence)


def _sources() -> QuerySet[Source]:
    rows = Source.objects.exclude(SWITCHED_OFF).select_related("machine", "integrity")
    return rows.order_by("machine__unit_name", "name")


def _clocks_ahead() -> Iterator[str]:
    """Return the storages whose clock was ahead at their last report, which dates a backup in the future.

    A clock that is behind looks like a late report, so the storage itself reports that.
    """
    latest = BackupRun.objects.filter(storage=OuterRef("pk")).order_by("-date", "-pk")[:1]
    rows = (
        Storage.objects.exclude(off(""))
        .exclude(fault_kind=FAULT_CLOCK)
        .annotate(reported=Subquery(latest.values("date")), ended=Subquery(latest.values("date_end")))
        .filter(ended__gt=F("reported") + clock_agreement.TOLERANCE)
        .order_by("name")
    )
    for number, row in enumerate(rows[: _NAMED_CLOCKS + 1]):
        if number == _NAMED_CLOCKS:
            yield "and more storages whose clocks are ahead"
            return
        found = clock_agreement.disagreement(row.ended, row.reported, whose="the coordinator")
        yield f"storage {row}: its clock was {found} at its last report"


def _unproven(now: datetime) -> Iterator[str]:
    """Return the sources that have backups and no fresh good restore drill.

    Sources without history are skipped, because drills restore snapshots.
    """

    def sentence(source: Source) -> str:
        return f"source {source.machine} / {source}: unproven ({_unproven_reason(source)})"

    latest = now + clock_agreement.COORDINATORS_TOLERANCE
    rows = (
        _sources()
        .filter(date_last_backed_up__isnull=False)
        .exclude(snapshot_mode=SnapshotModeChoices.NONE)
        .exclude(integrity__date_proven_until__gte=now, integrity__date_drilled__lte=latest)
    )
    return _listed(rows, "source", "unproven: no fresh restore drill", sentence)


def _unproven_reason(source: Source) -> str:
    state = getattr(source, "integrity", None)
    if state is None or state.drill_succeeded is None:
        return "no restore drill yet"
    if not state.drill_succeeded:
        return "the last restore drill failed"
    return f"the last good restore drill was on {state.date_drilled:%Y-%m-%d}"


def _silent_sessions(now: datetime) -> Iterator[str]:
    """Return the sessions that began, went silent, and were not heard of again."""
    rows = Slot.objects.filter(leases.lapsed(now=now)).order_by("date_expires")
    values = rows.values_list("storage__name", "machine__unit_name", "machine__uuid", "date_expires")[:SENTENCES_LIMIT]
    return (
        f"storage {storage}: the session of machine {unit or uuid} went silent; its lease expired "
        f"{rough_duration(now - expired)} ago"
        for storage, unit, uuid, expired in values
        if expired is not None
    )
