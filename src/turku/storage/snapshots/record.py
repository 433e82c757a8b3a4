"""What is written beside a snapshot: its name, what it was built against, when it was begun and finished."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from turku.storage.fs import tree as fs
from turku.storage.snapshots import notes
from turku.storage.snapshots.notes import LIMIT_BYTES, NO_NOTES, Notes
from turku.storage.snapshots.place import SourcePlace


@dataclass(frozen=True)
class SnapshotRecord:
    """The ``<snapshot>.json`` of the contract, section 5, and our notes."""

    name: str
    base: str | None
    sync_begin: datetime
    sync_finish: datetime
    notes: Notes = NO_NOTES

    def write(self, place: SourcePlace) -> None:
        fs.write_json(
            place.information(self.name),
            {
                "name": self.name,
                "base": self.base,
                "sync_begin": self.sync_begin.isoformat(),
                "sync_finish": self.sync_finish.isoformat(),
                **self.notes.as_json(),
            },
        )


def read(place: SourcePlace, name: str) -> SnapshotRecord | None:
    """The record of a snapshot; None where a crash of an existing storage left none, or half of one."""
    try:
        content: Any = json.loads(fs.read_file(place.information(name), limit_bytes=LIMIT_BYTES))
        return SnapshotRecord(
            name=name,
            base=str(content["base"]) if content.get("base") else None,
            sync_begin=_moment(content["sync_begin"]),
            sync_finish=_moment(content["sync_finish"]),
            notes=notes.read(place, name),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("without a zone")
    return moment
