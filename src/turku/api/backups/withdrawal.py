"""Sources that were backed up and that their machine stopped declaring: a problem until somebody confirms it."""

from __future__ import annotations

from datetime import datetime

from django.db import transaction
from django.db.models import QuerySet

from turku.api.audit import log
from turku.api.backups.models import WITHDRAWN, Source

TOLD_LIMIT = 100
"""Withdrawn sources that are named to their machine."""


@transaction.atomic
def confirm(sources: QuerySet[Source], *, actor: log.Actor, now: datetime) -> int:
    """Take note that these sources are meant to be backed up no more; return how many of them were withdrawn."""
    # In the order of their names, as everybody locks them.
    rows = list(sources.filter(WITHDRAWN).order_by("machine", "name").select_for_update(no_key=True, of=("self",)))
    Source.objects.filter(pk__in=[row.pk for row in rows]).update(date_withdrawn=None)
    entries = [
        log.Entry(
            "source.withdrawal_confirmed",
            row,
            old={"date_withdrawn": row.date_withdrawn},
            new={"date_withdrawn": None},
            weakens=True,
        )
        for row in rows
    ]
    log.record(actor, entries, now=now)
    return len(rows)
