"""The operator's wish to have sources backed up now."""

from __future__ import annotations

from datetime import datetime

from django.db.models import QuerySet

from turku.api.audit import log
from turku.api.backups.models import Source


def back_up_now(sources: QuerySet[Source], *, actor: log.Actor, now: datetime) -> int:
    """The number of sources that are due from now on; the next ping of their machines starts them."""
    count = sources.order_by().filter(active=True, published=True).update(date_next_backup=now)
    log.record(actor, [log.Entry("source.back_up_now", None, new={"sources": count})], now=now)
    return count
