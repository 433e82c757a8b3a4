"""The operator's wish to have sources backed up now."""

from __future__ import annotations

from datetime import datetime

from django.db import transaction
from django.db.models import QuerySet

from turku.api.audit import log
from turku.api.backups.models import Source


@transaction.atomic
def back_up_now(sources: QuerySet[Source], *, actor: log.Actor, now: datetime) -> int:
    """The number of sources that are due from now on; the next ping of their machines starts them."""
    wanted = sources.filter(active=True, published=True)
    # In the order of their names, as everybody locks them; an update by itself has an order of its own.
    list(wanted.select_for_update(no_key=True).values_list("pk"))
    count = wanted.order_by().update(date_next_backup=now)
    log.record(actor, [log.Entry("source.back_up_now", None, new={"sources": count})], now=now)
    return count
