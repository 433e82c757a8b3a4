"""That a machine asked for its sources to restore them: on the audit log, once in ten minutes."""

from __future__ import annotations

from datetime import datetime, timedelta

from turku.api.audit import log
from turku.api.audit.models import ActorKind, AuditEntry
from turku.api.fleet.models import Machine

ACTION = "restore.asked"
_RESOLUTION = timedelta(minutes=10)


def note(machine: Machine, *, now: datetime) -> None:
    """Write that the machine prepares a restore, unless that was written just before."""
    key = log.subject_key(machine)
    recent = AuditEntry.objects.filter(
        actor_kind=ActorKind.MACHINE, actor=key, action=ACTION, date__gt=now - _RESOLUTION, date__lte=now
    )
    if not recent.order_by().exists():
        log.record(log.actor_of(machine), [log.Entry(ACTION, machine)], now=now)
