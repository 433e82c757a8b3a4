"""Leases on slots of storages.

A slot is reserved when a machine learns that something is due. The lease begins when its storage asks for it, and
heartbeats extend it. It ends with the last report, the end of the session, or its time. A slot counts one session of a
machine, whatever the number of its sources. A machine with first backups and others holds one in each lane. Every step
is a conditional update, and a unique constraint gives a machine at most one slot of a lane. So no slot
is given away twice, whatever the number of coordinators.
"""

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from django.db.models import F, Q

from turku.api.backups.models import Source
from turku.api.backups.next_backup import may_be_due
from turku.api.fleet.models import Machine, Storage
from turku.api.queue import capacity, waiting_machines
from turku.api.queue.models import LONGEST_LEASE, Slot, is_held_condition
from turku.api.queue.waiting_machines import QueueClaim
from turku.policy import queue
from turku.policy.queue import Lane

_log = logging.getLogger(__name__)

RESERVED_FOR: Final = timedelta(minutes=3)
"""The time for which a slot waits for the machine that was told to come."""
HEARTBEAT_LEASE: Final = timedelta(minutes=4)
"""The time for which a lease outlives the last heartbeat of its session. Storages send one a minute."""
_REMEMBERED: Final = timedelta(days=1)
_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)
_FREE: Final = {
    "machine": None,
    "date_taken": None,
    # The start of the session that ends now.
    "date_last_begun": F("date_begun"),
    "date_begun": None,
    "date_heartbeat": None,
    "date_expires": None,
}


def reserve(machine: Machine, sources: Sequence[Source], *, now: datetime) -> list[Source]:
    """Return those of the machine's due sources for which it has a slot from now on.

    The machine itself asks, so it gets a reservation. Asking again does not extend that.
    """
    storage = machine.storage
    if storage is None or not sources:
        return []
    rows = _rows(storage, machine)
    admitted: set[UUID] = set()
    for lane, members in _by_lane(sources, rows).items():
        slot = _slot_of(rows, storage, machine, lane, now=now)
        if slot is None:
            if _claim(rows, storage, machine, lane, members, now=now) is None:
                continue
        elif slot.date_begun is not None and slot.date_heartbeat is None:
            # The machine asks, so its session at a storage without heartbeats is over.
            Slot.objects.filter(pk=slot.pk, machine=machine, date_begun=slot.date_begun).update(
                date_begun=None, date_expires=now + RESERVED_FOR
            )
        admitted |= {source.pk for source in members}
    return [source for source in sources if source.pk in admitted]


def begin(
    machine: Machine, storage: Storage, sources: Sequence[Source], *, sends_heartbeats: bool, now: datetime
) -> list[Source]:
    """Begin the leases of a session and return the due sources that it may back up now.

    A machine without a reservation is treated as if it asked for one now.
    """
    if not sources:
        return []
    rows = _rows(storage, machine)
    lanes = _by_lane(sources, rows)
    slots = {lane: slot for lane in lanes if (slot := _slot_of(rows, storage, machine, lane, now=now)) is not None}
    if not slots:
        for lane, members in lanes.items():
            claimed = _claim(rows, storage, machine, lane, members, now=now)
            if claimed is not None:
                slots[lane] = claimed
    if not slots:
        return []
    expires = now + (HEARTBEAT_LEASE if sends_heartbeats else LONGEST_LEASE)
    heartbeat = now if sends_heartbeats else None
    mine = Slot.objects.filter(pk__in=[slot.pk for slot in slots.values()], machine=machine)
    begun = mine.update(date_begun=now, date_heartbeat=heartbeat, date_expires=expires)
    if begun < len(slots):
        # A lease lapsed, and another machine took the slot.
        kept = set(mine.values_list("lane", flat=True))
        slots = {lane: slot for lane, slot in slots.items() if lane in kept}
    admitted = {source.pk for lane in slots for source in lanes[lane]}
    return [source for source in sources if source.pk in admitted]


def heartbeat(machine: Machine, storage: Storage, *, now: datetime) -> bool:
    """Extend the leases of the machine's session. Return False if it has none."""
    running = Slot.objects.filter(machine=machine, storage=storage, date_begun__isnull=False)
    return bool(running.update(date_heartbeat=now, date_expires=now + HEARTBEAT_LEASE))


def end(machine: Machine, storage: Storage, *, now: datetime) -> None:
    """Free all slots that the machine holds here, because its session is over."""
    Slot.objects.filter(machine=machine, storage=storage).update(**_FREE, date_freed=now)


def free(slot: Slot, *, now: datetime) -> bool:
    """Free one slot whose row was read. Return False if another machine has it by now."""
    return bool(Slot.objects.filter(pk=slot.pk, machine=slot.machine_id).update(**_FREE, date_freed=now))


def lapsed(*, now: datetime) -> Q:
    """Return a condition for the slots of sessions that went silent within a day and that nobody took since."""
    recently = Q(date_expires__lte=now, date_expires__gt=now - _REMEMBERED)
    return recently & Q(machine__isnull=False, date_begun__isnull=False)


def free_finished_lanes(machine: Machine, storage: Storage, *, now: datetime) -> None:
    """Free the machine's slots of the lanes that have no source left to back up."""
    slots = list(Slot.objects.filter(machine=machine, storage=storage, date_begun__isnull=False))
    if not slots:
        return
    begun = max(slot.date_begun for slot in slots if slot.date_begun is not None)
    # Sources that became due later belong to another session.
    left = machine.sources.filter(may_be_due(now=begun), active=True, published=True).order_by()
    lanes = {
        queue.lane_of(was_backed_up=last is not None) for last in left.values_list("date_last_backed_up", flat=True)
    }
    if Lane.FIRST in lanes and all(slot.lane != Lane.FIRST for slot in slots) and _is_single(storage):
        lanes.add(Lane.REGULAR)
    done = [slot.pk for slot in slots if slot.lane not in lanes]
    if done:
        Slot.objects.filter(pk__in=done, machine=machine).update(**_FREE, date_freed=now)


def _is_single(storage: Storage) -> bool:
    return not Slot.objects.filter(storage=storage, lane=Lane.FIRST, retired=False).exists()


def _rows(storage: Storage, machine: Machine) -> list[Slot]:
    """Return the slots of the storage, created if missing, and those that the machine holds elsewhere."""
    wanted = Q(storage=storage) | Q(machine=machine)
    rows = list(Slot.objects.filter(wanted))
    if not any(row.storage_id == storage.pk and not row.retired for row in rows):
        capacity.settings_of(storage)
        rows = list(Slot.objects.filter(wanted))
    return rows


def _by_lane(sources: Sequence[Source], rows: Sequence[Slot]) -> Mapping[Lane, list[Source]]:
    """Return the sources by lane. A storage with a single slot has one lane."""
    has_first = any(row.lane == Lane.FIRST and not row.retired for row in rows)
    lanes: dict[Lane, list[Source]] = {}
    for source in sources:
        lane = queue.lane_of(was_backed_up=source.date_last_backed_up is not None)
        lanes.setdefault(lane if has_first else Lane.REGULAR, []).append(source)
    return lanes


def _slot_of(rows: Sequence[Slot], storage: Storage, machine: Machine, lane: Lane, *, now: datetime) -> Slot | None:
    """Return the machine's own slot of the lane. A slot that it holds at its former storage is freed."""
    for row in rows:
        if row.machine_id == machine.pk and row.lane == lane:
            if row.storage_id != storage.pk:
                Slot.objects.filter(pk=row.pk, machine=machine).update(**_FREE, date_freed=now)
            elif row.is_held(now):
                return row
    return None


def _claim(
    rows: Sequence[Slot], storage: Storage, machine: Machine, lane: Lane, sources: Sequence[Source], *, now: datetime
) -> Slot | None:
    """Reserve a slot of the lane for the machine, or queue the machine and return None if it is not its turn."""
    free = [row for row in rows if _is_free(row, storage, lane, now=now)]
    # Its own lapsed slot comes first, because it may have only one.
    free.sort(key=lambda row: row.machine_id != machine.pk)
    own = free[0] if free and free[0].machine_id == machine.pk else None
    no_show = own.date_expires if own is not None and own.date_begun is None else None
    claim = waiting_machines.claim_of(machine, lane, sources, no_show=no_show, now=now)
    if free and _may_start(free, storage, machine, lane, claim, now=now):
        for row in free:
            if _take(row, machine, now=now):
                if row.machine_id not in (None, machine.pk) and row.date_begun is None:
                    waiting_machines.record_no_show(storage, lane, row.machine_id, now=now)
                if claim.row is not None:
                    claim.row.delete()
                return row
    waiting_machines.enqueue(storage, lane, machine, claim, now=now)
    return None


def _is_free(row: Slot, storage: Storage, lane: Lane, *, now: datetime) -> bool:
    return row.storage_id == storage.pk and row.lane == lane and not row.retired and not row.is_held(now)


def _may_start(
    free: Sequence[Slot], storage: Storage, machine: Machine, lane: Lane, claim: QueueClaim, *, now: datetime
) -> bool:
    longest = min(free, key=lambda row: row.free_since() or _LONG_AGO)
    since = longest.free_since()
    slots = queue.FreeSlots(len(free), timedelta.max if since is None else now - since, longest.last_length())
    widest = queue.eligible_count(slots, None, now=now)
    # If everybody is eligible, the queue does not matter.
    waiting = (
        [] if widest >= queue.UNLIMITED else waiting_machines.queue_head(storage, lane, machine, limit=widest, now=now)
    )
    return queue.may_start(claim.deadline, waiting, slots, now=now)


def _take(row: Slot, machine: Machine, *, now: datetime) -> bool:
    """Take the slot for the machine. Return True if it succeeds. Of all that try at the same moment, one succeeds."""
    taken = (
        Slot.objects.exclude(is_held_condition(now=now))
        .filter(pk=row.pk, retired=False)
        .update(machine=machine, date_taken=now, date_begun=None, date_heartbeat=None, date_expires=now + RESERVED_FOR)
    )
    return bool(taken)
