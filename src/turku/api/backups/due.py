"""Which sources are to be backed up now."""

from __future__ import annotations

from datetime import datetime

from turku.api.backups.models import Source
from turku.api.fleet.models import Machine


def due_sources(machine: Machine, *, now: datetime) -> list[Source]:
    """The machine's sources whose turn has come, by name; none while machine or storage are switched off."""
    storage = machine.storage
    if storage is None or not (storage.active and storage.published and machine.active and machine.published):
        return []
    due = machine.sources.filter(active=True, published=True, date_next_backup__lte=now)
    return list(due.order_by("name"))


def restorable_sources(machine: Machine) -> list[Source]:
    """The machine's active sources, also those its configuration no longer names: their history can be restored."""
    if machine.storage is None or not machine.storage.active:
        return []
    return list(machine.sources.filter(active=True).order_by("name"))
