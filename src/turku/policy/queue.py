"""Who may start a backup session now, where a storage has fewer slots than there are machines that are due.

The one who would first miss its next turn goes first: patience, a quarter of its schedule's period, begins when it is
due, and what ends first is served first. As that moment stands still while newcomers' lie ever later, nobody waits for
ever. First backups, which take long, have slots of their own (a *lane*), so that they and the usual ones never wait
for each other.

Machines ask every five minutes and cannot be called. So a slot that became free is at first for the foremost alone, and
the longer it lies idle the further back it may go: quickly where sessions are short, which the foremost will hardly
notice, and slowly where they are long. Once the foremost has asked in vain for half a day, a slot is kept for it until
it must have asked.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from turku.errors import InvalidValue

DEFAULT_SLOTS = 32
SLOTS_LIMIT = 1000
_FIRST_SHARE = 4
"""First backups have one slot of so many."""
_PATIENCE_SHARE = 4
"""Patience is one part of so many of the schedule's period."""
ASKING_PAUSE = timedelta(minutes=5, seconds=30)
"""Within which a machine that waits asks again: its timer's five minutes, and what it waits at random."""
ALIVE = 2 * ASKING_PAUSE
"""Who did not ask for longer than this is not waited for."""
SHORTEST_WIDENING = timedelta(seconds=20)
_WIDENING_SHARE = 10
"""After each tenth of the time for which a slot was taken last, it lying idle, twice as many may have it."""
KEPT_AFTER = timedelta(hours=12)
"""Once the foremost has asked in vain for so long, the next slot is kept for it."""
MISSED_DELAY = timedelta(hours=6)
"""Who did not come for its slot stands where one would with a daily schedule that is due only now."""
EVERYBODY = 1024
"""A window of this many is one for all."""


class Lane(enum.StrEnum):
    """The slots of a storage are of two kinds."""

    REGULAR = "regular"
    FIRST = "first"
    """For sources that were never backed up."""


def lane_of(*, was_backed_up: bool) -> Lane:
    """The lane of a source."""
    return Lane.REGULAR if was_backed_up else Lane.FIRST


def lanes(slots: int, first_slots: int | None = None) -> dict[Lane, int]:
    """How many slots each lane has: together ``slots``, of which ``first_slots`` (by default a quarter) are for first
    backups. Each lane has at least one; a single slot is for both, in the regular lane. Raises InvalidValue."""
    if not 1 <= slots <= SLOTS_LIMIT:
        raise InvalidValue(f"{slots} slots: it must be from 1 to {SLOTS_LIMIT}")
    if slots == 1:
        return {Lane.REGULAR: 1, Lane.FIRST: 0}
    first = max(1, slots // _FIRST_SHARE) if first_slots is None else first_slots
    if not 1 <= first < slots:
        raise InvalidValue(
            f"of {slots} slots, {first} cannot be for first backups", hint=f"from 1 to {slots - 1}: each kind needs one"
        )
    return {Lane.REGULAR: slots - first, Lane.FIRST: first}


def deadline(due: datetime, period: timedelta, *, missed: datetime | None = None) -> datetime:
    """When the patience of a source ends that is due since then: the order of the queue. ``missed``: when its machine
    let a slot lapse that was kept for it."""
    ends = due + period / _PATIENCE_SHARE
    return ends if missed is None else max(ends, missed + MISSED_DELAY)


@dataclass(frozen=True)
class Waiting:
    """One that asked in vain lately."""

    deadline: datetime
    since: datetime
    """Since when it has been asking."""


@dataclass(frozen=True)
class Free:
    """The free slots of a lane."""

    count: int
    idle: timedelta
    """For how long the one has been free that has been free longest."""
    last_length: timedelta
    """For how long that one was taken before."""


def window(free: Free, foremost: Waiting | None, *, now: datetime) -> int:
    """How many of the foremost may have one of the free slots; EVERYBODY at most."""
    if free.count <= 0:
        return 0
    if free.idle >= ASKING_PAUSE:
        # Who was kept waiting for did not ask.
        return EVERYBODY
    if foremost is not None and now - foremost.since >= KEPT_AFTER:
        return min(free.count, EVERYBODY)
    doublings = max(free.idle, timedelta(0)) // max(SHORTEST_WIDENING, free.last_length / _WIDENING_SHARE)
    return min(free.count << doublings, EVERYBODY)


def may_go(own_deadline: datetime, waiting: Sequence[Waiting], free: Free, *, now: datetime) -> bool:
    """Whether one that asks now may have a free slot. ``waiting`` are the others that wait in this lane, the foremost
    first; those beyond the window do not matter and may be left out."""
    foremost = waiting[0] if waiting else None
    allowed = window(free, foremost, now=now)
    ahead = sum(1 for other in waiting[:allowed] if other.deadline < own_deadline)
    return ahead < allowed
