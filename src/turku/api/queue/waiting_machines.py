"""The queue of machines that wait for a slot."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Q, QuerySet

from turku.api.backups.models import Source
from turku.api.fleet.models import Machine, Storage
from turku.api.queue.models import WaitingMachine
from turku.errors import InvalidValue
from turku.policy import queue
from turku.policy.queue import Lane, QueueEntry
from turku.policy.timing import schedule

REMEMBERED = timedelta(days=1)
"""The time for which a no-show is remembered."""
_UNREADABLE_PERIOD = timedelta(days=1)


def asking_machines(*, now: datetime) -> QuerySet[WaitingMachine]:
    """Return the machines that asked lately. Nobody waits for those that stopped asking."""
    return WaitingMachine.objects.filter(date_asked__gt=now - queue.WAITING_TIMEOUT)


@dataclass(frozen=True)
class QueueClaim:
    """The request of a machine in a lane: due date, end of its grace period, and its row in the queue."""

    due: datetime
    deadline: datetime
    row: WaitingMachine | None


def claim_of(
    machine: Machine, lane: Lane, sources: Sequence[Source], *, now: datetime, no_show: datetime | None = None
) -> QueueClaim:
    """Return the claim of a machine with these due sources.

    ``no_show`` is the moment at which it let a reserved slot lapse, unless its row has that.
    """
    row = WaitingMachine.objects.filter(machine=machine, lane=lane).first()
    if no_show is None and row is not None:
        no_show = row.date_no_show
    # All of them are due, including one that a clock that was ahead planned for later.
    dues = [(min(source.date_next_backup, now), source) for source in sources]
    deadline = min(queue.deadline(due, _period(source), no_show=no_show) for due, source in dues)
    return QueueClaim(min(due for due, _source in dues), deadline, row)


def _period(source: Source) -> timedelta:
    try:
        return schedule.parse(source.frequency).period
    except InvalidValue:
        return _UNREADABLE_PERIOD


def queue_head(storage: Storage, lane: Lane, machine: Machine, *, limit: int, now: datetime) -> list[QueueEntry]:
    """Return the first of the other machines in the queue."""
    others = (
        asking_machines(now=now).filter(storage=storage, lane=lane).exclude(machine=machine).order_by("date_deadline")
    )
    return [
        QueueEntry(deadline, since) for deadline, since in others.values_list("date_deadline", "date_queued")[:limit]
    ]


def enqueue(storage: Storage, lane: Lane, machine: Machine, claim: QueueClaim, *, now: datetime) -> None:
    """Add the machine to the queue. A machine that is in it keeps its place."""
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


def record_no_show(storage: Storage, lane: str, machine_id: int, *, now: datetime) -> None:
    """Record that a machine did not use its reserved slot, which another one got."""
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
    """Remove machines that stopped asking long ago from the storage's queue."""
    gone = WaitingMachine.objects.filter(storage=storage, date_asked__lte=now - 2 * queue.WAITING_TIMEOUT)
    gone.filter(Q(date_no_show=None) | Q(date_no_show__lte=now - REMEMBERED)).delete()
