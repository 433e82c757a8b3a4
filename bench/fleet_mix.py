"""The machines of a simulated fleet: their schedules, sizes, durations and failures, drawn from a seed.

The shares are a guess at a mixed fleet, chosen so that the whole grammar of schedules occurs. Every figure that follows
from them is one of this fleet.
"""

import math
import random
from dataclasses import dataclass

SCHEDULES: dict[str, float] = {
    "daily": 37.3,
    "daily, 2200-0500": 14,
    "daily, 0100-0500": 8,
    # The hour that people write when they are asked for one: it cannot spread.
    "daily, 0200": 3,
    "weekly": 7,
    "sunday, 0200-0600": 4,
    "saturday": 2,
    "monthly": 3,
    "monthly, 0000-0600": 1,
    "hourly": 1,
    "hourly, 0800-1800": 1,
    "cron H H * * *": 8,
    "cron H H(0-5) * * *": 5,
    "cron H H/6 * * *": 2,
    "cron H/30 8-17 * * mon-fri": 0.2,
    "cron H H H * *": 1.5,
    "cron 30 2 * * mon-fri": 2,
}
"""Frequency to its share of a hundred sources."""
SOURCES_PER_MACHINE = (1, 1, 2, 2, 3, 4)
SOURCE_NAMES = ("etc", "home", "database", "www")

_INCREMENTAL_MEDIAN_SECONDS = 45.0
_INCREMENTAL_SPREAD = 1.1
_SIZE_MEDIAN_GIB = 2.0
_SIZE_SPREAD = 1.2
_FIRST_GIB_PER_SECOND = 40 / 1024
"""40 MiB/s: a first backup over a network that others use too."""
_LONGEST_SECONDS = 12 * 3600.0
_SHORTEST_SECONDS = 3.0
_FAILED_SECONDS = 20.0

FAILED_SHARE = 0.02
KILLED_SHARE = 0.003
"""Runs that end without a report: a storage that is restarted, a machine that is switched off."""


@dataclass(frozen=True)
class DrawnSource:
    """A source as its owner declares it, with what is behind it."""

    name: str
    frequency: str
    size_gib: float


def sources(chance: random.Random) -> list[DrawnSource]:
    """The sources of a machine."""
    count = chance.choice(SOURCES_PER_MACHINE)
    frequencies = chance.choices(list(SCHEDULES), list(SCHEDULES.values()), k=count)
    return [
        DrawnSource(SOURCE_NAMES[index], frequency, chance.lognormvariate(math.log(_SIZE_MEDIAN_GIB), _SIZE_SPREAD))
        for index, frequency in enumerate(frequencies)
    ]


def duration_seconds(chance: random.Random, *, size_gib: float, is_first: bool) -> float:
    """Return the duration of a backup that succeeds."""
    if is_first:
        wanted = size_gib / _FIRST_GIB_PER_SECOND
    else:
        wanted = chance.lognormvariate(math.log(_INCREMENTAL_MEDIAN_SECONDS), _INCREMENTAL_SPREAD)
    return min(max(wanted, _SHORTEST_SECONDS), _LONGEST_SECONDS)


def failure_seconds(chance: random.Random) -> float:
    """Return the duration of a backup that fails."""
    return chance.uniform(_SHORTEST_SECONDS, 2 * _FAILED_SECONDS)


def first_fill_gib_mean() -> float:
    """The mean size of a source: of a log-normal distribution."""
    return _SIZE_MEDIAN_GIB * math.exp(_SIZE_SPREAD**2 / 2)


def incremental_mean_seconds() -> float:
    """The mean duration of a backup that is not the first."""
    return _INCREMENTAL_MEDIAN_SECONDS * math.exp(_INCREMENTAL_SPREAD**2 / 2)
