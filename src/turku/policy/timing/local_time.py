"""Conversion between wall times and moments. On days of clock changes, a wall time has no moment or two."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo

from turku.errors import InvalidValue

_DAY = timedelta(days=1)
_FIRST_YEAR, _LAST_YEAR = 2, 9900
"""Margin from the ends of the calendar."""


def moment_of(wall: datetime, zone: tzinfo) -> datetime:
    """Return the moment, in UTC, of a wall time.

    Of two moments, it is the first. For a time that the clock skips, it is as long after the start of the gap as the
    time.
    """
    return wall.replace(tzinfo=zone, fold=0).astimezone(UTC)


def moments_of(wall: datetime, zone: tzinfo) -> Iterator[datetime]:
    """Yield ``moment_of``, and the second moment if the clock shows the time twice."""
    first = moment_of(wall, zone)
    yield first
    second = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
    if second > first:
        yield second


def in_utc(moment: datetime) -> datetime:
    """Return the moment in UTC, because Python compares and subtracts two times of one zone by their wall times.

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
    """Return the wall time in the zone at a moment in UTC, without a zone."""
    return moment.astimezone(zone).replace(tzinfo=None, fold=0)


def clock_change_nearby(moment: datetime, zone: tzinfo) -> timedelta:
    """Return the size of a clock change within a day of the moment in UTC. It is zero on nearly all days."""
    offsets = [
        wall_time(moment + shift, zone) - (moment + shift).replace(tzinfo=None) for shift in (-_DAY, timedelta(0), _DAY)
    ]
    return max(offsets) - min(offsets)
