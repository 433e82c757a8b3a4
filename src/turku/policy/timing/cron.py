"""Cron expressions as schedules, with Jenkins' ``H`` (hashed per source) and ``R`` (random).

An expression is parsed once, into the numbers of its five fields. The search for its next moment goes from month to
month and tries only matching days, hours and minutes, so its cost is bounded for every expression (threats M11).
"""

import calendar
import hashlib
import random
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo
from functools import cache, cached_property
from itertools import pairwise

from turku.errors import InvalidValue
from turku.policy.characters import shown
from turku.policy.timing.local_time import clock_change_nearby, in_utc, moment_of, moments_of, wall_time

_FORM = "cron MINUTE HOUR DAY MONTH WEEKDAY"
_HINT = f"{_FORM}, such as 'cron H H(0-5) * * *' for daily at night or 'cron 30 2 * * mon-fri'"
_LONGEST_GAP_MONTHS = 12 * 41
"""Months to search for the next moment. The rarest day, 29 February on one weekday, comes within 40 years."""
_REFERENCE = datetime(2024, 1, 1)  # noqa: DTZ001 - a time on a clock
"""Start for tests of an expression and for measuring its period. Any moment would do."""
_MEASURED_GAPS = 8
_MEASURED_UNTIL = datetime(2028, 1, 1)  # noqa: DTZ001 - likewise
_ANY_IDENTITY = "any"

_ITEM = re.compile(r"(?P<start>\*|[a-z]{3}|l|\d+)(-(?P<end>[a-z]{3}|l|\d+))?(/(?P<step>\d+))?", re.ASCII)
_DRAW = re.compile(r"(?P<kind>[hr])(\((?P<start>\d+)-(?P<end>\d+)\))?(/(?P<step>\d+))?", re.ASCII)
_NTH_WEEKDAY = re.compile(r"(?P<weekdays>[a-z0-9-]+)#(?P<nth>[1-5])|l(?P<last>\d|[a-z]{3})", re.ASCII)
_LAST_DAY = 32
"""The number that stands for the last day of the month."""
_LAST_WEEK = 6
"""The last week of a month. Weekday ``w`` of week ``n`` (1 to 5) is the number ``w + 7 * n``."""


@dataclass(frozen=True)
class _Field:
    """One of the five fields, with its lowest and highest number, and names for some numbers."""

    index: int
    name: str
    lowest: int
    highest: int
    highest_drawn: int
    names: Mapping[str, int] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return self.highest - self.lowest + 1


_MINUTE = _Field(0, "minute", 0, 59, 59)
_HOUR = _Field(1, "hour", 0, 23, 23)
# As in Jenkins, a hashed day is one that every month has.
_DAY = _Field(2, "day", 1, 31, 28, {"l": 31})
_MONTH = _Field(
    3, "month", 1, 12, 12, {name.lower(): number for number, name in enumerate(calendar.month_abbr) if number}
)
_WEEKDAY = _Field(4, "weekday", 0, 6, 6, {"sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6})
_FIELDS = (_MINUTE, _HOUR, _DAY, _MONTH, _WEEKDAY)


@dataclass(frozen=True)
class _Draw:
    """Hashed numbers: one from ``start`` to ``end``, or every ``step`` numbers from a hashed beginning."""

    field: _Field
    is_random: bool
    start: int
    end: int
    step: int | None

    def numbers(self, identity: str) -> frozenset[int]:
        latest = self.end if self.step is None else min(self.start + self.step - 1, self.end)
        first = self.start + self._drawn(identity) % (latest - self.start + 1)
        return frozenset(_folded(self.field, range(first, self.end + 1, self.step or self.field.size + 1)))

    def _drawn(self, identity: str) -> int:
        if self.is_random:
            return random.getrandbits(32)
        # A hash for each field. With one hash for all fields, ``H H * * *`` of a whole fleet would fall on 240 of the
        # 1,440 minutes of a day.
        digest = hashlib.sha256(f"{self.field.index}:{identity}".encode("utf-8", "surrogatepass")).hexdigest()
        return zlib.crc32(digest.encode()) >> self.field.index


@dataclass(frozen=True)
class _Numbers:
    """The parsed numbers of a field."""

    fixed: frozenset[int]
    draws: tuple[_Draw, ...]
    is_any: bool
    """True for ``*`` or ``?``, possibly beside other items."""
    has_star: bool
    """True when it has a ``*``, such as in ``*/3``."""

    def of(self, identity: str) -> frozenset[int]:
        """Return the numbers for one source."""
        return self.fixed.union(*(draw.numbers(identity) for draw in self.draws)) if self.draws else self.fixed


class _Unusable(ValueError):
    """A field is not valid. The text says why."""


def _parse_field(which: _Field, text: str) -> _Numbers:
    if text == "?" and which in (_DAY, _WEEKDAY):
        text = "*"
    fixed: set[int] = set()
    draws: list[_Draw] = []
    for item in text.split(","):
        if match := _DRAW.fullmatch(item):
            draws.append(_parse_draw(which, match))
        elif which is _WEEKDAY and (match := _NTH_WEEKDAY.fullmatch(item)):
            week = int(match["nth"] or _LAST_WEEK)
            fixed.update(day + which.size * week for day in _parse_item(which, match["weekdays"] or match["last"]))
        elif which is _DAY and item == "l":
            fixed.add(_LAST_DAY)
        else:
            fixed.update(_parse_item(which, item))
    return _Numbers(frozenset(fixed), tuple(draws), is_any="*" in text.split(","), has_star="*" in text)


def _parse_item(which: _Field, item: str) -> Iterator[int]:
    match = _ITEM.fullmatch(item)
    if match is None:
        raise _Unusable(f"{shown(item)} is not a valid {which.name}")
    step = _step(which, match["step"]) or 1
    if match["start"] == "*":
        if match["end"] is not None:
            raise _Unusable(f"{shown(item)} is not a valid {which.name}")
        return iter(range(which.lowest, which.highest + 1, step))
    start = _number(which, match["start"])
    open_end = which.highest if match["step"] else start
    end = open_end if match["end"] is None else _number(which, match["end"])
    if start > end:
        # From Friday to Monday, from November to February.
        start, end = (start - which.size, end) if start - which.size >= which.lowest else (start, end + which.size)
    return _folded(which, range(start, end + 1, step))


def _folded(which: _Field, numbers: range) -> Iterator[int]:
    """Yield the numbers. Beyond the highest of the field, they continue at its lowest: weekday 7 is weekday 0."""
    return (which.lowest + (number - which.lowest) % which.size for number in numbers)


def _number(which: _Field, word: str) -> int:
    number = which.names.get(word)
    if number is None:
        if not word.isdigit():
            raise _Unusable(f"{shown(word)} is not a valid {which.name}")
        number = int(word)
    # Sunday is weekday 0 and 7.
    if not which.lowest <= number <= which.highest + (which is _WEEKDAY):
        raise _Unusable(f"the {which.name} {number} is not from {which.lowest} to {which.highest}")
    return number


def _step(which: _Field, digits: str | None) -> int | None:
    if digits is not None and int(digits) == 0:
        raise _Unusable(f"a step of 0 leads to no {which.name}")
    return None if digits is None else int(digits)


def _parse_draw(which: _Field, match: re.Match[str]) -> _Draw:
    start, end = which.lowest, which.highest_drawn
    if match["start"] is not None:
        start, end = _number(which, match["start"]), _number(which, match["end"])
        if start >= end:
            raise _Unusable(f"the range in {shown(match[0])} does not end after its beginning")
    return _Draw(which, match["kind"] == "r", start, end, _step(which, match["step"]))


@dataclass(frozen=True)
class Cron:
    """A schedule for the times that match a cron expression.

    A time that the clocks skip is as long after the start of the gap as it would have been. A time that they show twice
    counts once, the first time, unless the expression is for every hour.
    """

    text: str
    _fields: tuple[_Numbers, ...]

    @classmethod
    def parse(cls, text: str, expression: str) -> "Cron":
        """Return the schedule for a cron expression. ``text`` is the whole frequency. Raises InvalidValue."""
        words = expression.lower().split()
        if len(words) != len(_FIELDS):
            raise InvalidValue(f"{shown(text)} needs {len(_FIELDS)} fields after 'cron', not {len(words)}", hint=_HINT)
        try:
            fields = tuple(_parse_field(which, word) for which, word in zip(_FIELDS, words, strict=True))
        except _Unusable as error:
            raise _unusable(text, str(error)) from None
        cron = cls(text, fields)
        next(cron._walls_after(_REFERENCE, _ANY_IDENTITY))
        return cron

    @cached_property
    def period(self) -> timedelta:
        """The shortest of the first gaps between moments (``0 2 * * mon-fri``: one day)."""
        moments: list[datetime] = []
        for moment in self._walls_after(_REFERENCE, _ANY_IDENTITY):
            moments.append(moment)
            if len(moments) > _MEASURED_GAPS or (len(moments) > 1 and moment > _MEASURED_UNTIL):
                break
        return min(after - before for before, after in pairwise(moments))

    @property
    def longest_pause(self) -> timedelta:
        """An upper bound for the pauses of any source. See ``schedule.LONGEST_PAUSES``."""
        _minutes, _hours, days, months, weekdays = (field.of(_ANY_IDENTITY) for field in self._fields)
        is_every_day = self._fields[_DAY.index].is_any and self._fields[_WEEKDAY.index].is_any
        if len(months) < _MONTH.size:
            # A certain day of certain months may come once in 40 years.
            return timedelta(days=366 if is_every_day else 15_000)
        if is_every_day:
            return timedelta(days=1)
        if self._fields[_DAY.index].is_any and all(weekday < _WEEKDAY.size for weekday in weekdays):
            return timedelta(days=7)
        # Every month has a hashed day. Some months lack the 31st or a fifth Friday.
        return timedelta(days=31 if days and max(days) <= _DAY.highest_drawn and self._is_by_day() else 150)

    def _is_by_day(self) -> bool:
        return self._fields[_WEEKDAY.index].is_any and not self._fields[_DAY.index].is_any

    def next_after(self, moment: datetime, *, identity: str, zone: tzinfo) -> datetime:
        moment = in_utc(moment)
        wall = wall_time(moment, zone)
        change = clock_change_nearby(moment, zone)
        # The expression is matched on clocks without a zone. On days of clock changes, times before and after the
        # change overlap, so more times are tried.
        dues: list[datetime] = []
        for due_wall in self._walls_after(wall - change - timedelta(microseconds=1), identity):
            if dues and (not change or due_wall > wall + 2 * change):
                break
            dues += [due for due in self._moments(due_wall, zone) if due > moment]
        return min(dues)

    def _is_any(self, which: _Field, numbers: frozenset[int], other: _Field) -> bool:
        """Return True where the field does not restrict days.

        Beside a field with a star, a field that names every number does not restrict days (``1/1`` beside ``*/3``).
        This is croniter's rule, which the existing system uses.
        """
        names_all = numbers == frozenset(range(which.lowest, which.highest + 1))
        return self._fields[which.index].is_any or (names_all and self._fields[other.index].has_star)

    def _moments(self, wall: datetime, zone: tzinfo) -> Iterator[datetime]:
        if self._fields[_HOUR.index].is_any:
            yield from moments_of(wall, zone)
        else:
            yield moment_of(wall, zone)

    def _walls_after(self, wall: datetime, identity: str) -> Iterator[datetime]:
        """Yield the matching times on a clock, from the first after ``wall`` on. Raises InvalidValue."""
        minutes, hours, days, months, weekdays = (numbers.of(identity) for numbers in self._fields)
        matches = _Days(
            days,
            weekdays,
            is_any_day=self._is_any(_DAY, days, _WEEKDAY),
            is_any_weekday=self._is_any(_WEEKDAY, weekdays, _DAY),
        )
        # There are 28 kinds of months, by first weekday and length.
        days_of = cache(matches.of)
        ordered_hours, ordered_minutes = sorted(hours), sorted(minutes)
        first = wall.replace(second=0, microsecond=0) + timedelta(minutes=1)
        month_number, last_match = first.year * 12 + first.month - 1, first.year * 12 + first.month - 1
        while month_number - last_match <= _LONGEST_GAP_MONTHS:
            year, month = month_number // 12, month_number % 12 + 1
            for day in days_of(*calendar.monthrange(year, month)) if month in months else ():
                midnight = datetime(year, month, day)  # noqa: DTZ001 - a time on a clock
                if midnight.date() < first.date():
                    continue
                last_match = month_number
                is_first_day = midnight.date() == first.date()
                for hour in ordered_hours:
                    if is_first_day and hour < first.hour:
                        continue
                    for minute in ordered_minutes:
                        if not (is_first_day and hour == first.hour and minute < first.minute):
                            yield midnight.replace(hour=hour, minute=minute)
            month_number += 1
        raise _unusable(self.text, "never occurs")


@dataclass(frozen=True)
class _Days:
    """The matching days of months. If both fields restrict days, a day of either matches."""

    days: frozenset[int]
    weekdays: frozenset[int]
    is_any_day: bool
    is_any_weekday: bool

    def of(self, first_weekday: int, length: int) -> list[int]:
        """Return the matching days of a month of this length that begins on this weekday (Monday is 0)."""
        return [day for day in range(1, length + 1) if self._matches(day, (first_weekday + day) % 7, left=length - day)]

    def _matches(self, day: int, weekday: int, *, left: int) -> bool:
        """Return True when a day matches. ``left`` is the number of days of the month after it."""
        by_day = day in self.days or (left == 0 and _LAST_DAY in self.days)
        by_weekday = (
            weekday in self.weekdays
            or weekday + 7 * ((day + 6) // 7) in self.weekdays
            or (left < 7 and weekday + 7 * _LAST_WEEK in self.weekdays)
        )
        if self.is_any_day or self.is_any_weekday:
            return by_day and by_weekday
        return by_day or by_weekday


def _unusable(text: str, problem: str) -> InvalidValue:
    return InvalidValue(f"{shown(text)} is not a valid cron expression: {problem}", hint=_HINT)
