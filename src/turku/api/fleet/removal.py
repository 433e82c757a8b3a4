"""Removal of machines and storages by an operator. What was removed does not come back by its own timer."""

from datetime import datetime
from typing import TypeVar

from django.db import transaction

from turku.api.audit import log
from turku.api.fleet import former_history
from turku.api.fleet.models import FormerHistory, Machine, Storage
from turku.core.units import count_of
from turku.errors import InvalidValue, UsageError
from turku.policy import ssh_key

Host = TypeVar("Host", Machine, Storage)

_OF_MACHINE = (
    *("uuid", "secret_hash", "auth", "environment_name", "service_name", "unit_name", "comment", "ssh_public_key"),
    "date_registered",
)
_OF_STORAGE = ("name", "secret_hash", "auth", "comment", "ssh_ping_host", "ssh_ping_user", "date_registered")


@transaction.atomic
def remove_machine(
    machine: Machine, keep_until: datetime | None, *, actor: log.Actor, now: datetime
) -> list[FormerHistory]:
    """Remove the machine with its sources, and return its histories, which storages keep until ``keep_until``.

    None keeps them without end. A moment that is not in the future lets the storages move them to their trash.
    """
    locked = Machine.objects.select_for_update(no_key=True).get(pk=machine.pk)
    if locked.storage is not None:
        former_history.note(locked, locked.storage, keep_until, is_moved=False, now=now)
    histories = FormerHistory.objects.filter(machine_uuid=locked.uuid)
    histories.update(is_moved=False, date_keep_until=keep_until)
    new = {"history": former_history.fate(keep_until, now=now), "storages": [str(row.storage) for row in histories]}
    log.record(actor, [log.NewEntry("machine.removed", machine, new=new, weakens=True)], now=now)
    _replace(locked, _OF_MACHINE, actor=actor, now=now)
    return list(histories.select_related("storage"))


def _replace(row: Host, columns: tuple[str, ...], *, actor: log.Actor, now: datetime) -> None:
    """Delete the row with everything that belongs to it, and keep its identity in a hidden row."""
    values = {name: getattr(row, name) for name in columns}
    row.delete()
    type(row).every.create(**values, active=False, date_removed=now, removed_by=actor.name)


@transaction.atomic
def readmit_machine(removed: Machine, *, actor: log.Actor, now: datetime) -> Machine:
    """Make a removed machine known again, with its identity and history, and return it.

    The storage that backed it up last backs it up again. Its sources come with its next update-config.
    """
    machine = _readmitted(Machine, removed)
    try:
        fingerprint = ssh_key.ssh_public_key(machine.ssh_public_key).fingerprint
    except InvalidValue:
        fingerprint = ""
    if fingerprint and Machine.objects.filter(ssh_key_fingerprint=fingerprint).exists():
        # Another machine has the key by now, so this one has to send another.
        machine.ssh_public_key, fingerprint = "", ""
    machine.ssh_key_fingerprint = fingerprint
    latest = former_history.of_machine(machine.uuid).filter(storage__active=True, storage__is_draining=False).first()
    machine.storage = None if latest is None else latest.storage
    machine.date_checked_in = now
    machine.save()
    former_history.resume(machine)
    log.record(actor, [log.NewEntry("machine.readmitted", machine, new={"storage": machine.storage})], now=now)
    return machine


def _readmitted(kind: type[Host], removed: Host) -> Host:
    found = kind.every.select_for_update(no_key=True).get(pk=removed.pk)
    if found.date_removed is None:
        raise UsageError(f"{found._meta.verbose_name} {found} was readmitted already")
    found.date_removed, found.removed_by, found.active = None, "", True
    return found


@transaction.atomic
def remove_storage(storage: Storage, *, abandons_histories: bool, actor: log.Actor, now: datetime) -> None:
    """Remove the storage. Raises UsageError while machines, or histories that are not to be abandoned, are on it."""
    locked = Storage.objects.select_for_update(no_key=True).get(pk=storage.pk)
    if machines := locked.machines.count():
        raise UsageError(
            f"storage {locked} backs up {count_of(machines, 'machine')}",
            hint=f"move them first: turku-api storage drain {locked}",
        )
    histories = locked.former_histories.count()
    if histories and not abandons_histories:
        raise UsageError(
            f"storage {locked} keeps the history of {count_of(histories, 'machine')}",
            hint=f"turku-api storage show {locked} lists it; --abandon-histories removes the storage all the same, and "
            "no machine can restore that history any more",
        )
    new = {"abandoned histories": histories}
    log.record(actor, [log.NewEntry("storage.removed", storage, new=new, weakens=True)], now=now)
    _replace(locked, _OF_STORAGE, actor=actor, now=now)


@transaction.atomic
def readmit_storage(removed: Storage, *, actor: log.Actor, now: datetime) -> Storage:
    """Make a removed storage known again, and return it. It reports its address and space at its next update."""
    storage = _readmitted(Storage, removed)
    storage.date_checked_in = now
    storage.save()
    log.record(actor, [log.NewEntry("storage.readmitted", storage)], now=now)
    return storage
