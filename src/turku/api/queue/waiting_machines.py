"""The line of machines that wait for a slot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Q, QuerySet

from turku.api.backups.models import Source
from turku.api.fleet.models import Machine, Storage
from turku.api.queue.models import WaitingMachine
from turku.errors import InvalidValue
from turku.policy import queue, schedule
from turku.policy.queue import Lane, QueueEntry

REMEMBERED = timedelta(days=1)
"""For how long it is remembered that a machine let a slot lapse."""
_UNREADABLE_PERIOD = timedelta(days=1)


def asking_machines(*, now: datetime) -> QuerySet[WaitingMachine]:
    """Those that asked lately; who does not ask any more is not waited for."""
    return WaitingMachine.objects.filter(date_asked__gt=now - queue.WAITING_TIMEOUT)


@dataclass(frozen=True)
class QueueClaim:
    """What a machine asks for in a lane: since when it is due there, when its patience ends, its row in the line."""

    due: datetime
    deadline: datetime
    row: WaitingMachine | None


def claim_of(
    machine: Machine, lane: Lane, sources: Sequence[Source], *, now: datetime, missed: datetime | None = None
) -> QueueClaim:
    """The claim of a machine with these sources due; ``missed`` is when it let a slot lapse that was reserved for it,
    where that is not on its row."""
    row = WaitingMachine.objects.filter(machine=machine, lane=lane).first()
    if missed is None and row is not None:
        missed = row.date_no_show
    # All of them are due, also one that a clock which was ahead planned for later.
    dues = [(min(source.date_next_backup, now), source) for source in sources]
    deadline = min(queue.deadline(due, _period(source), no_show=missed) for due, source in dues)
    return QueueClaim(min(due for due, _source in dues), deadline, row)


def _period(source: Source) -> timedelta:
    try:
        return schedule.parse(source.frequency).period
    except InvalidValue:
        return _UNREADABLE_PERIOD


def queue_head(storage: Storage, lane: Lane, machine: Machine, *, limit: int, now: datetime) -> list[QueueEntry]:
    """The foremost of the others in the line."""
    others = (
        asking_machines(now=now).filter(storage=storage, lane=lane).exclude(machine=machine).order_by("date_deadline")
    )
    return [
        QueueEntry(deadline, since) for deadline, since in others.values_list("date_deadline", "date_queued")[:limit]
    ]


def enqueue(storage: Storage, lane: Lane, machine: Machine, claim: QueueClaim, *, now: datetime) -> None:
    """Put the machine into the line; one that stands in it keeps its place."""
    row = claim.row
    place = WaitingMachine(
        storage=storage,
        machine=machine,
        lane=lane,
        date_due=claim.due,
        date_deadline=claim.deadline,
        date_queued=now,
        date_asked=now,
    )
    if row is None:
        WaitingMachine.objects.bulk_create([place], ignore_conflicts=True)
        return
    columns = ["storage", "date_due", "date_deadline", "date_asked"]
    if row.date_asked <= now - queue.WAITING_TIMEOUT or row.storage_id != storage.pk:
        columns.append("date_queued")
    WaitingMachine.objects.filter(pk=row.pk).update(**{name: getattr(place, name) for name in columns})


def dequeue(row: WaitingMachine) -> None:
    """Take the machine out of the line."""
    WaitingMachine.objects.filter(pk=row.pk).delete()


def record_no_show(storage: Storage, lane: str, machine_id: int, *, now: datetime) -> None:
    """Remember that a machine did not come for the slot that was reserved for it, which another one got."""
    never = now - queue.WAITING_TIMEOUT
    place = WaitingMachine(
        storage=storage,
        machine_id=machine_id,
        lane=lane,
        date_due=now,
        date_deadline=now,
        date_queued=never,
        date_asked=never,
        date_no_show=now,
    )
    WaitingMachine.objects.bulk_create(
        [place], update_conflicts=True, unique_fields=["machine", "lane"], update_fields=["date_no_show"]
    )


def remove_stale(storage: Storage, *, now: datetime) -> None:
    """Remove from the storage's line who is long gone."""
    gone = WaitingMachine.objects.filter(storage=storage, date_asked__lte=now - 2 * queue.WAITING_TIMEOUT)
    gone.filter(Q(date_no_show=None) | Q(date_no_show__lte=now - REMEMBERED)).delete()
