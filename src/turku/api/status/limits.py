"""From when on something counts as silent or overdue."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

STORAGE_SILENCE = timedelta(minutes=30)
OVERDUE_AFTER = timedelta(hours=10)


@dataclass(frozen=True)
class HealthLimits:
    """How long each may last. ``machine_silence``: for all machines; None leaves it to their policies."""

    storage_silence: timedelta = STORAGE_SILENCE
    machine_silence: timedelta | None = None
    overdue: timedelta = OVERDUE_AFTER


DEFAULT_LIMITS = HealthLimits()
