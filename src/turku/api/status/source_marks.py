"""What gives a source its health mark."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db.models import Q

from turku.api.backups.models import FALLING_BACK, INCOMPLETE, WITHDRAWN
from turku.api.backups.next_backup import beyond_schedule
from turku.api.fleet import silence
from turku.api.status import integrity
from turku.api.status.marks import Conditions, Mark, muted, off, worst_first
from turku.api.status.thresholds import USUAL, Thresholds

_STILL_WITHDRAWN = WITHDRAWN & Q(active=True)
OFF_BY_ITSELF = off("") & ~_STILL_WITHDRAWN
"""What its machine stopped declaring is off once somebody confirms it, or switches it off."""


def conditions(*, now: datetime, thresholds: Thresholds = USUAL) -> Conditions:
    """The marks of sources, the worst first."""
    return worst_first(
        {
            Mark.OFF: OFF_BY_ITSELF | off("machine__") | Q(machine__storage=None) | off("machine__storage__"),
            Mark.SUSPICIOUS: Q(suspicious=True),
            Mark.DAMAGED: integrity.damaged(),
            Mark.WITHDRAWN: _STILL_WITHDRAWN,
            Mark.MUTED: muted("machine__", now=now),
            Mark.FAILED: Q(success=False),
            Mark.OVERDUE: _overdue(now=now, thresholds=thresholds),
            Mark.INCOMPLETE: INCOMPLETE,
            Mark.FALLING_BACK: FALLING_BACK,
        }
    )


def _overdue(*, now: datetime, thresholds: Thresholds) -> Q:
    """Return that a good backup is missing for too long.

    Reckoned from the last good backup by the schedule, which no order to back up now changes, and from such an order.
    A machine that may be away for longer has as long. One whose next backup lies further ahead than its schedule
    allows was planned by a clock that was wrong: nobody knows since when it is due.
    """

    def missing(span: timedelta) -> Q:
        limit = now - span
        return Q(date_next_backup__lt=limit) | Q(date_expected__lt=limit)

    if thresholds.machine_silence is not None:
        late = missing(max(thresholds.overdue, thresholds.machine_silence))
    else:
        late = silence.matching(lambda span: missing(max(thresholds.overdue, span)), "machine__")
    return late | beyond_schedule(now=now)
