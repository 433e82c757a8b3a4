"""Actions of operators on sources: back up now, and confirm a withdrawal."""

from datetime import datetime

from django.db import transaction
from django.db.models import QuerySet

from turku.api.audit import log
from turku.api.backups.models import WITHDRAWN, Source


@transaction.atomic
def back_up_now(sources: QuerySet[Source], *, actor: log.Actor, now: datetime) -> int:
    """Make the sources due and return their number. The next ping of their machines starts them."""
    wanted = sources.filter(active=True, published=True)
    # Rows are always locked in the order of their names, to avoid deadlocks. An update alone has another order.
    list(wanted.select_for_update(no_key=True).values_list("pk"))
    count = wanted.order_by().update(date_next_backup=now)
    log.record(actor, [log.NewEntry("source.back_up_now", None, new={"sources": count})], now=now)
    return count


@transaction.atomic
def confirm_withdrawal(sources: QuerySet[Source], *, actor: log.Actor, now: datetime) -> int:
    """Confirm that these sources are no longer backed up on purpose, and return how many were withdrawn."""
    # Rows are always locked in the order of their names, to avoid deadlocks.
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
