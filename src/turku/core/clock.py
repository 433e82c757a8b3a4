"""The only module that reads the time."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Where time comes from; tests pass one of their own."""

    def now(self) -> datetime:
        """The moment, aware, in UTC."""

    def monotonic_seconds(self) -> float:
        """Seconds since an arbitrary start; never goes back."""

    def sleep(self, seconds: float) -> None:
        """Return after that many seconds."""


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic_seconds(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


SYSTEM_CLOCK = SystemClock()


def boot_nanoseconds() -> int:
    """Return the nanoseconds since this system was started, sleep included. Nobody sets this clock."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
