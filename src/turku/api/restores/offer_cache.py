"""Whether any machine at all is to be told of a restore: nearly always none is, and check-ins need not look then.

Each process remembers that for a moment, so that a restore is told of a second later than it could be at most.
"""

from __future__ import annotations

from turku.core.clock import SYSTEM_CLOCK

REMEMBERED_SECONDS = 1.0

_none_until = 0.0


def may_exist() -> bool:
    """Whether a check-in has to look for its own."""
    return SYSTEM_CLOCK.monotonic_seconds() >= _none_until


def remember_none() -> None:
    """Remember that there was none just now."""
    global _none_until  # noqa: PLW0603  (of the process, as it is meant)
    _none_until = SYSTEM_CLOCK.monotonic_seconds() + REMEMBERED_SECONDS


def forget() -> None:
    """Look again: this process has just changed a request."""
    global _none_until  # noqa: PLW0603
    _none_until = 0.0
