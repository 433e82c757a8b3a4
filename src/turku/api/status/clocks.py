"""Storages whose clock is ahead: their last report dates a backup in the future."""

from __future__ import annotations

from django.db.models import F, OuterRef, Subquery

from turku.api.backups.models import BackupRun
from turku.api.fleet.models import Storage
from turku.api.status.marks import off
from turku.policy.timing import clock_agreement

_NAMED_LIMIT = 20


def remarks() -> tuple[str, ...]:
    """Return a sentence about each storage whose clock was ahead at its last report.

    A clock that is behind looks like a late report, so the storage itself reports that.
    """
    latest = BackupRun.objects.filter(storage=OuterRef("pk")).order_by("-date", "-pk")[:1]
    rows = (
        Storage.objects.exclude(off(""))
        .annotate(reported=Subquery(latest.values("date")), ended=Subquery(latest.values("date_end")))
        .filter(ended__gt=F("reported") + clock_agreement.TOLERANCE)
        .order_by("name")
    )
    found = [
        f"storage {row}: its clock was "
        f"{clock_agreement.disagreement(row.ended, row.reported, whose='the coordinator')} at its last report"
        for row in rows[: _NAMED_LIMIT + 1]
    ]
    return (*found[:_NAMED_LIMIT], *(["and more storages whose clocks are ahead"] if len(found) > _NAMED_LIMIT else []))
