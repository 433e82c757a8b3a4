"""The schedule of a source: when it is due next, and which sources are due now."""

import logging
from collections.abc import Iterable
from datetime import datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db.models import Q

from turku.api.backups.models import Source
from turku.errors import InvalidValue
from turku.policy.timing import schedule

_log = logging.getLogger(__name__)

FIRST_PAUSE = timedelta(minutes=5)
LONGEST_PAUSE = timedelta(hours=6)
_UNREADABLE_PAUSE = timedelta(days=1)
_CLOCK_CHANGES = timedelta(hours=3)
"""The time by which clock changes can lengthen a pause."""
LONGEST_PAUSE_DAYS = tuple(pause.days for pause in schedule.LONGEST_PAUSES[:-1])
"""The values of ``longest_pause_days`` for which the next backup has a bound."""


def retry_pause(failure_count: int) -> timedelta:
    """Return the pause after that many failures in a row: 5 minutes, doubling, at most 6 hours."""
    factor: int = 2 ** min(failure_count - 1, 16)
    return min(FIRST_PAUSE * factor, LONGEST_PAUSE)


class NextBackups:
    """The next moments of sources, computed before a transaction begins, so that no lock waits for it."""

    def __init__(self, sources: Iterable[Source], *, now: datetime) -> None:
        self._now = now
        self._moments = {_key(source): next_backup(source, now=now) for source in sources}

    def of(self, source: Source) -> datetime:
        """Return the next moment of one of the sources, even if its schedule has changed in between."""
        return self._moments.get(_key(source)) or next_backup(source, now=self._now)


def _key(source: Source) -> tuple[UUID, str]:
    return source.id, source.frequency


def next_backup(source: Source, *, now: datetime) -> datetime:
    """Return the next moment of the schedule after ``now``.

    It is a day later, with a log line, if the stored schedule cannot be parsed.
    """
    try:
        return schedule.parse(source.frequency).next_after(
            now, identity=str(source.id), zone=ZoneInfo(settings.TIME_ZONE)
        )
    except InvalidValue as error:
        _log.error("source %s of machine %s: %s", source.name, source.machine_id, error.message)
        return now + _UNREADABLE_PAUSE


def longest_pause_days(frequency: str) -> int:
    """Return the days that lie at most between two moments of the schedule: one of ``schedule.LONGEST_PAUSES``."""
    try:
        return schedule.parse(frequency).longest_pause.days
    except InvalidValue:
        return _UNREADABLE_PAUSE.days


def latest_due_dates(*, now: datetime) -> list[tuple[int, datetime]]:
    """Return for each longest pause the last moment at which the next backup can be due."""
    return [(days, now + timedelta(days=days) + _CLOCK_CHANGES) for days in LONGEST_PAUSE_DAYS]


def later_than_schedule(*, now: datetime) -> Q:
    """Return a condition for sources whose next backup is later than their schedule allows.

    A clock that was ahead wrote such a date. ``next_due`` returns when the source is due instead.
    """
    found = Q(pk__in=())
    for days, latest in latest_due_dates(now=now):
        found |= Q(longest_pause_days=days, date_next_backup__gt=latest)
    return found


def next_due(source: Source, *, now: datetime) -> datetime:
    """Return when the source is due next, within the bounds of its schedule.

    A date from a clock that was ahead is replaced by the schedule's next moment after the last good backup. If that
    backup lies in the future too, the date on which the source was added counts.
    """
    latest = dict(latest_due_dates(now=now)).get(source.longest_pause_days)
    if latest is None or source.date_next_backup <= latest:
        return source.date_next_backup
    past = [moment for moment in (source.date_last_backed_up, source.date_added) if moment and moment <= now]
    return next_backup(source, now=past[0]) if past else now


def expected_after_change(source: Source, *, now: datetime) -> datetime:
    """Return when a good backup is expected by a schedule that has just changed.

    It is counted from the last good one. An expected backup stays expected, so that frequent changes of the schedule
    cannot postpone it.
    """
    by_schedule = next_backup(source, now=source.date_last_backed_up or source.date_added)
    if by_schedule > now:
        return by_schedule
    return min(source.date_expected or now, now)


def may_be_due(*, now: datetime) -> Q:
    """Return a condition for sources that are due or planned later than their schedule allows."""
    return Q(date_next_backup__lte=now) | later_than_schedule(now=now)


def due_sources(machine_key: int, *, now: datetime) -> list[Source]:
    """Return the due sources of the machine by name, with their machine and storage.

    It returns none while the machine or its storage is switched off.
    """
    switches = {
        f"{path}{switch}": True
        for path in ("", "machine__", "machine__storage__")
        for switch in ("active", "published")
    }
    rows = Source.objects.filter(may_be_due(now=now), machine=machine_key, **switches)
    return [row for row in rows.select_related("machine__storage").order_by("name") if next_due(row, now=now) <= now]
