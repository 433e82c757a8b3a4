"""Rules of the queue for slots, played against each other: what each costs in waiting, and what it guards against.

One storage, its machines and their five minutes, as events on a simulated clock without a database. ``present`` is
``policy/queue.py`` itself. The other rules are simpler:

- ``first come``: whoever asks while a slot is free has it. Nobody queues.
- ``strict``: the order of the queue alone. A free slot is for the head, and for everybody once it was idle for a ping.
- ``20 s``, ``60 s``: as ``present``, with a constant step in place of a tenth of the last session.
- ``not reserved``: as ``present``, without the reservation for a head that waits for half a day.
"""

import argparse
import heapq
import json
import math
import random
import statistics
from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from turku.policy import queue
from turku.policy.queue import FreeSlots, QueueEntry

EPOCH = datetime(2026, 11, 1, tzinfo=UTC)
PING_SECONDS = 300.0
DAY_SECONDS = 86_400.0
PERIODS = {3600.0: 0.05, DAY_SECONDS: 0.75, 7 * DAY_SECONDS: 0.20}
"""Period of a schedule in seconds to its share of machines."""
DURATIONS = {"short": (60.0, 1.1), "long": (2400.0, 0.8), "mixed": (240.0, 2.0)}
"""Median in seconds and spread of a log-normal distribution."""

Rule = Callable[[FreeSlots, QueueEntry | None, datetime], int]
"""Returns the number of machines, from the head on, that may take a free slot."""


def _first_come(_free: FreeSlots, _head: QueueEntry | None, _now: datetime) -> int:
    return queue.UNLIMITED


def _strict(free: FreeSlots, _head: QueueEntry | None, _now: datetime) -> int:
    return queue.UNLIMITED if free.idle >= queue.RETRY_INTERVAL else free.count


def _constant(seconds: float) -> Rule:
    def rule(free: FreeSlots, head: QueueEntry | None, now: datetime) -> int:
        return queue.eligible_count(FreeSlots(free.count, free.idle, timedelta(seconds=10 * seconds)), head, now=now)

    return rule


def _not_reserved(free: FreeSlots, _head: QueueEntry | None, now: datetime) -> int:
    return queue.eligible_count(free, None, now=now)


def _present(free: FreeSlots, head: QueueEntry | None, now: datetime) -> int:
    return queue.eligible_count(free, head, now=now)


RULES: dict[str, Rule] = {
    "present": _present,
    "not reserved": _not_reserved,
    "20 s": _constant(20),
    "60 s": _constant(60),
    "strict": _strict,
    "first come": _first_come,
}


@dataclass(eq=False)
class Machine:
    """A machine with one source. ``median`` and ``spread`` are of the duration of its sessions."""

    period: float
    phase: float
    median: float
    spread: float
    due: float
    chance: random.Random
    asked_since: float | None = None
    began: float = 0.0
    waits: list[float] = field(default_factory=list)
    missed_turns: int = 0
    """Backups that began after the next one was due."""

    def session_seconds(self) -> float:
        """Draw the duration of a session."""
        return min(max(self.chance.lognormvariate(math.log(self.median), self.spread), 3.0), 12 * 3600.0)

    @property
    def deadline(self) -> datetime:
        """The end of its grace period."""
        return queue.deadline(_moment(self.due), timedelta(seconds=self.period))


def _moment(seconds: float) -> datetime:
    return EPOCH + timedelta(seconds=seconds)


class PlayedStorage:
    """The events of one storage. The figures are in the public attributes."""

    def __init__(self, machines: list[Machine], slots: int, rule: Rule) -> None:
        self.machines = machines
        self.rule = rule
        self.slots = slots
        self.free: list[tuple[float, float]] = [(-DAY_SECONDS, 0.0)] * slots
        """The moment when each free slot became free, and the seconds for which it was taken before."""
        self.waiting: list[tuple[datetime, int]] = []
        self.idle_seconds = 0.0
        """Slot seconds that were idle while somebody waited."""
        self.busy_seconds = 0.0
        self._last = 0.0
        self._events: list[tuple[float, int, str, int]] = []
        for index, machine in enumerate(machines):
            self._ask_next(max(machine.due, 0.0), index)

    def _ask_next(self, earliest: float, index: int) -> None:
        phase = self.machines[index].phase
        at = math.ceil((earliest - phase) / PING_SECONDS) * PING_SECONDS + phase
        heapq.heappush(self._events, (at + self.machines[index].chance.random(), index, "ask", index))

    def _advance(self, now: float) -> None:
        span = now - self._last
        self.idle_seconds += span * min(len(self.free), len(self.waiting))
        self.busy_seconds += span * (self.slots - len(self.free))
        self._last = now

    def run(self, until: float) -> None:
        """Play every event before that moment."""
        while self._events and self._events[0][0] < until:
            now, _order, kind, index = heapq.heappop(self._events)
            self._advance(now)
            if kind == "ask":
                self._ask(now, index)
            else:
                self._end(now, index)
        self._advance(until)

    def _end(self, now: float, index: int) -> None:
        machine = self.machines[index]
        self.free.append((now, now - machine.began))
        # As the coordinator reckons it: the schedule's next moment.
        machine.due += machine.period * max(1, math.ceil((now - machine.due) / machine.period))
        self._ask_next(machine.due, index)

    def _ask(self, now: float, index: int) -> None:
        machine = self.machines[index]
        own = (machine.deadline, index)
        if self.free and self._may_start(now, own):
            self.free.remove(min(self.free))
            if own in self.waiting:
                self.waiting.remove(own)
            machine.waits.append(now - machine.due)
            machine.missed_turns += now - machine.due >= machine.period
            machine.asked_since, machine.began = None, now
            heapq.heappush(self._events, (now + machine.session_seconds(), index, "end", index))
            return
        if machine.asked_since is None:
            machine.asked_since = now
            insort(self.waiting, own)
        self._ask_next(now + PING_SECONDS / 2, index)

    def _may_start(self, now: float, own: tuple[datetime, int]) -> bool:
        freed, length = min(self.free)
        free = FreeSlots(len(self.free), timedelta(seconds=now - freed), timedelta(seconds=length))
        others = [entry for entry in self.waiting[: queue.UNLIMITED + 1] if entry != own]
        head = None
        if others:
            since = self.machines[others[0][1]].asked_since
            assert since is not None
            head = QueueEntry(others[0][0], _moment(since))
        allowed = self.rule(free, head, _moment(now))
        return sum(1 for other in others[:allowed] if other < own) < allowed


def fleet(load: float, slots: int, durations: str, *, seed: int, is_after_outage: bool) -> list[Machine]:
    """Draw as many machines as load the slots by that share. After an outage of a day, all of them are due."""
    chance = random.Random(f"{seed} {durations}")
    median, spread = DURATIONS[durations]
    mean = median * math.exp(spread**2 / 2)
    machines: list[Machine] = []
    wanted, planned = load * slots, 0.0
    while planned < wanted:
        period = chance.choices(list(PERIODS), list(PERIODS.values()))[0]
        planned += mean / period
        due = chance.uniform(0, period)
        if is_after_outage:
            due = -chance.uniform(0, DAY_SECONDS) if period <= DAY_SECONDS or chance.random() < 1 / 7 else due
        machines.append(
            Machine(
                period, chance.uniform(0, PING_SECONDS), median, spread, due, random.Random(f"{seed} {len(machines)}")
            )
        )
    return machines


def figures(storage: PlayedStorage, until: float) -> dict[str, Any]:
    """Summarize what the machines waited, in minutes, and what the slots were worth."""
    waits = sorted(wait / 60 for machine in storage.machines for wait in machine.waits)
    still = [until - machine.due for machine in storage.machines if machine.asked_since is not None]
    relative = sorted(wait / machine.period for machine in storage.machines for wait in machine.waits) + sorted(
        (until - m.due) / m.period for m in storage.machines if m.asked_since is not None
    )
    return {
        "backups": len(waits),
        "median_minutes": round(statistics.median(waits), 1),
        "p99_minutes": round(waits[int(len(waits) * 0.99)], 1),
        "longest_minutes": round(max([*waits, *(span / 60 for span in still)]), 1),
        "longest_periods": round(max(relative), 2),
        "missed_turns": sum(machine.missed_turns for machine in storage.machines),
        "idle_share": round(storage.idle_seconds / (storage.busy_seconds + storage.idle_seconds), 4),
        "waiting_at_end": len(still),
    }


def hogged(rule: Rule) -> dict[str, Any]:
    """A head that is unlucky: another machine of one minute always asks just before it, once a slot is free."""
    quick = random.Random(1)
    victim = Machine(DAY_SECONDS, 0.0, 60.0, 0.0, -2 * DAY_SECONDS, quick)
    rival = Machine(10.0, 40.0, 270.0, 0.0, -300.0, random.Random(2))
    storage = PlayedStorage([victim, rival], 1, rule)
    storage.free = []
    storage._events = [(10.0, 1, "end", 1), (0.0, 0, "ask", 0)]
    heapq.heapify(storage._events)
    storage.run(3 * DAY_SECONDS)
    return {"victim_waits_hours": round(victim.waits[0] / 3600 - 48, 1) if victim.waits else "more than 72"}


def main() -> None:
    """Play all rules at all loads, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--days", type=float, default=7)
    parser.add_argument("--slots", type=int, nargs="+", default=[4])
    parser.add_argument("--loads", type=float, nargs="+", default=[0.3, 0.6, 0.9])
    parser.add_argument("--durations", choices=list(DURATIONS), nargs="+", default=list(DURATIONS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    until = arguments.days * DAY_SECONDS
    rows: list[dict[str, Any]] = []
    for durations in arguments.durations:
        for slots in arguments.slots:
            for load in arguments.loads:
                for is_after_outage in (False, True):
                    for name, rule in RULES.items():
                        found = []
                        for seed in range(arguments.seeds):
                            machines = fleet(load, slots, durations, seed=seed, is_after_outage=is_after_outage)
                            storage = PlayedStorage(machines, slots, rule)
                            storage.run(until)
                            found.append(figures(storage, until))
                        row = {key: round(statistics.mean(each[key] for each in found), 4) for key in found[0]}
                        row["longest_periods"] = max(each["longest_periods"] for each in found)
                        row = {
                            "durations": durations,
                            "slots": slots,
                            "load": load,
                            "after_outage": is_after_outage,
                            "rule": name,
                            "machines": len(machines),
                            **row,
                        }
                        rows.append(row)
                        print(json.dumps(row), flush=True)
    for name, rule in RULES.items():
        rows.append({"rule": name, **hogged(rule)})
        print(json.dumps(rows[-1]))
    if arguments.output:
        arguments.output.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
