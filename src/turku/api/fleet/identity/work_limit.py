"""Limits on the work of one caller, counted before it is done, for accepted and refused messages (threat M11).

Each process counts for itself. With two workers, a caller can cause twice the limit in the worst case.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from turku.api.fleet.identity.throttle import BoundedCache
from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.errors import ApiThrottled

REMEMBERED_CALLERS = 20_000


class WorkLimit:
    """Units of work by caller.

    ``limit`` counts for each ``span``. A caller has one message of at least ``large`` units at a time. Callers must be
    authenticated, so that nobody is charged for what others send under that name.
    """

    def __init__(self, *, limit: int, large: int, span: timedelta, clock: Clock = SYSTEM_CLOCK) -> None:
        self._limit = limit
        self._large = large
        self._span = span
        self._clock = clock
        self._lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Clear all counts of this process, for tests."""
        self._spent: BoundedCache[tuple[float, int]] = BoundedCache(REMEMBERED_CALLERS)
        """The start of the span and the work since then, by caller."""
        self._at_work: set[str] = set()

    @contextmanager
    def reserve(self, caller: str, units: int) -> Iterator[None]:
        """Count that much work for the caller while it runs. Raises ApiThrottled if it is too much."""
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
                    "another message of the same sender is being worked on", hint="send one after the other"
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
"""The cost of a source in filter rules."""
CONFIGURATIONS = WorkLimit(limit=1_500_000, large=5_000, span=timedelta(hours=1))
"""Declarations of machines. The largest message has 120,000 units, and a machine sends two a day."""
REGISTRATIONS = WorkLimit(limit=15_000_000, large=5_000, span=timedelta(hours=1))
"""Declarations of new machines, by Auth and network. A whole fleet may register at once behind one router."""
