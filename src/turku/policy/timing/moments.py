"""Parsing of moments that people type, such as ``2026-11-01 12:00``, ``yesterday``, ``3 days ago``, ``2 h ago``."""

import calendar
import re
from datetime import UTC, date, datetime, time, timedelta, tzinfo

from turku.errors import InvalidValue
from turku.policy.characters import shown
from turku.policy.timing import local_time

_HINT = (
    "such as '2026-11-01 12:00', '2026-11-01' (the end of that day), 'yesterday', 'yesterday 18:30', '3 days ago', "
    "'2 h ago', '2026-11-01T12:00:00+02:00'"
)
_LENGTH_LIMIT = 100
_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 7 * 86400}
_MONTHS = {"month": 1, "year": 12}
_UNITS = {
    **{unit: unit for unit in (*_SECONDS, *_MONTHS)},
    **{f"{unit}s": unit for unit in (*_SECONDS, *_MONTHS)},
    **{"s": "second", "sec": "second", "secs": "second", "min": "minute", "mins": "minute"},
    **{"h": "hour", "hr": "hour", "hrs": "hour", "d": "day", "w": "week"},
}
_AGO = re.compile(r"(\d{1,6}|an?|one)\s*([a-z]+)\s+ago", re.ASCII)
_DAY = re.compile(r"(\d{4}-\d\d-\d\d|today|yesterday)(?:(?:\s+|t)(\d\d?:\d\d(?::\d\d)?))?", re.ASCII)
_ONE_DAY = timedelta(days=1)


def parse(text: str, *, now: datetime, zone: tzinfo) -> datetime:
    """Return the moment that the text means, in UTC.

    ``zone`` is that of days and times without one of their own. A day alone is its end: a snapshot of that day is at
    or before it. Raises InvalidValue, which says what would be right.
    """
    wanted = " ".join(text.lower().split())
    if not wanted or len(text) > _LENGTH_LIMIT:
        raise InvalidValue(f"{shown(text)} is not a valid time", hint=_HINT)
    try:
        return _parse(wanted, now=local_time.in_utc(now), zone=zone)
    except (ValueError, OverflowError) as error:
        raise InvalidValue(f"{shown(text)} is not a valid time", hint=_HINT) from error


def _parse(text: str, *, now: datetime, zone: tzinfo) -> datetime:
    if text == "now":
        return now
    if match := _AGO.fullmatch(text):
        return _ago(int(match[1]) if match[1].isdigit() else 1, match[2], now=now, zone=zone)
    if match := _DAY.fullmatch(text):
        today = now.astimezone(zone).date()
        day = {"today": today, "yesterday": today - _ONE_DAY}.get(match[1]) or date.fromisoformat(match[1])
        if match[2] is None:
            end = datetime.combine(day + _ONE_DAY, time())
            return local_time.moment_of(end, zone) - timedelta(microseconds=1)
        return local_time.moment_of(datetime.combine(day, time.fromisoformat(match[2].zfill(5))), zone)
    moment = datetime.fromisoformat(text.upper())
    return local_time.moment_of(moment, zone) if moment.tzinfo is None else moment.astimezone(UTC)


def _ago(count: int, word: str, *, now: datetime, zone: tzinfo) -> datetime:
    unit = _UNITS.get(word)
    if unit is None:
        raise ValueError(f"{word} is not a unit of time")
    if unit in _SECONDS:
        return now - timedelta(seconds=count * _SECONDS[unit])
    wall = now.astimezone(zone).replace(tzinfo=None)
    year, month = divmod(wall.year * 12 + wall.month - 1 - count * _MONTHS[unit], 12)
    last_day = calendar.monthrange(year, month + 1)[1]
    return local_time.moment_of(wall.replace(year=year, month=month + 1, day=min(wall.day, last_day)), zone)
