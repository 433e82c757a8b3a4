"""Actions of operators on sources: back up now, and confirm a withdrawal."""

from __future__ import annotations

from datetime import datetime

from django.db import transaction
from django.db.models import QuerySet

from turku.api.audit import log
from turku.api.backups.models import WITHDRAWN, Source


@transaction.atomic
def back_up_now(sources: QuerySet[Source], *, actor: log.Actor, now: datetime) -> int:
    """The number of sources that are due from now on; the next ping of their machines starts them."""
    wanted = sources.filter(active=True, published=True)
    # In the order of their names, as everybody locks them; an update by itself has an order of its own.
    list(wanted.select_for_update(no_key=True).values_list("pk"))
    count = wanted.order_by().update(date_next_backup=now)
    log.record(actor, [log.NewEntry("source.back_up_now", None, new={"sources": count})], now=now)
    return count


@transaction.atomic
def confirm_withdrawal(sources: QuerySet[Source], *, actor: log.Actor, now: datetime) -> int:
    """Take note that these sources are meant to be backed up no more; return how many of them were withdrawn."""
    # In the order of their names, as everybody locks them.
    rows = list(sources.filter(WITHDRAWN).order_by("machine", "name").select_for_update(no_key=True, of=("self",)))
    Source.objects.filter(pk__in=[row.pk for row in rows]).update(date_withdrawn=None)
    entries = [
        log.NewEntry(
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
