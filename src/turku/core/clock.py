"""The only module that reads the time."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """A source of time. Tests pass their own."""

    def now(self) -> datetime:
        """Return the current moment, in UTC."""

    def monotonic_seconds(self) -> float:
        """Return the seconds since an arbitrary start. They never go back."""

    def sleep(self, seconds: float) -> None:
        """Return after that many seconds."""


class SystemClock:
    """The clock of this host."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic_seconds(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


SYSTEM_CLOCK = SystemClock()


def boot_nanoseconds() -> int:
    """Return the nanoseconds since this system started, sleep included. This clock cannot be set."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
