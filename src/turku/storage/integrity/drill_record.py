"""The record of a source's last restore drill, kept beside its catalog."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from turku.storage.catalog import database
from turku.storage.disk.source_directory import SourceDirectory
from turku.storage.fs import tree as fs

if TYPE_CHECKING:
    from turku.storage.integrity.drill import DrillResult

RETRY = timedelta(days=1)
"""The time after which a failed drill is repeated."""
_LIMIT_BYTES = 64 * 1024


@dataclass(frozen=True)
class DrillRecord:
    """One drill. ``end`` is in Unix seconds."""

    end: float
    success: bool
    snapshot: str
    summary: str


def read(place: SourceDirectory) -> DrillRecord | None:
    """Return the last drill of the source, or None before the first one."""
    path = database.file_of(place).with_suffix(".drill.json")
    try:
        database.refuse_planted(place, path)
        return msgspec.convert(json.loads(fs.read_file(path, limit_bytes=_LIMIT_BYTES)), DrillRecord)
    except (OSError, ValueError, msgspec.MsgspecError):
        return None


def write(made: DrillResult) -> None:
    """Record the drill as the source's last one. Raises CatalogUnusable, DurableWriteFailed."""
    path = database.file_of(made.place).with_suffix(".drill.json")
    try:
        database.make_directory(made.place)
    except OSError as error:
        raise database.unusable(made.place, error) from error
    owner = fs.status(path.parent)
    record = DrillRecord(made.end.timestamp(), made.is_good, made.snapshot, made.summary)
    is_given = owner is not None and os.geteuid() == 0
    fs.write_json(
        path,
        msgspec.to_builtins(record),
        owner=(owner.st_uid, owner.st_gid) if owner is not None and is_given else None,
    )


def is_due(place: SourceDirectory, *, drill_days: float, now: datetime) -> bool:
    """Return True if a drill of the source is due. ``drill_days`` of 0 is never."""
    if drill_days == 0:
        return False
    last = read(place)
    if last is None:
        return True
    pause = timedelta(days=drill_days) if last.success else min(timedelta(days=drill_days), RETRY)
    return last.end > now.timestamp() or now.timestamp() - last.end >= pause.total_seconds()
