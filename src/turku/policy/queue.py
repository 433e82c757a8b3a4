"""The order in which machines may start a session, where a storage has fewer slots than machines that are due.

The source that would miss its next turn first goes first. Each source has a grace period, a quarter of its schedule's
period, that begins when it is due. The queue is ordered by the end of the grace period. That moment stands still while
those of newcomers lie ever later, so nobody waits for ever. First backups take long. They have slots of their own (a
*lane*), so that they and the regular backups never wait for each other.

A machine asks every five minutes and cannot be called. A slot that becomes free is therefore offered to the head of the
queue alone at first, and the longer it lies idle, the further back it may go: quickly where sessions are short, which
the head hardly notices, and slowly where they are long. Once the head has asked in vain for half a day, a slot is
reserved for it until it must have asked.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from turku.errors import InvalidValue

DEFAULT_SLOTS = 32
SLOTS_LIMIT = 1000
_FIRST_SHARE = 4
"""First backups have one of this many slots."""
_GRACE_SHARE = 4
"""The grace period is the schedule's period divided by this."""
RETRY_INTERVAL = timedelta(minutes=5, seconds=30)
"""Longest time until a waiting machine asks again: the five minutes of its timer, and its random delay."""
WAITING_TIMEOUT = 2 * RETRY_INTERVAL
"""A machine that has not asked for longer than this leaves the queue."""
MINIMUM_WIDENING_STEP = timedelta(seconds=20)
_WIDENING_SHARE = 10
"""An idle slot is offered to twice as many after each such part of the length of its last session."""
RESERVED_AFTER = timedelta(hours=12)
"""Once the head has asked in vain for this long, the next slot is reserved for it."""
NO_SHOW_DELAY = timedelta(hours=6)
"""A no-show is queued like a daily source that is due only now."""
UNLIMITED = 1024
"""With this many eligible, all are."""


class Lane(enum.StrEnum):
    """The kind of a slot."""

    REGULAR = "regular"
    FIRST = "first"
    """For sources that were never backed up."""


def lane_of(*, was_backed_up: bool) -> Lane:
    """Return the lane of a source."""
    return Lane.REGULAR if was_backed_up else Lane.FIRST


def lanes(slots: int, first_slots: int | None = None) -> dict[Lane, int]:
    """Return the number of slots of each lane: ``slots`` in all, of which ``first_slots`` are for first backups.

    By default, a quarter are. Each lane has at least one. A single slot serves both, in the regular lane. Raises
    InvalidValue.
    """
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


def deadline(due: datetime, period: timedelta, *, no_show: datetime | None = None) -> datetime:
    """Return the end of the grace period of a source that is due since ``due``, by which the queue is ordered.

    ``no_show`` is the moment at which its machine let a slot lapse that was reserved for it.
    """
    ends = due + period / _GRACE_SHARE
    return ends if no_show is None else max(ends, no_show + NO_SHOW_DELAY)


@dataclass(frozen=True)
class QueueEntry:
    """A machine that asked in vain lately."""

    deadline: datetime
    asking_since: datetime
    """The moment from which it has been asking."""


@dataclass(frozen=True)
class FreeSlots:
    """The free slots of a lane."""

    count: int
    idle: timedelta
    """Time for which the longest idle slot has been free."""
    last_length: timedelta
    """Length of the last session in that slot."""


def eligible_count(free: FreeSlots, head: QueueEntry | None, *, now: datetime) -> int:
    """Return the number of machines, from the head of the queue, that may take a free slot: UNLIMITED at most."""
    if free.count <= 0:
        return 0
    if free.idle >= RETRY_INTERVAL:
        # The machine that the slot was reserved for did not ask.
        return UNLIMITED
    if head is not None and now - head.asking_since >= RESERVED_AFTER:
        return min(free.count, UNLIMITED)
    doublings = max(free.idle, timedelta(0)) // max(MINIMUM_WIDENING_STEP, free.last_length / _WIDENING_SHARE)
    return min(free.count << doublings, UNLIMITED)


def may_start(own_deadline: datetime, waiting: Sequence[QueueEntry], free: FreeSlots, *, now: datetime) -> bool:
    """Return True when a machine that asks now may take a free slot.

    ``waiting`` are the other machines of this lane, the head of the queue first. Those beyond the eligible ones do not
    matter and may be absent.
    """
    head = waiting[0] if waiting else None
    allowed = eligible_count(free, head, now=now)
    ahead = sum(1 for other in waiting[:allowed] if other.deadline < own_deadline)
    return ahead < allowed
