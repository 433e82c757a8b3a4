"""The health marks of sources."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from django.db.models import Q, QuerySet

from turku.api.backups.models import FALLING_BACK, INCOMPLETE, WITHDRAWN, Source
from turku.api.backups.next_backup import later_than_schedule
from turku.api.fleet import policies
from turku.api.integrity.models import OPEN, Damage
from turku.api.status.marks import (
    DEFAULT_LIMITS,
    Conditions,
    HealthLimits,
    Mark,
    Marked,
    mark_of,
    muted,
    off,
    worst_first,
)

if TYPE_CHECKING:
    from django_stubs_ext import WithAnnotations

    MarkedSource = WithAnnotations[Source, Marked]

_STILL_WITHDRAWN = WITHDRAWN & Q(active=True)
_OFF_ABOVE = off("machine__") | Q(machine__storage=None) | off("machine__storage__")
SWITCHED_OFF = off("") | _OFF_ABOVE
"""A source that is switched off, or whose machine or storage is."""
OFF_BY_ITSELF = off("") & ~_STILL_WITHDRAWN
"""A source that its machine stopped declaring is off once somebody confirms that or switches it off."""


def conditions(*, now: datetime, limits: HealthLimits = DEFAULT_LIMITS) -> Conditions:
    """Return the conditions of the marks of sources, the worst first."""
    return worst_first(
        {
            Mark.OFF: OFF_BY_ITSELF | _OFF_ABOVE,
            Mark.QUARANTINED: Q(quarantined=True),
            # The database looks up the few of them once.
            Mark.DAMAGED: Q(pk__in=Damage.objects.filter(OPEN).order_by().values("source")),
            Mark.WITHDRAWN: _STILL_WITHDRAWN,
            Mark.MUTED: muted("machine__", now=now),
            Mark.FAILED: Q(success=False),
            Mark.OVERDUE: _overdue(now=now, limits=limits),
            Mark.INCOMPLETE: INCOMPLETE,
            Mark.FALLING_BACK: FALLING_BACK,
        }
    )


def _overdue(*, now: datetime, limits: HealthLimits) -> Q:
    """Return a condition for sources whose good backup is missing for too long.

    The time counts from the schedule's next moment after the last good backup, and from an order to back up now. A
    machine whose policy allows longer silence has that long. A source whose next backup is later than its schedule
    allows was planned by a wrong clock, so its due date is unknown.
    """

    def missing(span: timedelta) -> Q:
        limit = now - span
        return Q(date_next_backup__lt=limit) | Q(date_expected__lt=limit)

    if limits.machine_silence is not None:
        late = missing(max(limits.overdue, limits.machine_silence))
    else:
        late = policies.silence_condition(lambda span: missing(max(limits.overdue, span)), "machine__")
    return late | later_than_schedule(now=now)


def sources(*, now: datetime, limits: HealthLimits = DEFAULT_LIMITS) -> "QuerySet[MarkedSource]":
    """Return all sources, each annotated with its ``mark``."""
    return Source.objects.annotate(mark=mark_of(conditions(now=now, limits=limits)))
