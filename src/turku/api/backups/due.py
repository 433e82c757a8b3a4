"""Which sources are to be backed up now."""

from __future__ import annotations

from datetime import datetime

from turku.api.backups.models import Source
from turku.api.fleet.models import Machine


def due_sources(machine_key: int, *, now: datetime) -> list[Source]:
    """The machine's sources whose turn has come, by name, machine and storage with them; none while either of those is
    switched off."""
    switches = {
        f"{path}{switch}": True
        for path in ("", "machine__", "machine__storage__")
        for switch in ("active", "published")
    }
    due = Source.objects.filter(machine=machine_key, date_next_backup__lte=now, **switches)
    return list(due.select_related("machine__storage").order_by("name"))


def restorable_sources(machine: Machine) -> list[Source]:
    """The machine's active sources, also those its configuration no longer names: their history can be restored."""
    if machine.storage is None or not machine.storage.active:
        return []
    return list(machine.sources.filter(active=True).order_by("name"))
