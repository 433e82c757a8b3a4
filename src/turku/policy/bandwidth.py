"""Bandwidth limits of transfers, constant or by time of day (configuration reference: ``bwlimit``).

``20M 0800-1800 mon-fri, 50M 2200-0600, 0``: each part has a rate, then optionally hours, then optionally days. The
first part that matches the present time counts. The last part has neither hours nor days and is for all other times.
Hours may cross midnight, and their days are those on which they begin. Times are those that the clocks of a zone show,
so a window that begins at 0230 begins at 0300 on a day without 0230.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from turku.errors import InvalidValue
from turku.policy.characters import shown
from turku.policy.timing.local_time import moments_of, wall_time

LIMIT_KIB_PER_SECOND = 2**31 - 1
"""Largest limit. rsync stores it in an int."""
_NUMBER = re.compile(r"\d{1,12}(\.\d{1,12})?", re.ASCII)
_HINT = "a whole number of KiB/s such as 512; 0 or nothing for no limit"


def kib_per_second(value: Any) -> int | None:
    """Return the limit in KiB per second, or None for no limit (nothing, empty text, or 0). Raises InvalidValue."""
    number = _number(value)
    if number is None or number == 0:
        return None
    # This refuses NaN, too. The number itself may have thousands of digits, so it is not printed.
    if not 0 < number <= LIMIT_KIB_PER_SECOND:
        raise InvalidValue(f"a bandwidth limit is from 0 to {LIMIT_KIB_PER_SECOND} KiB/s", hint=_HINT)
    if number != int(number):
        raise InvalidValue(f"{number:g} is not a whole number of KiB/s", hint=_HINT)
    return int(number)


def _number(value: Any) -> int | float | None:
    if value is None:
        return None
    if isinstance(value, str):
        text = value.strip()
        if not text:
            return None
        if not _NUMBER.fullmatch(text):
            raise InvalidValue(f"{shown(text)} is not a valid bandwidth limit", hint=_HINT)
        return float(text) if "." in text else int(text)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidValue(f"a {type(value).__name__} is not a valid bandwidth limit", hint=_HINT)
    return value


# --- limits by the time of day

TEXT_LIMIT = 500
PARTS_LIMIT = 20
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_EVERY_DAY = frozenset(range(7))
_DAY_MINUTES = 24 * 60
_RATE = re.compile(r"(\d{1,12}(?:\.\d{1,12})?)([KMG]?)", re.ASCII | re.IGNORECASE)
_HOURS = re.compile(r"(\d\d)(\d\d)-(\d\d)(\d\d)", re.ASCII)
_DAY_RANGE = re.compile(rf"({'|'.join(_DAYS)})(?:-({'|'.join(_DAYS)}))?", re.ASCII | re.IGNORECASE)
_SUFFIXES = {"": 1, "K": 1, "M": 1024, "G": 1024**2}
_WINDOWS_HINT = (
    "as '20M 0800-1800 mon-fri, 0': parts of a rate (KiB/s, or with K, M or G), hours, days; the last is for the rest"
)


@dataclass(frozen=True)
class Window:
    """A limit for some hours of some days, in minutes since midnight. An end below the begin is on the next day."""

    kib_per_second: int | None
    begin: int = 0
    end: int = _DAY_MINUTES
    days: frozenset[int] = _EVERY_DAY
    """Days on which it begins. Monday is 0."""

    def holds(self, wall: datetime) -> bool:
        """Return True when the window includes this time of the clock."""
        minute = wall.hour * 60 + wall.minute
        if self.begin < self.end:
            return wall.weekday() in self.days and self.begin <= minute < self.end
        is_evening = wall.weekday() in self.days and minute >= self.begin
        return is_evening or ((wall.weekday() - 1) % 7 in self.days and minute < self.end)


@dataclass(frozen=True)
class Limits:
    """The limits of a transfer, in KiB per second, or None for no limit."""

    rest: int | None = None
    windows: tuple[Window, ...] = ()

    @property
    def changes(self) -> bool:
        """True when the limit depends on the time of day."""
        return bool(self.windows)

    @property
    def constant(self) -> int | None:
        """The limit if it is always the same, else None."""
        return None if self.changes else self.rest

    def at(self, moment: datetime, zone: tzinfo) -> int | None:
        """Return the limit at a moment, by the clocks of the zone."""
        wall = wall_time(moment, zone)
        return next((window.kib_per_second for window in self.windows if window.holds(wall)), self.rest)

    def next_change(self, moment: datetime, zone: tzinfo) -> datetime | None:
        """Return the next moment, in UTC, at which the limit changes, or None if it never does."""
        limit = self.at(moment, zone)
        for candidate in sorted(self._candidates(moment, zone)):
            if candidate > moment and self.at(candidate, zone) != limit:
                return candidate
        return None

    def _candidates(self, moment: datetime, zone: tzinfo) -> Iterator[datetime]:
        """Yield each moment of the next eight days at which a window may begin or end."""
        midnight = wall_time(moment, zone).replace(hour=0, minute=0, second=0, microsecond=0)
        # Midnight, too, because the days of a window change there.
        minutes = {0, *(minute for window in self.windows for minute in (window.begin, window.end))}
        for number in range(-1, 9 if self.changes else -1):
            day = midnight + timedelta(days=number)
            for minute in minutes:
                yield from moments_of(day + timedelta(minutes=minute), zone)
            yield from _clock_changes(day.replace(tzinfo=UTC), zone)


def _clock_changes(begin: datetime, zone: tzinfo) -> Iterator[datetime]:
    """Yield the moment within the day from ``begin`` at which the zone's clocks change."""
    low, high = begin, begin + timedelta(days=1)
    if low.astimezone(zone).utcoffset() == high.astimezone(zone).utcoffset():
        return
    while high - low > timedelta(minutes=1):
        middle = low + (high - low) // timedelta(minutes=2) * timedelta(minutes=1)
        if middle.astimezone(zone).utcoffset() == low.astimezone(zone).utcoffset():
            low = middle
        else:
            high = middle
    yield high


def parse(value: Any) -> Limits:
    """Parse a number or text of ``kib_per_second``, or parts for times of day. Raises InvalidValue."""
    if not isinstance(value, str) or _NUMBER.fullmatch(value.strip()) or not value.strip():
        return Limits(kib_per_second(value))
    if len(value) > TEXT_LIMIT:
        raise InvalidValue(f"is longer than {TEXT_LIMIT} characters", hint=_WINDOWS_HINT)
    parts = value.split(",")
    if len(parts) > PARTS_LIMIT:
        raise InvalidValue(f"has more than {PARTS_LIMIT} parts", hint=_WINDOWS_HINT)
    *windows, rest = [_part(part.split(), whole=value) for part in parts]
    if any((window.begin, window.end, window.days) == (0, _DAY_MINUTES, _EVERY_DAY) for window in windows):
        raise InvalidValue(f"{shown(value)}: only the last part has neither hours nor days", hint=_WINDOWS_HINT)
    if (rest.begin, rest.end, rest.days) != (0, _DAY_MINUTES, _EVERY_DAY):
        raise InvalidValue(
            f"{shown(value)}: the last part is for the rest of the time, and has neither hours nor days",
            hint="add ', 0' where there is no limit else",
        )
    return Limits(rest.kib_per_second, tuple(windows))


def changes(value: Any) -> bool:
    """Return True when the value is valid and its limit depends on the time of day."""
    try:
        return parse(value).changes
    except InvalidValue:
        return False


def _part(words: list[str], *, whole: str) -> Window:
    if not words:
        raise InvalidValue(f"{shown(whole)} has an empty part", hint=_WINDOWS_HINT)
    rate, *rest = words
    begin, end, days = 0, _DAY_MINUTES, _EVERY_DAY
    if rest and (hours := _HOURS.fullmatch(rest[0])) is not None:
        begin, end = _hours(hours)
        rest.pop(0)
    if rest:
        days = _day_set(rest.pop(0))
    if rest:
        raise InvalidValue(f"{shown(' '.join(rest))}: nothing comes after the days", hint=_WINDOWS_HINT)
    return Window(_rate(rate), begin, end, days)


def _rate(text: str) -> int | None:
    match = _RATE.fullmatch(text)
    if match is None:
        raise InvalidValue(f"{shown(text)} is not a valid rate", hint=_WINDOWS_HINT)
    number, suffix = match.groups()
    if not suffix:
        return kib_per_second(number)
    kib = float(number) * _SUFFIXES[suffix.upper()]
    # Never rounded down to 0, which is no limit.
    return kib_per_second(max(int(kib), 1) if kib else 0)


def _hours(match: re.Match[str]) -> tuple[int, int]:
    text = match.group()
    begin_hour, begin_minute, end_hour, end_minute = map(int, match.groups())
    begin, end = begin_hour * 60 + begin_minute, end_hour * 60 + end_minute
    if begin_hour > 23 or begin_minute > 59 or end_minute > 59 or end > _DAY_MINUTES:
        raise InvalidValue(f"{text}: a time is from 0000 to 2359, or 2400 for the end of the day", hint=_WINDOWS_HINT)
    if begin == end:
        raise InvalidValue(f"{text} is an empty time; leave the hours out for the whole day", hint=_WINDOWS_HINT)
    return begin, end


def _day_set(text: str) -> frozenset[int]:
    days: set[int] = set()
    for word in text.split("+"):
        match = _DAY_RANGE.fullmatch(word)
        if match is None:
            raise InvalidValue(
                f"{shown(text)} is neither hours nor days", hint="hours as 0800-1800, days as mon-fri or sat+sun"
            )
        first = _DAYS.index(match[1].lower())
        last = _DAYS.index((match[2] or match[1]).lower())
        days.update((first + number) % 7 for number in range((last - first) % 7 + 1))
    return frozenset(days)
