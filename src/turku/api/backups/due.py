"""Which sources are to be backed up now."""

from __future__ import annotations

from datetime import datetime

from django.db.models import Q

from turku.api.backups.models import Source
from turku.api.backups.next_backup import beyond_schedule, bounded
from turku.api.fleet.models import Machine


def may_be_due(*, now: datetime) -> Q:
    """Return that a source's turn has come, or that it is planned for later than its schedule allows."""
    return Q(date_next_backup__lte=now) | beyond_schedule(now=now)


def due_sources(machine_key: int, *, now: datetime) -> list[Source]:
    """The machine's sources whose turn has come, by name, machine and storage with them; none while either of those is
    switched off."""
    switches = {
        f"{path}{switch}": True
        for path in ("", "machine__", "machine__storage__")
        for switch in ("active", "published")
    }
    rows = Source.objects.filter(may_be_due(now=now), machine=machine_key, **switches)
    return [row for row in rows.select_related("machine__storage").order_by("name") if bounded(row, now=now) <= now]


def restorable_sources(machine: Machine) -> list[Source]:
    """The machine's active sources, also those its configuration no longer names: their history can be restored."""
    if machine.storage is None or not machine.storage.active:
        return []
    return list(machine.sources.filter(active=True).order_by("name"))
