"""Retention rules, and the decision which snapshots they keep (configuration reference).

A snapshot is kept if any rule keeps it, and in case of doubt. A snapshot whose date is not understood and the newest
good snapshot are never deleted. Where no rule would keep any snapshot, all are kept.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo

from turku.errors import InvalidValue
from turku.policy.characters import shown, size_bytes

TEXT_LIMIT = 1000
RULES_LIMIT = 50
LARGEST_NUMBER = 36500

HELD = "held by name"
NOT_UNDERSTOOD = "date not understood"
IN_THE_FUTURE = "dated in the future"
NEWEST_GOOD = "newest good snapshot"
NO_RULE_KEEPS_ANY = "no rule would keep any"

PERIOD_SHARE = 0.75
"""Share of a schedule's period that must pass before another snapshot counts. It is below one, so that a backup that
comes somewhat earlier in its period than the one before still counts."""

_HINT = (
    "rules are 'last N days', 'last N snapshots' and 'earliest of [N] days|weeks|months', separated by commas, "
    "such as 'last 5 days, earliest of month'"
)
_LAST = re.compile(r"last (\d{1,9}) (day|snapshot)s?", re.ASCII)
_EARLIEST = re.compile(r"earliest of (?:(\d{1,9}) )?(day|week|month)s?", re.ASCII)


@dataclass(frozen=True)
class Snapshot:
    """A snapshot as retention sees it."""

    name: str
    moment: datetime | None
    """The moment at which it was made, with a zone. None where it is not known."""
    is_good: bool = True
    is_held: bool = False
    period: timedelta | None = None
    """The period of the schedule under which it was made, or None where it is not known.

    Of good snapshots that follow each other within ``PERIOD_SHARE`` of it, ``last N snapshots`` counts and keeps the
    earliest (threats M4).
    """


@dataclass(frozen=True)
class Decision:
    """The decision on one snapshot, with every reason to keep it. A snapshot that is not kept has no reason."""

    snapshot: Snapshot
    kept: bool
    reasons: tuple[str, ...]
    until: datetime | None = None
    """The moment from which no reason holds any more, if the upcoming snapshots come as expected. None where no moment
    is known."""


@dataclass(frozen=True)
class Upcoming:
    """The expected good snapshots: the first at a moment, then one for each period."""

    first: datetime
    period: timedelta

    def moment(self, number: int) -> datetime:
        """Return the moment of an expected snapshot. The first one has the number 0."""
        return self.first + number * self.period


@dataclass(frozen=True)
class _Kept:
    """A snapshot that a rule keeps, the reason, and the moment from which the rule does not keep it."""

    snapshot: "_Dated"
    reason: str
    until: datetime | None


@dataclass(frozen=True)
class _Dated:
    """A snapshot that rules decide on. It is neither held nor in the future, and its date is understood."""

    index: int
    """Its position in the given order."""
    moment: datetime
    local_date: date
    is_good: bool
    period: timedelta


@dataclass(frozen=True)
class _Occasion:
    """The circumstances of a decision."""

    now: datetime
    zone: tzinfo
    upcoming: Upcoming | None


@dataclass(frozen=True)
class LastDays:
    """``last N days``: snapshots of the last N times 24 hours."""

    number: int

    @property
    def text(self) -> str:
        return f"last {self.number} day{'s' if self.number > 1 else ''}"

    def keeps(self, snapshots: Sequence[_Dated], occasion: _Occasion) -> Iterator[_Kept]:
        """Yield each snapshot that the rule keeps. ``snapshots`` come oldest first."""
        for snapshot in snapshots:
            if occasion.now - snapshot.moment <= timedelta(days=self.number):
                yield _Kept(snapshot, self.text, snapshot.moment + timedelta(days=self.number))


@dataclass(frozen=True)
class LastSnapshots:
    """``last N snapshots``: the N newest good ones. A snapshot that is not good does not count.

    Nor does one that shares the period of an earlier one, so quick backups neither push out nor replace older ones.
    """

    number: int

    @property
    def text(self) -> str:
        return f"last {self.number} snapshot{'s' if self.number > 1 else ''}"

    def keeps(self, snapshots: Sequence[_Dated], occasion: _Occasion) -> Iterator[_Kept]:
        """Yield each snapshot that the rule keeps. ``snapshots`` come oldest first."""
        good_count, upcoming = 0, occasion.upcoming
        openers = _period_openers(snapshots)
        for snapshot in reversed(snapshots):
            if good_count == self.number:
                return
            if snapshot.is_good and snapshot.index not in openers:
                continue
            # As many good ones have to come before it is the last of N no more.
            missing = self.number - good_count
            good_count += snapshot.is_good
            yield _Kept(snapshot, self.text, upcoming.moment(missing - 1) if upcoming else None)


def _period_openers(snapshots: Sequence[_Dated]) -> set[int]:
    """Return the ``index`` of each good snapshot that opens a period. ``snapshots`` come oldest first.

    Each is measured by the period under which it was made, so a changed schedule does not change what counted before.
    """
    openers: set[int] = set()
    opened: datetime | None = None
    for snapshot in snapshots:
        if snapshot.is_good and (opened is None or snapshot.moment - opened >= snapshot.period * PERIOD_SHARE):
            opened = snapshot.moment
            openers.add(snapshot.index)
    return openers


@dataclass(frozen=True)
class _CalendarUnit:
    """A unit of the calendar: the running number of the unit that has a date, its name, and its first day."""

    number: Callable[[date], int]
    name: Callable[[date], str]
    first_day: Callable[[int], date]


def _sunday(day: date) -> date:
    # Ordinal 7 was a Sunday. The first days of year 1 have no Sunday before them.
    return date.fromordinal(max(day.toordinal() // 7 * 7, 1))


_CALENDAR_UNITS = {
    "day": _CalendarUnit(date.toordinal, date.isoformat, date.fromordinal),
    "week": _CalendarUnit(
        lambda day: day.toordinal() // 7,
        lambda day: _sunday(day).isoformat(),
        lambda number: date.fromordinal(number * 7),
    ),
    "month": _CalendarUnit(
        lambda day: day.year * 12 + day.month,
        lambda day: f"{day:%Y-%m}",
        lambda number: date((number - 1) // 12, (number - 1) % 12 + 1, 1),
    ),
}


@dataclass(frozen=True)
class EarliestOf:
    """``earliest of N weeks``: the earliest snapshot of this week (from Sunday), and of each of the N-1 weeks before.

    The earliest since the start of the first of those weeks is one of them, so both readings of the rule are met. Where
    the earliest is not good, the earliest good one is kept too.
    """

    unit: str
    number: int = 1

    @property
    def text(self) -> str:
        return f"earliest of {self.number} {self.unit}s" if self.number > 1 else f"earliest of {self.unit}"

    def keeps(self, snapshots: Sequence[_Dated], occasion: _Occasion) -> Iterator[_Kept]:
        """Yield each snapshot that the rule keeps. ``snapshots`` come oldest first."""
        unit = _CALENDAR_UNITS[self.unit]
        current = unit.number(occasion.now.astimezone(occasion.zone).date())
        seen: set[tuple[int, bool]] = set()
        for snapshot in snapshots:
            number = unit.number(snapshot.local_date)
            if number <= current - self.number:
                continue
            if (number, True) not in seen and (number, snapshot.is_good) not in seen:
                seen.add((number, snapshot.is_good))
                end = datetime.combine(unit.first_day(number + self.number), time(), occasion.zone).astimezone(UTC)
                yield _Kept(snapshot, f"{self.text} ({unit.name(snapshot.local_date)})", end)


RetentionRule = LastDays | LastSnapshots | EarliestOf


@dataclass(frozen=True)
class Retention:
    """Keep rules. A snapshot that any of them keeps is kept."""

    rules: tuple[RetentionRule, ...]

    @property
    def text(self) -> str:
        """The rules as a person writes them."""
        return ", ".join(rule.text for rule in self.rules)


def parse(text: str) -> Retention:
    """Parse retention rules. Raises InvalidValue for anything not understood, so that the caller deletes nothing."""
    if not isinstance(text, str):
        raise InvalidValue("retention must be text", hint=_HINT)
    size_bytes(text)
    if len(text) > TEXT_LIMIT:
        raise InvalidValue(f"retention is longer than {TEXT_LIMIT} characters", hint=_HINT)
    parts = text.split(",")
    if len(parts) > RULES_LIMIT:
        raise InvalidValue(f"retention has more than {RULES_LIMIT} rules", hint=_HINT)
    return Retention(tuple(dict.fromkeys(_parse_rule(part) for part in parts)))


def _parse_rule(text: str) -> RetentionRule:
    words = " ".join(text.lower().split())
    if match := _LAST.fullmatch(words):
        number = _number(match[1], text)
        return LastDays(number) if match[2] == "day" else LastSnapshots(number)
    if match := _EARLIEST.fullmatch(words):
        return EarliestOf(match[2], _number(match[1] or "1", text))
    raise InvalidValue(
        f"{shown(text.strip())} is not a valid retention rule" if words else "a retention rule is empty", hint=_HINT
    )


def _number(digits: str, text: str) -> int:
    number = int(digits)
    if not 1 <= number <= LARGEST_NUMBER:
        raise InvalidValue(f"the number in {shown(text.strip())} is not from 1 to {LARGEST_NUMBER}", hint=_HINT)
    return number


def decide(
    snapshots: Sequence[Snapshot], rules: Retention, *, now: datetime, zone: tzinfo, upcoming: Upcoming | None = None
) -> tuple[Decision, ...]:
    """Return a decision for each snapshot, in the given order. Days, weeks and months are those of ``zone``.

    Held snapshots, future ones and those without a known date are kept in any case and do not count for the rules.
    ``Decision.until`` rests on ``upcoming``.
    """
    if now.tzinfo is None:
        raise ValueError("now has no zone")
    reasons: list[list[tuple[str, datetime | None]]] = [[] for _ in snapshots]
    dated: list[_Dated] = []
    for index, snapshot in enumerate(snapshots):
        moment = _understood(snapshot.moment)
        if snapshot.is_held:
            reasons[index].append((HELD, None))
        if moment is None:
            reasons[index].append((NOT_UNDERSTOOD, None))
        elif moment > now:
            reasons[index].append((IN_THE_FUTURE, None))
        elif not snapshot.is_held:
            period = snapshot.period or timedelta()
            dated.append(_Dated(index, moment, moment.astimezone(zone).date(), snapshot.is_good, period))
    dated.sort(key=lambda each: (each.moment, snapshots[each.index].name))

    occasion = _Occasion(now, zone, upcoming)
    kept_by_rules = [kept for rule in rules.rules for kept in rule.keeps(dated, occasion)]
    for kept in kept_by_rules:
        reasons[kept.snapshot.index].append((kept.reason, kept.until))
    next_moment = upcoming.first if upcoming else None
    if not kept_by_rules:
        for each in dated:
            reasons[each.index].append((NO_RULE_KEEPS_ANY, next_moment))
    newest_good = next((each for each in reversed(dated) if each.is_good), None)
    if newest_good is not None:
        reasons[newest_good.index].append((NEWEST_GOOD, next_moment))
    return tuple(
        Decision(snapshot, bool(why), tuple(reason for reason, _until in why), _latest([until for _, until in why]))
        for snapshot, why in zip(snapshots, reasons, strict=True)
    )


def _latest(moments: Sequence[datetime | None]) -> datetime | None:
    """Return the latest of the moments, or None where one of them is not known."""
    known = [moment for moment in moments if moment is not None]
    return max(known) if known and len(known) == len(moments) else None


def _understood(moment: datetime | None) -> datetime | None:
    """Return the moment in UTC, or None where it has no zone or is too near to an end of the calendar to convert."""
    if moment is None or moment.tzinfo is None:
        return None
    # In UTC, because Python compares and subtracts two times of one zone by their wall times.
    try:
        in_utc = moment.astimezone(UTC)
    except OverflowError:
        return None
    return in_utc if 1 < in_utc.year < 9999 else None
