"""From when on something counts as silent or overdue."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

STORAGE_SILENCE = timedelta(minutes=30)
OVERDUE_AFTER = timedelta(hours=10)
CLOCK_DIFFERENCE = timedelta(minutes=10)
"""By how much the clocks of coordinators may differ: what lies further ahead was written by one that was wrong."""


@dataclass(frozen=True)
class Thresholds:
    """How long each may last. ``machine_silence``: for all machines; None leaves it to their policies."""

    storage_silence: timedelta = STORAGE_SILENCE
    machine_silence: timedelta | None = None
    overdue: timedelta = OVERDUE_AFTER


USUAL = Thresholds()
