"""The assignment of new machines to storages."""

import logging
import random
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

from turku.api.audit import log
from turku.api.fleet.models import Machine, Storage

_log = logging.getLogger(__name__)
_RANDOM = random.SystemRandom()


def choose_storage(storages: Sequence[Storage], source_of_chance: random.Random = _RANDOM) -> Storage | None:
    """Return a random storage, weighted by free space (contract, "Calls"), or None if none has space."""
    with_space = [storage for storage in storages if storage.space_available > 0]
    if not with_space:
        return None
    return source_of_chance.choices(with_space, [storage.space_available for storage in with_space])[0]


def eligible_storages() -> list[Storage]:
    """Return the storages that take new machines: active, published, not drained, and with free space."""
    return list(Storage.objects.filter(active=True, published=True, is_draining=False, space_available__gt=0))


def storage_for(machine: Machine) -> Storage | None:
    """Return a storage for an unassigned machine, or None with a log line if none is eligible."""
    storage = choose_storage(eligible_storages())
    if storage is None:
        _log.warning("machine %s has no storage: none is active, published and has space", machine)
    else:
        _log.info("machine %s is assigned to storage %s", machine, storage)
    return storage


def assign_unassigned(*, now: datetime) -> None:
    """Assign a storage to every active machine without one. The caller holds a transaction."""
    # Another worker assigns a storage to each locked machine, or the machine itself registers.
    machines = list(Machine.objects.filter(storage=None, active=True).select_for_update(no_key=True, skip_locked=True))
    storages = eligible_storages() if machines else []
    chosen: dict[Storage, list[Machine]] = defaultdict(list)
    for machine in machines:
        storage = choose_storage(storages)
        if storage is not None:
            chosen[storage].append(machine)
    for storage, assigned in chosen.items():
        Machine.objects.filter(pk__in=[machine.pk for machine in assigned]).update(storage=storage)
        entries = [log.NewEntry("machine.assigned", machine, new={"storage": storage}) for machine in assigned]
        log.record(log.COORDINATOR, entries, now=now)
        _log.info("%d waiting machines are assigned to storage %s", len(assigned), storage)
