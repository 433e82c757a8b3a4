"""When two clocks agree, and when a date cannot be right: what is said by whoever compares them."""

from __future__ import annotations

from datetime import datetime, timedelta

TOLERANCE = timedelta(minutes=5)
"""Clocks that differ by no more agree: a message takes its time, and a clock is set by some seconds now and then."""
COORDINATORS_TOLERANCE = timedelta(minutes=10)
"""The most by which the clocks of coordinators may differ. A later moment was written by a clock that was wrong."""


def is_ahead(moment: datetime | None, *, now: datetime) -> bool:
    """Return True when the moment, aware, lies further in the future than clocks that agree can differ."""
    return moment is not None and moment - now > TOLERANCE


def disagreement(own: datetime, other: datetime, *, whose: str) -> str:
    """Return a clause that says how the own clock differs from the ``other`` one; empty where they agree.

    ``whose`` names the owner of the other clock, such as ``the coordinator``.
    """
    difference = own - other
    if abs(difference) <= TOLERANCE:
        return ""
    direction = "ahead of" if difference > timedelta(0) else "behind"
    return f"{_spelled(abs(difference))} {direction} the clock of {whose}"


def _spelled(duration: timedelta) -> str:
    minutes = round(duration.total_seconds() / 60)
    if minutes < 120:
        return f"{minutes} minutes"
    hours = round(minutes / 60)
    return f"{hours} hours" if hours < 48 else f"{round(hours / 24)} days"
