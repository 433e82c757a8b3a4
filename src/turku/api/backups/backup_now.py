"""The operator's wish to have sources backed up now."""

from __future__ import annotations

from datetime import datetime

from django.db import transaction
from django.db.models import QuerySet

from turku.api.audit import log
from turku.api.backups.models import Source
from turku.api.status.fleet import silent_machines

NAMED = 10
"""Silent machines that are named; the others are counted."""


@transaction.atomic
def back_up_now(sources: QuerySet[Source], *, actor: log.Actor, now: datetime) -> int:
    """The number of sources that are due from now on; the next ping of their machines starts them."""
    wanted = sources.filter(active=True, published=True)
    # In the order of their names, as everybody locks them; an update by itself has an order of its own.
    list(wanted.select_for_update(no_key=True).values_list("pk"))
    count = wanted.order_by().update(date_next_backup=now)
    log.record(actor, [log.Entry("source.back_up_now", None, new={"sources": count})], now=now)
    return count


def silent_sentence(sources: QuerySet[Source], *, now: datetime) -> str:
    """Return which machines of these sources are not heard of, so that nothing starts soon; nothing where all are."""
    of_sources = sources.filter(active=True, published=True).order_by().values("machine")
    silent = silent_machines(now=now).filter(pk__in=of_sources, active=True, published=True)
    count = silent.count()
    if not count:
        return ""
    named = ", ".join(str(machine) for machine in silent[:NAMED])
    more = f" and {count - NAMED} more" if count > NAMED else ""
    who = "the machine or its storage is" if count == 1 else "the machines or their storages are"
    # The name does not come first: the site would begin it with a capital letter.
    return f"Silent: {named}{more}. Nothing is backed up there until {who} heard of again."
