"""The trash of a source: snapshots that retention removed, hidden beside history and restorable for some days.

An entry is ``<source>.snapshots/.trash-<Unix seconds of the removal>-<snapshot>/``, with its record beside it. One
rename removes a snapshot and one brings it back. If a crash separates that rename from the record's own, the next run
puts both right. Only the storage's clock and its own configuration say when the trash is emptied (threats C4).
"""

import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from turku.errors import UsageError
from turku.storage.disk import deletion, snapshot_links, snapshot_notes
from turku.storage.disk.source_directory import RECORD_SUFFIX, SourceDirectory
from turku.storage.fs import tree as fs

PREFIX = ".trash-"
SHORTEST_HOLD = timedelta(days=7)
_NAME = re.compile(re.escape(PREFIX) + r"(\d{1,12})-(.+)", re.DOTALL)


@dataclass(frozen=True)
class TrashedSnapshot:
    """A snapshot in the trash."""

    place: SourceDirectory
    name: str
    """Its name in history."""
    trashed: datetime
    """The time of its removal from history."""

    @property
    def stored_name(self) -> str:
        """Return the name of its directory in the trash."""
        return f"{PREFIX}{int(self.trashed.timestamp())}-{self.name}"

    @property
    def path(self) -> Path:
        return self.place.snapshot(self.stored_name)


def trashed_snapshots(place: SourceDirectory) -> tuple[TrashedSnapshot, ...]:
    """Return the trash of a source, sorted by name and time of removal."""
    found = []
    for entry in fs.names(place.snapshots_dir):
        match = _NAME.fullmatch(entry)
        if match and place.has(entry):
            with suppress(OverflowError, ValueError):
                found.append(TrashedSnapshot(place, match[2], datetime.fromtimestamp(int(match[1]), UTC)))
    return tuple(sorted(found, key=lambda each: (each.name, each.trashed)))


def put(place: SourceDirectory, name: str, *, now: datetime) -> TrashedSnapshot:
    """Move a snapshot from history to the trash, and return its entry there."""
    trashed = TrashedSnapshot(place, name, now.replace(microsecond=0))
    record = place.record_path(name)
    # The record has both names until the snapshot has moved. ``remove_stray_records`` removes the one left over.
    with suppress(FileNotFoundError, FileExistsError):
        fs.hard_link(record, place.record_path(trashed.stored_name))
    snapshot_links.hand_over(place, name)
    fs.rename(place.snapshot(name), trashed.path)
    fs.unlink(record)
    return trashed


def restore(trashed: TrashedSnapshot, *, now: datetime, trash_days: float) -> datetime:
    """Bring a snapshot back into history with its record, and return the time until which it is held there.

    Retention does not remove it before that time. Raises UsageError when its name is taken.
    """
    place, name = trashed.place, trashed.name
    if fs.exists(place.snapshot(name)):
        raise UsageError(
            f"{name} is in history already", hint="to have both, rename the one in history, with its .json"
        )
    held_until = now + max(timedelta(days=trash_days), SHORTEST_HOLD)
    kept = place.record_path(trashed.stored_name)
    if fs.is_file(kept):
        fs.write_bytes(place.record_path(name), fs.read_file(kept, limit_bytes=snapshot_notes.LIMIT_BYTES))
    snapshot_notes.change(place, name, held_until=held_until)
    snapshot_links.hand_over(place, trashed.stored_name)
    fs.rename(trashed.path, place.snapshot(name))
    snapshot_links.take_from_hidden(place, name)
    fs.unlink(kept)
    return held_until


def empty(place: SourceDirectory, *, removed_until: datetime) -> tuple[TrashedSnapshot, ...]:
    """Mark for deletion what was put into the trash at or before ``removed_until``, and return it.

    ``deletion.collect`` frees the space.
    """
    emptied = [each for each in trashed_snapshots(place) if each.trashed <= removed_until]
    for each in emptied:
        deletion.mark(place, each.stored_name)
    return tuple(emptied)


def remove_stray_records(place: SourceDirectory) -> None:
    """Remove records in the trash without a snapshot. A killed run leaves such records."""
    for entry in fs.names(place.snapshots_dir):
        name = entry.removesuffix(RECORD_SUFFIX)
        if name != entry and entry.startswith(PREFIX) and not place.has(name):
            fs.unlink(place.snapshot(entry))
