"""How much work one caller may cause: counted before it is done, whether the message is taken or refused (threats M11).

Each process counts for itself: with two workers, twice as much is done in the worst case.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from turku.api.fleet.identity.throttle import BoundedCache
from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.errors import ApiThrottled

REMEMBERED_CALLERS = 20_000


class WorkLimit:
    """Units of work by caller. ``limit`` is for each ``span``; of ``large`` work a caller has one piece at a time.

    Callers must have proved who they are: nobody is to be counted for what others send in that name.
    """

    def __init__(self, *, limit: int, large: int, span: timedelta, clock: Clock = SYSTEM_CLOCK) -> None:
        self._limit = limit
        self._large = large
        self._span = span
        self._clock = clock
        self._lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Start anew in this process: for tests."""
        self._spent: BoundedCache[tuple[float, int]] = BoundedCache(REMEMBERED_CALLERS)
        """Caller to when its span began and what was done since."""
        self._at_work: set[str] = set()

    @contextmanager
    def reserve(self, caller: str, units: int) -> Iterator[None]:
        """Count that much work for the caller, and let it be done. Raises ApiThrottled where it is too much."""
        is_large = units >= self._large
        with self._lock:
            begun, done = self._since(caller)
            if done + units > self._limit:
                raise ApiThrottled(
                    f"more than {self._limit} sources and rules (a source counts as {UNITS_PER_SOURCE}) within an hour",
                    hint="wait an hour, then send it again",
                )
            if is_large and caller in self._at_work:
                raise ApiThrottled(
                    "another message of the same sender is being worked on",
                    hint="send one after the other",
                )
            self._spent.put(caller, (begun, done + units))
            if is_large:
                self._at_work.add(caller)
        try:
            yield
        finally:
            if is_large:
                with self._lock:
                    self._at_work.discard(caller)

    def _since(self, caller: str) -> tuple[float, int]:
        now = self._clock.monotonic_seconds()
        known = self._spent.get(caller)
        return known if known is not None and now - known[0] < self._span.total_seconds() else (now, 0)


UNITS_PER_SOURCE = 20
"""A source costs as much as so many of its rules."""
CONFIGURATIONS = WorkLimit(limit=1_500_000, large=5_000, span=timedelta(hours=1))
"""What a machine declares. The largest message has 120,000 units; a machine sends its configuration twice a day."""
REGISTRATIONS = WorkLimit(limit=15_000_000, large=5_000, span=timedelta(hours=1))
"""The same of new machines, by registration Auth and network: a fleet may register at once, from behind one router."""
