"""The record beside a snapshot: its name, its base, and the times of its beginning and end."""

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from turku.errors import InvalidValue
from turku.policy.timing import local_time
from turku.storage.disk import snapshot_notes as notes
from turku.storage.disk.snapshot_notes import LIMIT_BYTES, NO_NOTES, Notes
from turku.storage.disk.source_directory import SourceDirectory
from turku.storage.fs import tree as fs


@dataclass(frozen=True)
class AdoptedFrom:
    """The tree of another program that a snapshot was made of."""

    path: str
    """Its path, decoded by ``os.fsdecode``."""
    inode: int
    """The number of its directory. rsnapshot renames directories, and the number stays."""


@dataclass(frozen=True)
class SnapshotRecord:
    """The contract's ``<snapshot>.json`` with our notes."""

    name: str
    base: str | None
    sync_begin: datetime
    sync_finish: datetime
    notes: Notes = NO_NOTES
    adopted_from: AdoptedFrom | None = None

    def write(self, place: SourceDirectory) -> None:
        fs.write_json(
            place.record_path(self.name),
            {
                "name": self.name,
                "base": self.base,
                "sync_begin": self.sync_begin.isoformat(),
                "sync_finish": self.sync_finish.isoformat(),
                **self.notes.as_json(),
                **({} if self.adopted_from is None else {"adopted_from": asdict(self.adopted_from)}),
            },
        )


def read(place: SourceDirectory, name: str) -> SnapshotRecord | None:
    """Return the record of a snapshot, or None if a crash of an existing storage left none, or half of one."""
    try:
        content: Any = json.loads(fs.read_file(place.record_path(name), limit_bytes=LIMIT_BYTES))
        return SnapshotRecord(
            name=name,
            base=str(content["base"]) if content.get("base") else None,
            sync_begin=notes.aware_moment(content["sync_begin"]),
            sync_finish=notes.aware_moment(content["sync_finish"]),
            notes=notes.read(place, name),
            adopted_from=_adopted_from(content.get("adopted_from")),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _adopted_from(content: Any) -> AdoptedFrom | None:
    if isinstance(content, dict) and isinstance(content.get("path"), str) and isinstance(content.get("inode"), int):
        return AdoptedFrom(content["path"], content["inode"])
    return None


@dataclass(frozen=True)
class RecordedDate:
    """The date of a snapshot as its record has it."""

    sync_begin: datetime | None = None
    """The beginning of the run, aware, or None if the record has no usable date."""
    found_in_future: datetime | None = None
    """The value of ``Notes.found_in_future``."""


def recorded_date(place: SourceDirectory, name: str) -> RecordedDate:
    """Return the date of the snapshot, as far as its record has one."""
    try:
        content: Any = json.loads(fs.read_file(place.record_path(name), limit_bytes=LIMIT_BYTES))
    except (OSError, ValueError):
        return RecordedDate()

    def moment(key: str) -> datetime | None:
        try:
            return local_time.in_utc(notes.aware_moment(content[key]))
        except (ValueError, KeyError, TypeError, InvalidValue):
            return None

    return RecordedDate(moment("sync_begin"), moment("found_in_future"))
