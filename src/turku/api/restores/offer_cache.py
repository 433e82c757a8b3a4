"""A short memory of the fact that no machine has a restore to pick up, so that checkins need not look.

Nearly always there is none. Each process remembers that, so a restore is offered at most a second late.
"""

from turku.core.clock import SYSTEM_CLOCK

REMEMBERED_SECONDS = 1.0

_none_until = 0.0


def may_exist() -> bool:
    """Return True if a checkin has to look for restores."""
    return SYSTEM_CLOCK.monotonic_seconds() >= _none_until


def remember_none() -> None:
    """Remember that there is none now."""
    global _none_until  # noqa: PLW0603  (of the process, as it is meant)
    _none_until = SYSTEM_CLOCK.monotonic_seconds() + REMEMBERED_SECONDS


def forget() -> None:
    """Forget that, because this process has just changed a request."""
    global _none_until  # noqa: PLW0603
    _none_until = 0.0
