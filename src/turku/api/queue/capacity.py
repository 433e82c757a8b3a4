"""The slots of storages as rows, added and retired when their number changes."""

import logging
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import Q

from turku.api.audit import log
from turku.api.fleet.models import Storage
from turku.api.queue.models import Slot, StorageSlots
from turku.policy import queue
from turku.policy.queue import Lane

_log = logging.getLogger(__name__)


def settings_of(storage: Storage) -> StorageSlots:
    """Return the slot settings of the storage. Missing settings and slots are created."""
    found = StorageSlots.objects.filter(storage=storage).first()
    if found is None:
        StorageSlots.objects.bulk_create([StorageSlots(storage=storage)], ignore_conflicts=True)
        found = StorageSlots.objects.get(storage=storage)
        update_slots(found)
    return found


def lane_sizes(settings: StorageSlots) -> dict[Lane, int]:
    """Return the number of slots of each lane. First backups get a quarter if the operator's share does not fit."""
    slots = min(max(settings.effective, 1), queue.SLOTS_LIMIT)
    first = settings.first_slots
    return queue.lanes(slots, first if first is not None and 1 <= first < slots else None)


def update_slots(settings: StorageSlots) -> None:
    """Add and remove rows until the storage has as many as slots.

    A surplus slot that is taken stays with its holder until the end, and nobody gets it after that.
    """
    wanted = lane_sizes(settings)
    with transaction.atomic():
        # Concurrent updates take turns.
        StorageSlots.objects.select_for_update(no_key=True).get(pk=settings.pk)
        rows = Slot.objects.filter(storage=settings.storage_id)
        Slot.objects.bulk_create(
            (
                Slot(storage_id=settings.storage_id, lane=lane, number=number)
                for lane in Lane
                for number in range(wanted[lane])
            ),
            ignore_conflicts=True,
        )
        surplus = Q()
        for lane in Lane:
            surplus |= Q(lane=lane, number__gte=wanted[lane])
        rows.filter(surplus, machine=None).delete()
        rows.filter(surplus).update(retired=True)
        rows.exclude(surplus).filter(retired=True).update(retired=False)


def record_reported_slots(storage: Storage, reported_slots: int | None, *, now: datetime) -> None:
    """Store the number of slots that the storage's configuration names, and log a change."""
    settings = settings_of(storage)
    old = settings.reported_slots
    if old != reported_slots:
        with transaction.atomic():
            settings.reported_slots = reported_slots
            settings.save(update_fields=["reported_slots"])
            update_slots(settings)
            values: list[dict[str, Any]] = [{"reported_slots": old}, {"reported_slots": reported_slots}]
            log.record_of_program(
                log.actor_of(storage), [log.NewEntry("storage.slots", storage, old=values[0], new=values[1])], now=now
            )
        _log.info("storage %s has %d slots", storage, settings.effective)
