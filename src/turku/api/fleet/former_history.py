"""History that a storage keeps of a machine that it does not back up any more, and the end of that history."""

from collections.abc import Collection
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import QuerySet

from turku.api.audit import log
from turku.api.fleet.models import FormerHistory, Machine, Storage
from turku.policy import names

_SENT_LIMIT = 100_000


def note(machine: Machine, storage: Storage, keep_until: datetime | None, *, is_moved: bool, now: datetime) -> None:
    """Record that this storage only keeps the machine's history from now on."""
    FormerHistory.objects.update_or_create(
        machine_uuid=machine.uuid,
        storage=storage,
        defaults={"machine_name": str(machine), "is_moved": is_moved, "date_since": now, "date_keep_until": keep_until},
    )


def resume(machine: Machine) -> None:
    """Record that the machine's own storage backs it up again. Its other histories are those of a moved machine."""
    rows = FormerHistory.objects.filter(machine_uuid=machine.uuid)
    rows.filter(storage=machine.storage).delete()
    rows.update(is_moved=True)


def of_machine(uuid: UUID) -> QuerySet[FormerHistory]:
    """Return the machine's histories on former storages, the latest first."""
    return FormerHistory.objects.filter(machine_uuid=uuid).select_related("storage").order_by("-date_since", "pk")


def readable_on(storage: Storage) -> "QuerySet[FormerHistory, UUID]":
    """Return the UUIDs of the machines that may restore what this storage keeps of them."""
    return (
        FormerHistory.objects.filter(storage=storage, is_moved=True).order_by().values_list("machine_uuid", flat=True)
    )


def on_storage(storage: Storage) -> list[FormerHistory]:
    """Return the histories that the storage is told about, oldest first."""
    return list(FormerHistory.objects.filter(storage=storage).order_by("date_since", "pk")[:_SENT_LIMIT])


def end(storage: Storage, uuids: Collection[str], *, now: datetime) -> None:
    """Forget the histories of which the storage reports that nothing is left there."""
    known = [UUID(uuid) for uuid in uuids if names.is_machine_uuid(uuid)]
    for row in FormerHistory.objects.filter(storage=storage, machine_uuid__in=known):
        log.record(log.actor_of(storage), [log.NewEntry("history.ended", row)], now=now)
        row.delete()


def fate(keep_until: datetime | None, *, now: datetime) -> str:
    """Return the words for what becomes of a history."""
    if keep_until is None:
        return "kept without end"
    if keep_until <= now + timedelta(seconds=1):
        return "to the trash"
    return f"kept until {keep_until:%Y-%m-%d}"
