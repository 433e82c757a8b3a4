"""The trash of a source: what retention removed, hidden beside the snapshots and restorable for some days.

``<source>.snapshots/.trash-<Unix seconds of the removal>-<snapshot>/``, with the record beside it. One rename is the
removal and one the return; what a crash leaves between them and the record's own is put right by the next run. Only
the storage's clock and its own configuration say when the trash goes (threats C4).
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from turku.errors import UsageError
from turku.storage.disk import snapshot_links, snapshot_notes
from turku.storage.disk.source_directory import INFORMATION_SUFFIX, SourceDirectory
from turku.storage.fs import tree as fs
from turku.storage.snapshots import SnapshotMode

PREFIX = ".trash-"
SHORTEST_HOLD = timedelta(days=7)
_NAME = re.compile(re.escape(PREFIX) + r"(\d{1,12})-(.+)", re.DOTALL)


@dataclass(frozen=True)
class TrashedSnapshot:
    """A snapshot in the trash."""

    place: SourceDirectory
    name: str
    """What it was called in history."""
    trashed: datetime
    """When it was removed."""

    @property
    def stored_name(self) -> str:
        """What its directory is called now."""
        return f"{PREFIX}{int(self.trashed.timestamp())}-{self.name}"

    @property
    def path(self) -> Path:
        return self.place.snapshot(self.stored_name)


def trashed_snapshots(place: SourceDirectory) -> tuple[TrashedSnapshot, ...]:
    """What is in the trash of a source, by name and time."""
    found = []
    for entry in fs.names(place.snapshots_dir):
        match = _NAME.fullmatch(entry)
        if match and place.has(entry):
            with suppress(OverflowError, ValueError):
                found.append(TrashedSnapshot(place, match[2], datetime.fromtimestamp(int(match[1]), UTC)))
    return tuple(sorted(found, key=lambda each: (each.name, each.trashed)))


def put(place: SourceDirectory, name: str, *, now: datetime) -> TrashedSnapshot:
    """Move a snapshot from history to the trash; the entry it is there."""
    trashed = TrashedSnapshot(place, name, now.replace(microsecond=0))
    record = place.information(name)
    # The record has both names until the snapshot has moved; the one that is left over is swept.
    with suppress(FileNotFoundError, FileExistsError):
        fs.hard_link(record, place.information(trashed.stored_name))
    snapshot_links.hand_over(place, name)
    fs.rename(place.snapshot(name), trashed.path)
    fs.unlink(record)
    return trashed


def restore(trashed: TrashedSnapshot, *, now: datetime, trash_days: float) -> datetime:
    """Bring a snapshot back into history under its name, with its record; until when it is held there.

    It is not pruned before that, whatever the rules. Raises UsageError when its name is taken.
    """
    place, name = trashed.place, trashed.name
    if fs.exists(place.snapshot(name)):
        raise UsageError(
            f"{name} is in history already", hint="rename the one that is there, if you want both (with its .json)"
        )
    held_until = now + max(timedelta(days=trash_days), SHORTEST_HOLD)
    kept = place.information(trashed.stored_name)
    if fs.is_file(kept):
        fs.write_bytes(place.information(name), fs.read_file(kept, limit_bytes=snapshot_notes.LIMIT_BYTES))
    snapshot_notes.change(place, name, held_until=held_until)
    snapshot_links.hand_over(place, trashed.stored_name)
    fs.rename(trashed.path, place.snapshot(name))
    snapshot_links.take_from_hidden(place, name)
    fs.unlink(kept)
    return held_until


def empty(mode: SnapshotMode, *, removed_until: datetime) -> tuple[TrashedSnapshot, ...]:
    """What had been in the trash at that moment or before, and is gone for good; ``mode.sweep`` frees its space."""
    gone = [each for each in trashed_snapshots(mode.place) if each.trashed <= removed_until]
    for each in gone:
        mode.discard(each.stored_name)
    return tuple(gone)


def sweep_records(place: SourceDirectory) -> None:
    """Remove records of the trash whose snapshot is not there, as a run leaves them that was killed."""
    for entry in fs.names(place.snapshots_dir):
        name = entry.removesuffix(INFORMATION_SUFFIX)
        if name != entry and entry.startswith(PREFIX) and not place.has(name):
            fs.unlink(place.snapshot(entry))
