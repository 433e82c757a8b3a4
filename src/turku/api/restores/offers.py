"""The restores that a checkin offers to a machine, and the guest machines of a storage."""

from collections.abc import Iterator
from datetime import datetime

from django.db.models import Q

from turku.api.fleet.models import Machine, Storage
from turku.api.restores import transitions
from turku.api.restores.models import APPROVED, IN_PROGRESS, RestoreRequest
from turku.protocol.messages import StorageAddress
from turku.protocol.restore_messages import SnapshotChoice
from turku.protocol.restore_request_messages import RestoreOrder

OFFERS_LIMIT = 10
"""The number of restores in one answer. The others follow when these are done."""


def offered_restores(machine_key: int, *, now: datetime) -> list[RestoreOrder]:
    """Return the restores that wait for the machine, oldest first."""
    waiting = RestoreRequest.objects.filter(target=machine_key, date_offered__lte=now)
    rows = waiting.select_related("source__machine__storage", "target").order_by("date_offered")[:OFFERS_LIMIT]
    orders = []
    for row in rows:
        if row.date_expires <= now:
            transitions.expire(now=now)
            continue
        storage = row.source.machine.storage
        # A request whose storage is gone or switched off keeps waiting until it expires.
        if storage is not None and storage.active:
            orders.append(_order(row, storage))
    return orders


def _order(row: RestoreRequest, storage: Storage) -> RestoreOrder:
    return RestoreOrder(
        request=str(row.pk),
        source=row.source.name,
        storage=storage_address(storage),
        directory=row.directory,
        snapshot=SnapshotChoice(name=row.resolved_snapshot) if row.resolved_snapshot else snapshot_choice(row),
        paths=row.paths,
        overwrite=row.overwrite,  # type: ignore[arg-type]  # the model's choices are the message's
        of_machine=str(row.source.machine.uuid) if row.is_onto_another_machine else None,
    )


def storage_address(storage: Storage) -> StorageAddress:
    """Return the address of the storage, as machines receive it."""
    return StorageAddress(
        name=storage.name,
        ssh_ping_host=storage.ssh_ping_host,
        ssh_ping_host_keys=storage.ssh_ping_host_keys,
        ssh_ping_port=storage.ssh_ping_port,
        ssh_ping_user=storage.ssh_ping_user,
    )


def snapshot_choice(row: RestoreRequest) -> SnapshotChoice:
    """Return the snapshot as the request names it. An empty choice means the latest."""
    return SnapshotChoice(name=row.snapshot or None, at=row.moment or None)


def guest_machines(storage: Storage, *, now: datetime) -> Iterator[Machine]:
    """Return the machines of other storages that are about to restore from this one, which has to know their keys."""
    approved = Q(state__in=IN_PROGRESS) | Q(state__in=APPROVED, date_expires__gt=now)
    rows = RestoreRequest.objects.filter(approved, source__machine__storage=storage).exclude(target__storage=storage)
    targets = rows.order_by().values("target")
    return Machine.objects.filter(pk__in=targets, active=True).order_by("pk").iterator()
