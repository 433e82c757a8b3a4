"""A storage, its machines and their five minutes, played through by the rule alone: nobody starves, no slot lies idle
for long while somebody wants it, and who was due first is not overtaken for long."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turku.errors import InvalidValue
from turku.policy import queue
from turku.policy.queue import Lane, QueueEntry

BEGIN = datetime(2026, 11, 24, tzinfo=UTC)
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
PING = 5 * MINUTE


@dataclass
class Machine:
    """A machine that is due every ``period``, then busy for ``length``, and asks at ``phase`` of each five minutes."""

    period: timedelta
    length: timedelta
    phase: timedelta
    due: datetime = BEGIN
    asked_since: datetime | None = None
    ends: datetime | None = None
    waits: list[timedelta] = field(default_factory=list)


@dataclass
class Slot:
    """A free one: since when, and for how long it was taken before."""

    freed: datetime = LONG_AGO
    length: timedelta = timedelta(0)


@dataclass
class Storage:
    slots: int
    running: list[Machine] = field(default_factory=list)
    free: list[Slot] = field(init=False)
    longest_idle: timedelta = timedelta(0)

    def __post_init__(self) -> None:
        self.free = [Slot() for _ in range(self.slots - len(self.running))]


def play(machines: Sequence[Machine], storage: Storage, length: timedelta) -> None:
    """Every ping of every machine, in their order."""
    running = storage.running
    pings = sorted(
        (each.phase + number * PING, index) for index, each in enumerate(machines) for number in range(length // PING)
    )
    for at, index in pings:
        now, machine = BEGIN + at, machines[index]
        for done in [each for each in running if each.ends is not None and each.ends <= now]:
            running.remove(done)
            assert done.ends is not None
            storage.free.append(Slot(done.ends, done.length))
            done.due, done.ends = max(done.due + done.period, now), None
        if machine.ends is not None or machine.due > now:
            continue
        waiting = sorted(
            (
                QueueEntry(queue.deadline(each.due, each.period), each.asked_since)
                for each in machines
                if each is not machine and each.asked_since is not None
            ),
            key=lambda each: each.deadline,
        )
        longest = min(storage.free, key=lambda slot: slot.freed, default=Slot())
        free = queue.FreeSlots(len(storage.free), now - longest.freed, longest.length)
        if queue.may_start(queue.deadline(machine.due, machine.period), waiting, free, now=now):
            if waiting and longest.freed > BEGIN:
                storage.longest_idle = max(storage.longest_idle, free.idle)
            storage.free.remove(longest)
            machine.waits.append(now - (machine.asked_since or now))
            machine.asked_since, machine.ends = None, now + machine.length
            running.append(machine)
            assert len(running) <= storage.slots
        else:
            machine.asked_since = machine.asked_since or now


fleets = st.lists(
    st.builds(
        Machine,
        period=st.sampled_from([timedelta(hours=1), timedelta(days=1), timedelta(days=7)]),
        length=st.sampled_from([MINUTE, 20 * MINUTE, timedelta(hours=2)]),
        phase=st.integers(0, 299).map(lambda seconds: timedelta(seconds=seconds)),
    ),
    min_size=2,
    max_size=14,
)


@settings(max_examples=25)
@given(fleets, st.integers(1, 3))
def test_nobody_starves_and_no_slot_lies_idle_for_long(machines: list[Machine], slots: int) -> None:
    storage = Storage(slots)
    play(machines, storage, timedelta(days=3))
    # However overloaded: once round through all of them, a ping's pause before each, and the grace period where it is longer.
    a_round = sum((each.length + queue.RETRY_INTERVAL for each in machines), timedelta(0))
    longest_grace = max(each.period for each in machines) / 4
    for machine in machines:
        waited = [*machine.waits, *([BEGIN + timedelta(days=3) - machine.asked_since] if machine.asked_since else [])]
        assert max(waited, default=timedelta(0)) <= longest_grace + queue.RESERVED_AFTER + 3 * a_round
    assert storage.longest_idle <= 2 * queue.RETRY_INTERVAL


@settings(max_examples=15)
@given(st.lists(st.integers(0, 299), min_size=3, max_size=12, unique=True), st.integers(1, 3))
def test_after_an_outage_all_are_served_about_in_the_order_in_which_they_were_due(
    phases: list[int], slots: int
) -> None:
    machines = [
        Machine(timedelta(days=7), 40 * MINUTE, timedelta(seconds=phase), due=BEGIN - timedelta(hours=30 - number))
        for number, phase in enumerate(phases)
    ]
    storage = Storage(slots)
    storage.free = [Slot(BEGIN, 40 * MINUTE) for _ in range(slots)]
    play(machines, storage, timedelta(hours=12))
    assert all(len(each.waits) == 1 for each in machines)
    for number, machine in enumerate(machines):
        # Its turn among those that were due before it, and one more for who slipped through while slots lay idle.
        rounds = number // slots + 2
        assert machine.waits[0] <= rounds * (40 * MINUTE + queue.RETRY_INTERVAL)


def test_one_that_asks_at_the_worst_moments_gets_the_slot_after_half_a_day() -> None:
    # The other one is busy whenever the head asks, and asks before it again each time.
    head = Machine(timedelta(days=1), MINUTE, timedelta(0), due=BEGIN - timedelta(days=2))
    other = Machine(MINUTE, timedelta(seconds=270), timedelta(seconds=40), due=BEGIN - PING)
    other.ends = BEGIN + timedelta(seconds=10)
    play([head, other], Storage(1, running=[other]), timedelta(days=1))
    assert head.waits[0] == queue.RESERVED_AFTER + PING


@given(st.integers(1, queue.SLOTS_LIMIT), st.none() | st.integers(-1, queue.SLOTS_LIMIT + 1))
def test_the_lanes_together_are_all_slots_and_none_is_empty(slots: int, first: int | None) -> None:
    if slots > 1 and first is not None and not 1 <= first < slots:
        with pytest.raises(InvalidValue):
            queue.lanes(slots, first)
        return
    lanes = queue.lanes(slots, first)
    assert sum(lanes.values()) == slots
    if slots > 1:
        assert min(lanes.values()) >= 1
        assert lanes[Lane.FIRST] == (max(1, slots // 4) if first is None else first)


@given(
    st.integers(0, 5000),
    st.timedeltas(timedelta(0), timedelta(days=1000)),
    st.timedeltas(timedelta(0), timedelta(days=10)),
    st.none() | st.timedeltas(timedelta(0), timedelta(days=30)),
)
def test_a_window_is_as_wide_as_there_are_free_slots_at_least_and_grows_while_they_lie_idle(
    count: int, idle: timedelta, length: timedelta, since: timedelta | None
) -> None:
    head = None if since is None else QueueEntry(BEGIN, BEGIN - since)

    def window(idle: timedelta) -> int:
        return queue.eligible_count(queue.FreeSlots(count, idle, length), head, now=BEGIN)

    assert min(count, queue.UNLIMITED) <= window(idle) <= window(idle + MINUTE) or count == 0
    if idle >= queue.RETRY_INTERVAL:
        assert window(idle) == (queue.UNLIMITED if count else 0)


def test_a_slot_of_long_sessions_is_kept_longer_for_the_head() -> None:
    def window(idle_seconds: int, length: timedelta) -> int:
        return queue.eligible_count(queue.FreeSlots(1, timedelta(seconds=idle_seconds), length), None, now=BEGIN)

    assert [window(seconds, MINUTE) for seconds in (0, 19, 20, 40, 60)] == [1, 1, 2, 4, 8]
    assert [window(seconds, timedelta(hours=2)) for seconds in (0, 60, 300, 330)] == [1, 1, 1, queue.UNLIMITED]
