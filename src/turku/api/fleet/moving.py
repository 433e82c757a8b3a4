"""Moves of machines to other storages, one by one or all of a storage that is drained."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from django.db import transaction

from turku.api.audit import log
from turku.api.fleet import assignment, former_history
from turku.api.fleet.models import FormerHistory, Machine, Storage
from turku.errors import UsageError


def require_target(storage: Storage) -> None:
    """Raise UsageError unless machines can be backed up to this storage."""
    if not storage.active or not storage.published:
        raise UsageError(f"storage {storage} is switched off", hint=f"turku-api storage show {storage}")
    if storage.is_draining:
        raise UsageError(f"storage {storage} is being drained", hint=f"turku-api storage undrain {storage}")


@transaction.atomic
def move(
    machine: Machine, target: Storage, keep_until: datetime | None, *, actor: log.Actor, now: datetime
) -> FormerHistory | None:
    """Let another storage back the machine up from now on.

    Return its history on the former storage, which is kept until ``keep_until`` and readable for the machine, or None
    if it has none there. Raises UsageError if the target is not usable or backs the machine up already.
    """
    require_target(target)
    locked = Machine.objects.select_for_update(no_key=True).get(pk=machine.pk)
    former = locked.storage
    if former == target:
        raise UsageError(f"machine {machine} is on storage {target} already")
    if former is not None and locked.sources.exclude(date_last_backed_up=None).exists():
        former_history.note(locked, former, keep_until, is_moved=True, now=now)
    for row in (locked, machine):
        row.storage = target
    locked.save(update_fields=["storage"])
    former_history.resume(locked)
    changes = {"storage": (former, target)}
    log.record(actor, [log.change_entry("machine.moved", machine, changes)], now=now)
    return FormerHistory.objects.filter(machine_uuid=locked.uuid, storage=former).first() if former else None


def spread(storage: Storage, target: Storage | None) -> Mapping[Machine, Storage]:
    """Return the new storage of each machine of a storage that is drained: the target, or one by free space.

    The same machines always get the same storages, so that a preview shows what will be done. Raises UsageError if
    there is nowhere to move them.
    """
    machines = list(storage.machines.order_by("uuid"))
    if target is not None:
        require_target(target)
        if target == storage:
            raise UsageError(f"storage {storage} cannot be drained to itself")
        return dict.fromkeys(machines, target)
    candidates = [each for each in assignment.eligible_storages() if each != storage]
    if machines and not candidates:
        raise UsageError(
            f"there is no storage for the machines of {storage}: no other one is active, published and has space",
            hint="add a storage, or enable one that has space",
        )
    return dict(zip(machines, _apportioned(candidates, len(machines)), strict=True))


def _apportioned(storages: Sequence[Storage], count: int) -> list[Storage]:
    """Return ``count`` storages, each as often as its share of the free space allows."""
    given = dict.fromkeys(storages, 0)
    chosen = []
    for _ in range(count):
        best = max(storages, key=lambda each: (each.space_available / (given[each] + 1), each.name))
        given[best] += 1
        chosen.append(best)
    return chosen


@transaction.atomic
def set_draining(storage: Storage, *, is_draining: bool, actor: log.Actor, now: datetime) -> None:
    """Keep new machines away from the storage, or let them come again."""
    locked = Storage.objects.select_for_update(no_key=True).get(pk=storage.pk)
    changes = {"is_draining": (locked.is_draining, is_draining)}
    for row in (locked, storage):
        row.is_draining = is_draining
    locked.save(update_fields=["is_draining"])
    if changes["is_draining"][0] != is_draining:
        word = "storage.drained" if is_draining else "storage.undrained"
        log.record(actor, [log.change_entry(word, storage, changes)], now=now)


@transaction.atomic
def set_active(row: Machine | Storage, *, is_active: bool, actor: log.Actor, now: datetime) -> bool:
    """Switch a machine or storage on or off, and return True if it was the other way."""
    locked = type(row)._default_manager.select_for_update(no_key=True).get(pk=row.pk)
    if locked.active is is_active:
        return False
    locked.active = row.active = is_active
    locked.save(update_fields=["active"])
    word = f"{row._meta.model_name}.{'enabled' if is_active else 'disabled'}"
    entry = log.change_entry(word, row, {"active": (not is_active, is_active)}, weakens=not is_active)
    log.record(actor, [entry], now=now)
    return True
