"""Problems of the queue: waits that are too long, and leases of sessions that just went silent."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db.models import Count, Min

from turku.api.queue import leases, waiting_machines
from turku.api.queue.models import Slot
from turku.core.units import rough_duration

TOO_LONG = timedelta(hours=6)
"""A longer wait means that a storage has too few slots or that sessions take too long."""
SENTENCES_LIMIT = 100


def problems(*, now: datetime) -> tuple[str, ...]:
    """Return a sentence about each storage at which a machine waits too long."""
    rows = (
        waiting_machines.asking_machines(now=now)
        .order_by()
        .values("storage__name")
        .annotate(machines=Count("machine", distinct=True), first=Min("date_queued"))
        .filter(first__lte=now - TOO_LONG)
        .order_by("first")
    )
    return tuple(_long_line(row["storage__name"], row["machines"], now - row["first"]) for row in rows)


def _long_line(storage: str, machines: int, span: timedelta) -> str:
    wait = "1 machine waits" if machines == 1 else f"{machines} machines wait"
    return f"storage {storage}: {wait} for a slot, the first for {rough_duration(span)}"


def remarks(*, now: datetime) -> tuple[str, ...]:
    """Return a sentence about each session that began, went silent, and was not heard of again."""
    rows = Slot.objects.filter(leases.lapsed(now=now)).order_by("date_expires")
    values = rows.values_list("storage__name", "machine__unit_name", "machine__uuid", "date_expires")[:SENTENCES_LIMIT]
    return tuple(
        f"storage {storage}: the session of machine {unit or uuid} went silent; its lease expired "
        f"{rough_duration(now - expired)} ago"
        for storage, unit, uuid, expired in values
        if expired is not None
    )
