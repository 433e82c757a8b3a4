"""Schedules of sources (configuration reference).

A schedule is ``hourly``, ``daily``, ``weekly``, ``monthly`` or a day's name, then optionally ``, HHMM`` or ``,
HHMM-HHMM``. Or it is ``cron`` with a cron expression. A hash of the source's identity decides what the text leaves
open: the second within the range (without a range: within the hour or day), the day of the week for ``weekly``, one of
the days 1 to 28 for ``monthly``. This spreads the load of a fleet, and a source keeps its hour when its frequency
changes.
"""

import difflib
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from functools import lru_cache

from turku.errors import InvalidValue
from turku.policy.characters import shown, size_bytes
from turku.policy.timing.cron import Cron
from turku.policy.timing.local_time import clock_change_nearby, in_utc, moment_of, moments_of, wall_time

TEXT_LIMIT = 200
_REMEMBERED = 2048
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_KINDS = ("hourly", "daily", "weekly", "monthly", *WEEKDAYS)
_HINT = (
    "hourly, daily, weekly, monthly or a day such as tuesday; then, if wanted, a time or range such as "
    "', 0200' or ', 2200-0500'; or 'cron MINUTE HOUR DAY MONTH WEEKDAY'"
)
_TIMES = re.compile(r"(\d\d)(\d\d)(?:\s*-\s*(\d\d)(\d\d))?", re.ASCII)
_MINUTES_PER_DAY = 24 * 60
_SECONDS_PER_HOUR = 3600
_LAST_COMMON_DAY = 28
"""Last day that every month has, so that a monthly backup happens in every month."""
_SEARCH_BACK = timedelta(days=3)
"""A range over midnight ends up to two days after the start of its day. Some clocks have skipped a whole day."""
_SEARCH_DAYS = 70
"""More days than from one monthly day to the next, the days back included."""


LONGEST_PAUSES = tuple(timedelta(days=days) for days in (1, 7, 31, 150, 366, 15_000))
"""Values of ``Schedule.longest_pause``. The last one is longer than any pause. A clock change may add an hour."""


@dataclass(frozen=True)
class TimeRange:
    """A part of the day, in minutes since midnight. ``end`` may lie on the next day."""

    start: int
    end: int

    def second_of(self, identity: str) -> int:
        """Return the source's own second since midnight. In an empty range, it is the start."""
        return self.start * 60 + _drawn("time", identity, max((self.end - self.start) * 60, 1))


WHOLE_DAY = TimeRange(0, _MINUTES_PER_DAY)


def _drawn(what: str, identity: str, choices: int) -> int:
    """Return a number below ``choices``, constant for one source and evenly spread over sources."""
    digest = hashlib.sha256(f"{what}:{identity}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % choices


@dataclass(frozen=True)
class Hourly:
    """A schedule for every hour, at the source's own second of the hour.

    With one time, at that minute of every hour. With a range, in the hours of the range only, or once if it is shorter.
    An hour that the clocks show twice counts as two hours. None is omitted when they change.
    """

    text: str
    within: TimeRange | None

    @property
    def period(self) -> timedelta:
        return timedelta(hours=1)

    @property
    def longest_pause(self) -> timedelta:
        # With a range, it pauses until the next day.
        return timedelta(days=1)

    def next_after(self, moment: datetime, *, identity: str, zone: tzinfo) -> datetime:
        moment = in_utc(moment)
        now, change = wall_time(moment, zone), clock_change_nearby(moment, zone)
        walls = (wall for ahead in range(-3, 3) for wall in self._walls(now.date() + timedelta(days=ahead), identity))
        # The first of 144 times is the next one, except on days of clock changes, where times before and after overlap.
        dues: list[datetime] = []
        for wall in sorted(wall for wall in walls if wall >= now - change):
            if dues and (not change or wall > now + 2 * change):
                break
            dues += [due for due in moments_of(wall, zone) if due > moment]
        return min(dues)

    def _walls(self, day: date, identity: str) -> Iterator[datetime]:
        start, end = 0, _MINUTES_PER_DAY * 60
        if self.within is None:
            first = _drawn("time", identity, _SECONDS_PER_HOUR)
        elif self.within.start == self.within.end:
            first = self.within.start * 60 % _SECONDS_PER_HOUR
        else:
            start, end = self.within.start * 60, self.within.end * 60
            first = start + _drawn("time", identity, min(end - start, _SECONDS_PER_HOUR))
        for second in range(first, end, _SECONDS_PER_HOUR):
            yield datetime.combine(day, time()) + timedelta(seconds=second)


@dataclass(frozen=True)
class Calendar:
    """A schedule for one time on certain days: ``daily``, ``weekly``, ``monthly``, or a day of the week."""

    text: str
    kind: str
    within: TimeRange

    @property
    def period(self) -> timedelta:
        return timedelta(days={"daily": 1, "monthly": 30}.get(self.kind, 7))

    @property
    def longest_pause(self) -> timedelta:
        return timedelta(days={"daily": 1, "monthly": 31}.get(self.kind, 7))

    def next_after(self, moment: datetime, *, identity: str, zone: tzinfo) -> datetime:
        moment = in_utc(moment)
        second = timedelta(seconds=self.within.second_of(identity))
        first_day = wall_time(moment, zone).date() - _SEARCH_BACK
        for day in (first_day + timedelta(days=ahead) for ahead in range(_SEARCH_DAYS)):
            if self._is_due_on(day, identity):
                due = moment_of(datetime.combine(day, time()) + second, zone)
                if due > moment:
                    return due
        raise AssertionError(f"{self.text} has no moment in {_SEARCH_DAYS} days")

    def _is_due_on(self, day: date, identity: str) -> bool:
        if self.kind == "daily":
            return True
        if self.kind == "monthly":
            return day.day == 1 + _drawn("day of month", identity, _LAST_COMMON_DAY)
        weekday = WEEKDAYS.index(self.kind) if self.kind in WEEKDAYS else _drawn("day of week", identity, 7)
        return day.weekday() == weekday


Schedule = Hourly | Calendar | Cron
"""A rule for the moments at which a source is due.

``text`` is the schedule as it was given, ``period`` the nominal time from one due moment to the next, ``longest_pause``
the smallest of ``LONGEST_PAUSES`` that is at least the longest time between two due moments of any source.
"""


def parse(text: str) -> Schedule:
    """Parse a schedule. Raises InvalidValue, which says what is wrong and what would be right."""
    if not isinstance(text, str):
        raise InvalidValue("a frequency is text", hint=_HINT)
    size_bytes(text)
    if len(text) > TEXT_LIMIT:
        raise InvalidValue(f"a frequency is at most {TEXT_LIMIT} characters long", hint=_HINT)
    return _parse(text)


# A fleet has few different schedules, so each is parsed once.
@lru_cache(maxsize=_REMEMBERED)
def _parse(text: str) -> Schedule:
    word, _blank, expression = text.strip().partition(" ")
    if word.lower() == "cron":
        return Cron.parse(text, expression)
    kind, comma, times = (part.strip() for part in text.partition(","))
    kind = kind.lower()
    if kind not in _KINDS:
        raise InvalidValue(f"{shown(kind)} is not a valid frequency{_did_you_mean(kind)}", hint=_HINT)
    time_range = _parse_range(times) if comma else None
    if kind == "hourly":
        return Hourly(text, time_range)
    return Calendar(text, kind, time_range or WHOLE_DAY)


def _did_you_mean(word: str) -> str:
    close = difflib.get_close_matches(word, _KINDS, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _parse_range(text: str) -> TimeRange:
    match = _TIMES.fullmatch(text)
    if match is None:
        raise InvalidValue(f"{shown(text)} is neither a time HHMM nor a range HHMM-HHMM", hint="such as 0200-0500")
    start = _minute(match[1], match[2], latest=_MINUTES_PER_DAY - 1)
    if match[3] is None:
        return TimeRange(start, start)
    end = _minute(match[3], match[4], latest=_MINUTES_PER_DAY)
    return TimeRange(start, end if end >= start else end + _MINUTES_PER_DAY)


def _minute(hours: str, minutes: str, *, latest: int) -> int:
    minute = int(hours) * 60 + int(minutes)
    if int(minutes) > 59 or minute > latest:
        raise InvalidValue(f"'{hours}{minutes}' is not a valid time of day", hint="HHMM goes from 0000 to 2359")
    return minute
