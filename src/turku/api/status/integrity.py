"""Sources with damage to act on, and unproven sources, which have no fresh restore drill."""

from __future__ import annotations

from datetime import datetime

from django.db.models import Q, QuerySet

from turku.api.backups.models import SnapshotModeChoices, Source
from turku.api.integrity.models import OPEN, Damage
from turku.api.status.marks import off
from turku.policy.timing.clock_agreement import COORDINATORS_TOLERANCE

SENTENCES_LIMIT = 100


def damaged() -> Q:
    """Return a condition for sources with open damage. The database looks up the few of them once."""
    return Q(pk__in=Damage.objects.filter(OPEN).order_by().values("source"))


def unproven(*, now: datetime) -> QuerySet[Source]:
    """Return the sources that have backups, are not switched off, and have no fresh good restore drill.

    Sources without history are skipped, because drills restore snapshots.
    """
    return (
        Source.objects.exclude(off("") | off("machine__") | Q(machine__storage=None) | off("machine__storage__"))
        .filter(date_last_backed_up__isnull=False)
        .exclude(snapshot_mode=SnapshotModeChoices.NONE)
        .exclude(integrity__date_proven_until__gte=now, integrity__date_drilled__lte=now + COORDINATORS_TOLERANCE)
    )


def remarks(*, now: datetime) -> tuple[str, ...]:
    """Return a sentence about the number of unproven sources and one about each of the first, if there are any."""
    rows = unproven(now=now)
    count = rows.count()
    if not count:
        return ()
    first = rows.select_related("machine", "integrity").order_by("machine__unit_name", "name")[:SENTENCES_LIMIT]
    sentences = [f"source {row.machine} / {row}: unproven ({_unproven_reason(row)})" for row in first]
    more = [f"and {count - SENTENCES_LIMIT} more that are unproven"] if count > SENTENCES_LIMIT else []
    return (f"{count} source{'' if count == 1 else 's'} unproven: no fresh restore drill", *sentences, *more)


def _unproven_reason(source: Source) -> str:
    state = getattr(source, "integrity", None)
    if state is None or state.drill_succeeded is None:
        return "no restore drill yet"
    if not state.drill_succeeded:
        return "the last restore drill failed"
    return f"the last good restore drill was on {state.date_drilled:%Y-%m-%d}"
