"""The snapshots of a source that are on disk, those made by an existing storage included (contract, section 5)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Protocol, TypeVar

from turku.policy import anomaly, names
from turku.policy.anomaly import RunStats
from turku.policy.timing import clock_agreement
from turku.storage.disk import snapshot_notes, snapshot_record
from turku.storage.disk.snapshot_notes import Review
from turku.storage.disk.source_directory import SourceDirectory
from turku.storage.fs import tree as fs


@dataclass(frozen=True)
class StoredSnapshot:
    """A snapshot that is whole; what is being made or removed never shows."""

    name: str
    path: Path
    """The directory with its files; that of another snapshot, where the source had not changed (snapshots/links.py)."""
    moment: datetime | None
    """When it was made, in UTC: by its record, else by its name. None when neither tells."""
    is_held: bool
    """Whether its name says that it is never to be pruned."""
    was_found_in_future: bool = False
    """True where a backup found its date in the future (``Notes.found_in_future``)."""

    def is_date_in_doubt(self, now: datetime) -> bool:
        """Return True where the date lies in the future, or did when a later backup was made: a clock was wrong."""
        return self.was_found_in_future or clock_agreement.is_ahead(self.moment, now=now)


def stored_snapshots(place: SourceDirectory, zone: tzinfo) -> tuple[StoredSnapshot, ...]:
    """Return the snapshots, oldest first. ``zone`` is that of their names.

    The record's time counts before the name's: in the hour that a clock shows twice, names of one hour mean two. Those
    whose date is not known, or was found to be in the future, come before the others.
    """
    found = []
    for entry in fs.names(place.snapshots_dir):
        if entry.startswith(".") or not (fs.is_directory(place.snapshot(entry)) or place.link_target(entry)):
            continue
        tree = place.tree(entry)
        if not fs.is_directory(tree):
            continue
        name = names.parse_snapshot_name(entry, source=place.source, zone=zone)
        recorded = snapshot_record.recorded_date(place, entry)
        moment = recorded.sync_begin or name.moment
        was_found_in_future = moment is not None and recorded.found_in_future is not None
        found.append(StoredSnapshot(entry, tree, moment, name.is_held, was_found_in_future))
    return tuple(sorted(found, key=_age_order))


def _age_order(snapshot: StoredSnapshot) -> tuple[bool, float, str]:
    moment = float("-inf") if snapshot.moment is None else snapshot.moment.timestamp()
    return (snapshot.moment is not None and not snapshot.was_found_in_future, moment, snapshot.name)


class Dated(Protocol):
    """A snapshot, as far as its date goes."""

    @property
    def name(self) -> str: ...

    @property
    def moment(self) -> datetime | None: ...

    def is_date_in_doubt(self, now: datetime) -> bool: ...


Snapshot = TypeVar("Snapshot", bound=Dated)


def latest_last(snapshots: Iterable[Snapshot], *, now: datetime) -> list[Snapshot]:
    """Return the snapshots, given oldest first, so that the latest is the last: dates in doubt count for nothing."""
    return sorted(snapshots, key=lambda each: not each.is_date_in_doubt(now))


def note_dates_ahead(place: SourceDirectory, zone: tzinfo, *, now: datetime) -> tuple[str, ...]:
    """Note with each snapshot that its date lies in the future; return their names. The source's lock is held.

    Once their dates have come they would else look newer than what was made since.
    """
    if not has_name_ahead(place, zone, now=now):
        return ()
    ahead = [each for each in stored_snapshots(place, zone) if clock_agreement.is_ahead(each.moment, now=now)]
    for each in ahead:
        if not each.was_found_in_future:
            snapshot_notes.change(place, each.name, found_in_future=now)
    return tuple(each.name for each in ahead)


def has_name_ahead(place: SourceDirectory, zone: tzinfo, *, now: datetime) -> bool:
    """Return True where a name beside the snapshots says a time in the future; no record is read."""
    entries = fs.names(place.snapshots_dir)
    found = (names.parse_snapshot_name(entry, source=place.source, zone=zone) for entry in entries)
    return any(clock_agreement.is_ahead(each.moment, now=now) for each in found)


def newest(place: SourceDirectory, zone: tzinfo, *, now: datetime) -> StoredSnapshot | None:
    """Return the snapshot that is most like the source now; None before the first one."""
    snapshots = latest_last(stored_snapshots(place, zone), now=now)
    return snapshots[-1] if snapshots else None


def base(place: SourceDirectory, zone: tzinfo, *, now: datetime) -> StoredSnapshot | None:
    """Return the snapshot to build the next one upon: the newest that nobody judged bad; the newest where all are."""
    snapshots = latest_last(stored_snapshots(place, zone), now=now)
    for snapshot in reversed(snapshots):
        if snapshot_notes.read(place, snapshot.name).review is not Review.REJECTED:
            return snapshot
    return snapshots[-1] if snapshots else None


def awaiting_review(place: SourceDirectory, zone: tzinfo) -> tuple[StoredSnapshot, ...]:
    """The suspicious snapshots that nobody has judged yet; while there is one, nothing of the source is pruned."""
    return tuple(each for each in stored_snapshots(place, zone) if snapshot_notes.read(place, each.name).needs_review)


def baseline(place: SourceDirectory, zone: tzinfo) -> tuple[RunStats, ...]:
    """The figures of the newest good backups, those that were found suspicious and judged clean included."""
    found: list[RunStats] = []
    for snapshot in reversed(stored_snapshots(place, zone)):
        noted = snapshot_notes.read(place, snapshot.name)
        if noted.is_good and noted.stats is not None:
            found.append(noted.stats)
        if len(found) == anomaly.BASELINE_RUNS:
            break
    return tuple(found)
