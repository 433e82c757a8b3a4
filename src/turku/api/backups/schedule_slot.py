"""When a source is due next: by its schedule after a success, after a growing pause after failures."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from django.conf import settings

from turku.api.backups.models import Source
from turku.errors import PolicyError
from turku.policy import schedule

_log = logging.getLogger(__name__)

FIRST_PAUSE = timedelta(minutes=5)
LONGEST_PAUSE = timedelta(hours=6)
_UNREADABLE_PAUSE = timedelta(days=1)


def retry_pause(failure_count: int) -> timedelta:
    """The pause after that many failures in a row: 5 minutes, doubling, at most 6 hours."""
    factor: int = 2 ** min(failure_count - 1, 16)
    return min(FIRST_PAUSE * factor, LONGEST_PAUSE)


def next_backup(source: Source, *, now: datetime) -> datetime:
    """The schedule's next moment after ``now``; a day on, and a log line, where the stored schedule is unreadable."""
    try:
        return schedule.parse(source.frequency).next_after(
            now, identity=str(source.id), zone=ZoneInfo(settings.TIME_ZONE)
        )
    except PolicyError as error:
        _log.error("source %s of machine %s: %s", source.name, source.machine_id, error.message)
        return now + _UNREADABLE_PAUSE
