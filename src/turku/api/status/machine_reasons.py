"""The reason and the next step for the mark of a machine: its own, or those of its worst source."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.utils import timezone

from turku.api.backups.models import Source
from turku.api.status import source_reasons
from turku.api.status.marks import Mark


def reason(machine: Any, worst: Source | None, *, now: datetime) -> str:
    """Return the reason for the mark of a row of ``fleet_marks.machines``.

    ``worst`` is its source with the worst mark, or None.
    """
    mark = Mark(machine.mark)
    if mark is Mark.MUTED:
        return f"until {_moment(machine.date_muted_until)}: {machine.mute_reason}"
    if mark is Mark.SILENT:
        return f"not heard of since {_moment(machine.last_seen)}"
    if mark is Mark.STORAGE_SILENT:
        return f"its storage {machine.storage} is silent"
    if worst is None or Mark(worst.mark) is not mark:  # type: ignore[attr-defined]  # annotated
        return ""
    said = source_reasons.reason(worst, mark, now=now)
    return f"{worst.name}: {said}" if said else worst.name


def next_step(machine: Any, worst: Source | None) -> str:
    """Return the next step for the mark of a row of ``fleet_marks.machines``, or an empty text."""
    mark = Mark(machine.mark)
    if mark is Mark.SILENT:
        return (
            "Look on the machine whether it runs and reaches the coordinator: systemctl status turku-agent-ping.timer, "
            "turku-agent-ping --debug. One that is meant to be away is muted here, or has a policy that lets it."
        )
    if mark is Mark.UNASSIGNED:
        return "Enable a storage that has space, or choose one here."
    if mark is Mark.STORAGE_SILENT:
        return f"Look on the storage {machine.storage}: systemctl status turku-storage-update-config.timer."
    if worst is None or Mark(worst.mark) is not mark:  # type: ignore[attr-defined]  # annotated
        return ""
    return source_reasons.next_step(worst, mark)


def _moment(moment: datetime | None) -> str:
    return f"{timezone.localtime(moment):%Y-%m-%d %H:%M}" if moment else "never"
