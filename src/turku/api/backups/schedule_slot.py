"""When a source is due next: by its schedule after a success, after a growing pause after failures."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime, timedelta
from uuid import UUID
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


class Upcoming:
    """The next moments of sources, computed before a transaction begins: nothing is to wait for it there."""

    def __init__(self, sources: Iterable[Source], *, now: datetime) -> None:
        self._now = now
        self._moments = {_key(source): next_backup(source, now=now) for source in sources}

    def of(self, source: Source) -> datetime:
        """The next moment of one of them, also where its schedule has changed in between."""
        return self._moments.get(_key(source)) or next_backup(source, now=self._now)


def _key(source: Source) -> tuple[UUID, str]:
    return source.id, source.frequency


def next_backup(source: Source, *, now: datetime) -> datetime:
    """The schedule's next moment after ``now``; a day on, and a log line, where the stored schedule is unreadable."""
    try:
        return schedule.parse(source.frequency).next_after(
            now, identity=str(source.id), zone=ZoneInfo(settings.TIME_ZONE)
        )
    except PolicyError as error:
        _log.error("source %s of machine %s: %s", source.name, source.machine_id, error.message)
        return now + _UNREADABLE_PAUSE
