"""The evenness with which schedules spread a fleet's sources over the times that their text leaves open."""

import math
import random
import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, timedelta

from bench.coordinator_in_process import BEGIN, seconds_of

from turku.policy.timing import schedule

_DAY = 86_400


@dataclass(frozen=True)
class Form:
    """A schedule, the span in which each source has one moment, and how finely it is looked at."""

    frequency: str
    first_second: int
    last_second: int
    bin_seconds: int

    @property
    def bins(self) -> int:
        return (self.last_second - self.first_second) // self.bin_seconds


FORMS = (
    Form("hourly", 0, 3600, 60),
    Form("daily", 0, _DAY, 60),
    Form("daily, 2200-0500", 22 * 3600, 29 * 3600, 60),
    Form("weekly", 0, 7 * _DAY, 3600),
    Form("monthly", 0, 28 * _DAY, 6 * 3600),
    Form("cron H H * * *", 0, _DAY, 60),
    Form("cron H H(0-5) * * *", 0, 6 * 3600, 60),
    Form("cron H * * * *", 0, 3600, 60),
    Form("cron H H H * *", 0, 28 * _DAY, 6 * 3600),
)


@dataclass(frozen=True)
class Spread:
    """The number of sources in each bin, and the part of its deviation that chance alone explains."""

    counts: tuple[int, ...]

    @property
    def mean(self) -> float:
        return sum(self.counts) / len(self.counts)

    @property
    def peak_to_mean(self) -> float:
        return max(self.counts) / self.mean

    @property
    def chi_square(self) -> float:
        return sum((count - self.mean) ** 2 for count in self.counts) / self.mean

    @property
    def degrees_of_freedom(self) -> int:
        return len(self.counts) - 1

    @property
    def probability(self) -> float:
        """Of a chi-square as large by chance where the spread is even (Wilson and Hilferty's approximation)."""
        freedom = self.degrees_of_freedom
        part = 2 / (9 * freedom)
        deviation = ((self.chi_square / freedom) ** (1 / 3) - (1 - part)) / math.sqrt(part)
        return math.erfc(deviation / math.sqrt(2)) / 2

    @property
    def chance_peak_to_mean(self) -> float:
        """The peak that as many sources thrown at random would have, about."""
        return (self.mean + math.sqrt(2 * self.mean * math.log(len(self.counts)))) / self.mean


def of(moments: Iterable[float], *, first: float, bins: int, bin_seconds: float) -> Spread:
    """The spread of moments in seconds."""
    counts = Counter(int((moment - first) // bin_seconds) for moment in moments)
    return Spread(tuple(counts[number] for number in range(bins)))


def of_form(form: Form, *, sources: int, seed: int) -> Spread:
    """The spread of that many sources with random UUIDs."""
    chance = random.Random(seed)
    rule = schedule.parse(form.frequency)
    begin = BEGIN + timedelta(seconds=form.first_second) - timedelta(microseconds=1)
    moments = (
        seconds_of(rule.next_after(begin, identity=str(uuid.UUID(int=chance.getrandbits(128), version=4)), zone=UTC))
        for _number in range(sources)
    )
    return of(moments, first=form.first_second, bins=form.bins, bin_seconds=form.bin_seconds)
