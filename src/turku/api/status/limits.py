"""The limits after which something counts as silent or overdue."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

STORAGE_SILENCE = timedelta(minutes=30)
OVERDUE_AFTER = timedelta(hours=10)


@dataclass(frozen=True)
class HealthLimits:
    """The longest time for each state. ``machine_silence`` of None leaves that limit to policies."""

    storage_silence: timedelta = STORAGE_SILENCE
    machine_silence: timedelta | None = None
    overdue: timedelta = OVERDUE_AFTER


DEFAULT_LIMITS = HealthLimits()
