"""From what a clock on the wall shows to moments: on days when clocks change, that is none or two of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo

from turku.errors import InvalidValue

_DAY = timedelta(days=1)
_FIRST_YEAR, _LAST_YEAR = 2, 9900
"""Far enough from the ends of the calendar for what comes before and after."""


def moment_of(wall: datetime, zone: tzinfo) -> datetime:
    """The one moment, in UTC, that stands for what the clock shows.

    The first of two; for a time that the clock skips, the moment as far after the gap's start as the time is.
    """
    return wall.replace(tzinfo=zone, fold=0).astimezone(UTC)


def moments_of(wall: datetime, zone: tzinfo) -> Iterator[datetime]:
    """``moment_of``, and the second moment too where the clock shows the time twice."""
    first = moment_of(wall, zone)
    yield first
    second = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
    if second > first:
        yield second


def in_utc(moment: datetime) -> datetime:
    """The moment in UTC: Python compares and subtracts two times of one zone by what its clocks show.

    Raises InvalidValue at the ends of the calendar.
    """
    if moment.tzinfo is None:
        raise ValueError("the moment has no zone")
    try:
        utc = moment.astimezone(UTC)
    except OverflowError:
        utc = datetime.max.replace(tzinfo=UTC)
    if not _FIRST_YEAR <= utc.year <= _LAST_YEAR:
        raise InvalidValue(f"{moment.isoformat()} is too near to an end of the calendar")
    return utc


def wall_time(moment: datetime, zone: tzinfo) -> datetime:
    """What the zone's clocks show at a moment in UTC, without a zone."""
    return moment.astimezone(zone).replace(tzinfo=None, fold=0)


def clock_change_nearby(moment: datetime, zone: tzinfo) -> timedelta:
    """By how much the clocks change within a day before or after the moment in UTC; zero on nearly all days."""
    offsets = [
        wall_time(moment + shift, zone) - (moment + shift).replace(tzinfo=None) for shift in (-_DAY, timedelta(0), _DAY)
    ]
    return max(offsets) - min(offsets)
