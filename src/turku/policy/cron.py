"""Cron expressions as schedules, with Jenkins' ``H`` (hashed per source) and ``R`` (random)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from functools import cached_property
from itertools import pairwise

from croniter import croniter

from turku.errors import PolicyError
from turku.policy.characters import shown
from turku.policy.local_time import clock_change_nearby, in_utc, moment_of, moments_of, wall_time

_FORM = "cron MINUTE HOUR DAY MONTH WEEKDAY"
_HINT = f"{_FORM}, such as 'cron H H(0-5) * * *' for daily at night or 'cron 30 2 * * mon-fri'"
_FIELDS = 5
_DAY_FIELD = 2
_HOUR_FIELD = 1
_LONGEST_GAP_YEARS = 9
"""29 February comes after 4 years, once a century after 8."""
_REFERENCE = datetime(2024, 1, 1)  # noqa: DTZ001 - a time on a clock
"""From where an expression is tried and its period is measured; any moment would do."""
_MEASURED_GAPS = 8
_ANY_IDENTITY = "any"
_BARE_DRAW = re.compile(r"([hr])(?=$|/)", re.IGNORECASE)


@dataclass(frozen=True)
class Cron:
    """When the zone's clocks match the expression.

    A time that the clocks skip comes as long after the gap's start as it would have; one that they show twice counts
    once, the first time, unless the expression is for every hour.
    """

    text: str
    expression: str

    @classmethod
    def parse(cls, text: str, expression: str) -> Cron:
        """The schedule for a cron expression; ``text`` is the whole frequency. Raises PolicyError."""
        fields = expression.split()
        if len(fields) != _FIELDS:
            raise PolicyError(f"{shown(text)} needs {_FIELDS} fields after 'cron', not {len(fields)}", hint=_HINT)
        # As in Jenkins, a drawn day is one that every month has: croniter would draw from 1 to 31.
        fields[_DAY_FIELD] = _BARE_DRAW.sub(r"\1(1-28)", fields[_DAY_FIELD])
        cron = cls(text, " ".join(fields))
        next(cron._walls_after(_REFERENCE, _ANY_IDENTITY))
        return cron

    @cached_property
    def period(self) -> timedelta:
        """The shortest of the first gaps between moments (``0 2 * * mon-fri``: one day)."""
        walls = self._walls_after(_REFERENCE, _ANY_IDENTITY)
        moments = [next(walls) for _ in range(_MEASURED_GAPS + 1)]
        return min(after - before for before, after in pairwise(moments))

    def next_after(self, moment: datetime, *, identity: str, zone: tzinfo) -> datetime:
        moment = in_utc(moment)
        wall = wall_time(moment, zone)
        change = clock_change_nearby(moment, zone)
        # croniter counts on clocks without a zone: what it says of days when clocks change is not what we promise.
        # On such days, times before and after the change overlap, so more of them are looked at.
        dues: list[datetime] = []
        for due_wall in self._walls_after(wall - change - timedelta(microseconds=1), identity):
            if dues and (not change or due_wall > wall + 2 * change):
                break
            dues += [due for due in self._moments(due_wall, zone) if due > moment]
        return min(dues)

    def _moments(self, wall: datetime, zone: tzinfo) -> Iterator[datetime]:
        if self.expression.split()[_HOUR_FIELD] == "*":
            yield from moments_of(wall, zone)
        else:
            yield moment_of(wall, zone)

    def _walls_after(self, wall: datetime, identity: str) -> Iterator[datetime]:
        """The matching times on a clock, from the first after ``wall`` on. Raises PolicyError."""
        try:
            matches = croniter(
                " ".join(_drawn(field, index, identity) for index, field in enumerate(self.expression.split())),
                wall,
                ret_type=datetime,
                max_years_between_matches=_LONGEST_GAP_YEARS,
            )
            while True:
                yield matches.get_next()
        except GeneratorExit:
            raise
        # The expression comes from the network, and croniter raises more than its own errors.
        except Exception as error:
            problem = "never occurs" if type(error).__name__ == "CroniterBadDateError" else _first_line(error)
            raise PolicyError(f"{shown(self.text)} is no usable cron expression: {problem}", hint=_HINT) from None


def _drawn(field: str, index: int, identity: str) -> str:
    """The field of an expression with its ``H`` drawn for that identity.

    Field by field: croniter draws all of them from one number, so that ``H H * * *`` of a whole fleet would fall on
    240 of the day's 1,440 minutes.
    """
    if not field.lower().startswith("h"):
        return field
    fields = ["*"] * _FIELDS
    fields[index] = field
    hash_id = hashlib.sha256(f"{index}:{identity}".encode("utf-8", "surrogatepass")).hexdigest().encode()
    expanded, _weekdays = croniter.expand(" ".join(fields), hash_id=hash_id)
    return ",".join(str(value) for value in expanded[index])


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:150]
